"""The benchmark: `python -m tests.bench.run`, as `make bench` calls it. `--help` lists what can be chosen.

Round by round each work is done by one contender after the other, each time in processes of its own, so that what
disturbs the machine disturbs all alike. Results are lines of JSON; report.py makes the tables and plots of them.
"""

import argparse
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.brokers import brokers
from tests.bench.contenders_list import CONTENDERS, Contender, pairs
from tests.bench.place import Place
from tests.bench.sample import take, versions
from tests.bench.works import Work

RESULTS = Path(__file__).with_name("results.jsonl")
SCRATCH = Path("build") / "bench.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    chosen = [(work, contender) for work, contender in pairs() if _wanted(options, work, contender)]
    if not chosen:
        print(f"error: nothing is called {options.only!r}: --list shows all names", file=sys.stderr)
        return 2
    if options.list:
        for work, contender in chosen:
            print(f"{name(work, contender):45} {contender.why_not(work) or contender.note(work)}".rstrip())
        return 0
    whole = not (options.only or options.quick)
    file = Path(options.json or (RESULTS if whole else SCRATCH))
    _run(options, chosen, file)
    print(f"results: {file}")
    return report.main([]) if file == RESULTS else report.main([str(file), "--goals"])


def name(work: Work, contender: Contender) -> str:
    """What `--only` is compared with."""
    return f"{contender.broker}/{work.name}/{contender.name.replace(' ', '-').lower()}"


def _wanted(options: argparse.Namespace, work: Work, contender: Contender) -> bool:
    called = name(work, contender)
    return not options.only or any(fnmatch(called, pattern) or pattern in called for pattern in options.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="name what would be measured, and measure nothing")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="as in 'kafka/*', 'publish-100', 'faststream'"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured; default: 3")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long one sample takes; default: 1")
    parser.add_argument("--quick", action="store_true", help="one round of short samples: to see that everything runs")
    parser.add_argument("--json", metavar="FILE", help=f"where results go; {SCRATCH}, if not all is measured")
    parser.add_argument("--fresh", action="store_true", help="begin anew where an interrupted run could go on")
    parser.add_argument("--amqp-url", metavar="URL", help="a RabbitMQ of yours, instead of one in a container")
    parser.add_argument("--kafka-url", metavar="URL", help="a Kafka of yours, instead of one in a container")
    return parser


def _run(options: argparse.Namespace, chosen: list[tuple[Work, Contender]], file: Path) -> None:
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, options.seconds)
    part = file.with_name(file.name + ".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        part.unlink(missing_ok=True)
    done, run = _done(part)
    plan = [
        (number, work, contender)
        for number in range(1, rounds + 1)
        for work, contender in _turned(chosen, number)
        if (number == 1 or not (work.once or contender.why_not(work))) and (number, name(work, contender)) not in done
    ]
    if done:
        print(f"going on with run {run}: {len(done)} samples are there; --fresh begins anew")
    given = {"rabbitmq": options.amqp_url, "kafka": options.kafka_url}
    wanted = {contender.broker for _, work, contender in plan if not contender.why_not(work)}
    clock = Clock(plan)
    with brokers(wanted, {k: v for k, v in given.items() if v}, _say) as urls, part.open("a") as out:
        if not done:
            _write(out, _head(run, rounds, seconds))
        for number, work, contender in plan:
            started = time.monotonic()
            fields = _sample(work, contender, urls.get(contender.broker, ""), seconds)
            took = time.monotonic() - started
            _write(out, {
                "run": run, "round": number, "case": name(work, contender), "work": work.name, "broker": contender.broker,
                "contender": contender.name, "took": round(took, 2), **fields,
            })  # fmt: skip
            clock.passed(work, took)
            print(f"{clock.shown()}  {name(work, contender):42} {_told(fields)}", flush=True)
    part.replace(file)


def _sample(work: Work, contender: Contender, url: str, seconds: float) -> dict[str, Any]:
    if why := contender.why_not(work):
        return {"cannot": why}
    place = Place(contender.broker, url, f"bench-{secrets.token_hex(4)}")
    return {**take(contender, work, place, seconds), "note": contender.note(work)}


def _turned(chosen: list[tuple[Work, Contender]], number: int) -> list[tuple[Work, Contender]]:
    """Every second round the other way round, so that nobody is always the first."""
    return chosen if number % 2 else chosen[::-1]


def _done(part: Path) -> tuple[set[tuple[int, str]], str]:
    lines = [json.loads(line) for line in part.read_text().splitlines()] if part.exists() else []
    samples = {(line["round"], line["case"]) for line in lines if "case" in line}
    return samples, lines[0]["run"] if lines else secrets.token_hex(4)


def _head(run: str, rounds: int, seconds: float) -> dict[str, Any]:
    found = {name: number for contender in CONTENDERS for name, number in versions(contender).items()}
    return {
        "run": run,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "seconds": seconds,
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "versions": dict(sorted(found.items())),
    }


def _write(out: Any, fields: dict[str, Any]) -> None:
    out.write(json.dumps(fields) + "\n")
    out.flush()


def _say(text: str) -> None:
    if text:
        print(text, flush=True)


def _told(fields: dict[str, Any]) -> str:
    if why := fields.get("cannot"):
        return f"cannot: {why}"
    if problem := fields["problem"]:
        return f"WRONG: {problem}"
    parts = []
    if fields["count"] > 1:
        parts += [
            f"{fields['count'] / fields['seconds']:>9,.0f}/s {1e6 * fields['cpu'] / fields['count']:>7.1f} µs CPU"
        ]
    if fields.get("p50") is not None:
        parts += [f"p50 {fields['p50'] * 1e3:.2f} ms, p99 {fields['p99'] * 1e3:.2f} ms"]
    if fields.get("count") == 0 and fields.get("startup"):
        parts += [f"first message after {fields['startup'] * 1e3:.0f} ms"]
    return ", ".join(parts)


class Clock:
    """How far the run is, and how long it will take."""

    def __init__(self, plan: list[tuple[int, Work, Contender]]) -> None:
        self._left = [work.kind for _, work, contender in plan if not contender.why_not(work)]
        self._total, self._number = len(plan), 0
        self._took: dict[str, list[float]] = {}

    def passed(self, work: Work, seconds: float) -> None:
        self._number += 1
        if self._left and work.kind == self._left[0]:
            self._left.pop(0)
            self._took.setdefault(work.kind, []).append(seconds)

    def shown(self) -> str:
        known = {kind: sum(took) / len(took) for kind, took in self._took.items()}
        usual = sum(known.values()) / len(known) if known else 0.0
        left = sum(known.get(kind, usual) for kind in self._left)
        return f"[{self._number}/{self._total}, {left / 60:.0f} min left]"


if __name__ == "__main__":
    sys.exit(main())
