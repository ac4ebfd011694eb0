"""The guard: the steps that a message takes in mqkit's process (see steps.py), against the figures in guard.json.

`python -m tests.bench.guard` shows both, `--write` commits new figures: after a change that is meant to cost more, or
to keep what was gained. A step is a line that mqkit executes or a call that it makes, so a figure is the same on a slow
and on a busy machine; a little depends on how the broker's bytes arrive. Python's versions count lines differently, so
each has figures of its own.
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
LIMIT = 1.15
"""How many times the committed figure a message may take."""
TRIES = 3
"""How many runs in a row must be above the limit."""
RUNS = 3
"""Of which a new figure is the middle one."""


def committed() -> dict[str, float]:
    """Case -> steps of a message, for this Python; empty where none were counted with it."""
    found: dict[str, dict[str, float]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found.get(PYTHON, {})


def measure(case: str, url: str, burden: int = 0) -> float:
    """Steps of a message, counted in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.guard_case", case.partition("/")[2], url, str(burden)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{case} ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(done.stdout)


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
            new[case] = round(found[len(found) // 2], 1)
            shown = ", ".join(f"{figure:.1f}" for figure in found)
            print(f"{case:18} {new[case]:.1f}, committed {known.get(case, float('nan')):.1f}  ({shown})", flush=True)
    if options.write:
        everything = json.loads(FILE.read_text()) if FILE.exists() else {}
        everything[PYTHON] = dict(sorted({**known, **new}.items()))
        FILE.write_text(json.dumps(everything, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
