"""One sample: prepare the place, run the processes, check the books, clear up. What comes out is one line of JSON.

The books of publishing: what was confirmed is in the queue, counted by a plain client. Those of consuming: every order
of the backlog was handled, and nothing is left in the queue, or behind the group's position.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench.case import Job
from tests.bench.contenders_list import Contender
from tests.bench.place import Place
from tests.bench.works import Work

ROOT = Path(__file__).parents[2]
LONGEST = 150.0
"""Seconds for one process."""
PATIENCE = 10.0
"""Seconds in which the books must come right: a broker takes a moment to put back what a client had."""


class SampleFailed(Exception):
    """A process of the sample ended badly."""


def versions(contender: Contender) -> dict[str, str | None]:
    """Of its libraries; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in contender.libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def take(contender: Contender, work: Work, place: Place, seconds: float) -> dict[str, Any]:
    """One sample, as the fields of its line. A sample that went wrong says so in `problem`."""
    missing = [name for name, found in versions(contender).items() if found is None]
    if missing:
        return {"problem": f"{missing[0]} is not installed"}
    count = contender.backlog(work, seconds)
    job = Job("measure", contender.module, work.name, place.fields(), count, seconds)
    try:
        fields = _measure(job, work, place)
        if work.kind == "startup":
            fields["import"] = _imported(contender.imports)
            fields["startup"] += fields["import"]
        fields["problem"] = _books(work, place, count, fields)
    except SampleFailed as error:
        return {"problem": str(error)}
    else:
        return fields
    finally:
        clear(place)


def _measure(job: Job, work: Work, place: Place) -> dict[str, Any]:
    apart = place.broker != "memory"
    if work.kind == "latency" and apart:
        run(replace(job, role="fill", count=0))
        with _started(job) as consumer:
            try:
                run(replace(job, role="pace"))
                return _result(consumer)
            finally:
                consumer.kill()
    if work.kind != "publish" and apart:
        run(replace(job, role="fill"))
    return run(job)


def run(job: Job) -> dict[str, Any]:
    """What a process that does `job` tells."""
    with _started(job) as process:
        try:
            return _result(process)
        finally:
            process.kill()


def _imported(modules: str) -> float:
    """Seconds from the start of a process until it has imported these and pydantic."""
    code = f"import pydantic, {modules}, time; print(time.monotonic())"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout) - started


def command(job: Job) -> list[str]:
    """What does `job` in a process of its own."""
    return [sys.executable, "-m", "tests.bench.case", json.dumps(asdict(job))]


def _started(job: Job) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(job),
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        out, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise SampleFailed(f"not done within {LONGEST:g} s") from None
    if process.returncode:
        told = errors.strip().splitlines() or ["it said nothing"]
        raise SampleFailed(f"ended with {process.returncode}: {told[-1]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _books(work: Work, place: Place, count: int, fields: dict[str, Any]) -> str:
    """What is wrong with the books; nothing if they balance."""
    if work.kind == "publish":
        if place.broker == "memory":  # it is gone with the process
            return ""
        expected, what = fields["confirmed"], "confirmed"
        look = lambda: _stored(place)  # noqa: E731
    else:
        handled = fields["handled"]
        if handled < count and work.kind != "memory":
            return f"handled {handled:,} of {count:,}"
        expected, what = count - handled, "not handled"
        look = lambda: fields["left"] if "left" in fields else _left(place)  # noqa: E731
    found = _eventually(look, expected)
    fields["left"] = found
    return "" if found == expected else f"{expected:,} {what}, and {found} in the queue"


def _eventually(look: Callable[[], int | None], expected: int) -> int | None:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found == expected or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _stored(place: Place) -> int | None:
    if place.broker == "kafka":
        from tests.bench.contenders import plain_kafka

        return plain_kafka.stored(place)
    return _left(place)


def _left(place: Place) -> int | None:
    match place.broker:
        case "rabbitmq":
            from tests.bench.contenders import plain_rabbitmq

            return plain_rabbitmq.left(place)
        case "kafka":
            from tests.bench.contenders import plain_kafka

            return plain_kafka.left(place)
    import asyncio

    from tests.bench.contenders import mqkit_async

    return asyncio.run(mqkit_async.left(place))


def clear(place: Place) -> None:
    match place.broker:
        case "rabbitmq":
            from tests.bench.contenders import plain_rabbitmq

            plain_rabbitmq.remove(place)
        case "kafka":
            from tests.bench.contenders import plain_kafka

            plain_kafka.remove(place)
        case "sqlite":
            path = Path(place.url.removeprefix("sqlite:///"))
            for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
                name.unlink(missing_ok=True)
