"""The guard: what a message costs mqkit's process, against the figures in guard.json, in units of the calibration loop.

`python -m tests.bench.guard` shows both, `--write` commits new figures: after a change that is meant to cost more, or
to keep what was gained. A figure is the second best of several runs: load only adds. They hold for one version
of Python, whose loop and whose asyncio they were made with.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.brokers import brokers

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("guard.json")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CASES = tuple(f"{broker}/{case}" for broker in ("memory", "rabbitmq", "kafka") for case in ("publish", "consume"))
LIMIT = 1.25
"""How many times the committed figure a message may cost."""
TRIES = 5
"""A run that costs more may have been disturbed; that happens to five in a row hardly ever."""
RUNS = 8
"""Of which a new figure is the second best: the best may have been luck."""


def committed() -> dict[str, float]:
    """Case -> figure, for this Python; empty where none were made for it."""
    found: dict[str, dict[str, float]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found.get(PYTHON, {})


def measure(case: str, url: str, burden: int = 0) -> float:
    """CPU of a thousand messages in units of the calibration loop: the least of a few rounds of one process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.guard_case", case.partition("/")[2], url, str(burden)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{case} ended with {done.returncode}: {done.stderr[-2000:]}")
    rounds: list[tuple[float, float]] = json.loads(done.stdout)
    return 1000 * min(each for _, each in rounds) / min(loop for loop, _ in rounds)


def risen(figure: float, measured: Callable[[], float]) -> list[float]:
    """What was measured, if every try was above the limit; empty, if one was not."""
    found = []
    for _ in range(TRIES):
        found.append(measured())
        if found[-1] <= LIMIT * figure:
            return []
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.guard", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--write", action="store_true", help="commit what is measured")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name holds this")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--amqp-url", metavar="URL")
    parser.add_argument("--kafka-url", metavar="URL")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if options.only in case]
    given = {"rabbitmq": options.amqp_url, "kafka": options.kafka_url}
    known, new = committed(), {}
    with brokers({case.partition("/")[0] for case in chosen}, {k: v for k, v in given.items() if v}, print) as urls:
        for case in chosen:
            found = sorted(measure(case, urls[case.partition("/")[0]]) for _ in range(options.runs))
            new[case] = round(found[min(1, len(found) - 1)], 3)
            shown = ", ".join(f"{figure:.3f}" for figure in found)
            print(f"{case:18} {new[case]:.3f}, committed {known.get(case, float('nan')):.3f}  ({shown})", flush=True)
    if options.write:
        everything = json.loads(FILE.read_text()) if FILE.exists() else {}
        everything[PYTHON] = dict(sorted({**known, **new}.items()))
        FILE.write_text(json.dumps(everything, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
