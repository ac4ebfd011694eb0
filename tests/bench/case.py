"""One sample, in a process of its own: `python -m tests.bench.case '{json}'` prints one line of JSON.

The roles: `measure` does the work; `fill` publishes the backlog before it; `pace` publishes at 100 messages a second
while a consumer is measured. Who starts them and checks the books: sample.py.
"""

import asyncio
import csv
import gc
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib import import_module
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

from mqkit.bench.load import Published, at_pace, in_batches, keep_in_flight
from mqkit.bench.meter import calibrate, peak_memory
from mqkit.bench.orders import Order, numbered
from mqkit.bench.tally import Handled, Tally, percentile
from tests.bench.contender import AsyncPublisher, FailsOnce, PlainPublisher
from tests.bench.place import Place
from tests.bench.works import BY_NAME, Work

PURCHASES = Path(__file__).parents[2] / "examples" / "data" / "purchases.csv"
BATCH = 1_000
PACE = 100.0
IDLE = 45.0
"""Seconds after which a consumer that gets no more is given up."""
LONGEST_BACKLOG = 25.0
"""Seconds that a slow contender works at the 200,000 messages."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does."""

    role: str
    module: str
    work: str
    place: dict[str, Any]
    count: int
    seconds: float


def purchases() -> Iterator[Order]:
    """Real orders, from examples/data."""
    with PURCHASES.open(newline="") as file:
        for row in csv.DictReader(file):
            yield Order(
                number=int(row["purchase"]),
                customer=row["customer"],
                cds=int(row["cds"]),
                dollars=Decimal(row["dollars"]),
            )


def main(argument: str) -> None:
    job = Job(**json.loads(argument))
    logging.disable(logging.ERROR)  # of the retry storm each contender would log thousands
    before = calibrate()
    module = import_module(f"tests.bench.contenders.{job.module}")
    result = _act(job, module, BY_NAME[job.work], Place(**job.place))
    print(json.dumps({"calibration": [asdict(before), asdict(calibrate())], **result}))


def _act(job: Job, module: ModuleType, work: Work, place: Place) -> dict[str, Any]:
    match job.role:
        case "fill":
            _run(module.fill, place, list(numbered(purchases(), job.count, work.size)))
            return {}
        case "pace":
            return {"published": _pace(module, work, place, job.count)}
    if work.kind == "publish":
        return _told(_publish(module, work, place, job.seconds))
    if place.broker == "memory":
        return _consume_here(module, work, place, job)
    return _consume(module, work, place, job)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a contender, whichever colour it has."""
    found = function(*arguments)
    return asyncio.run(found) if inspect.iscoroutine(found) else found


# ---- publishing


def _publish(module: ModuleType, work: Work, place: Place, seconds: float) -> Published:
    orders = list(numbered(purchases(), BATCH, work.size))
    gc.collect()
    if work.window and hasattr(module, "keep_in_flight"):
        measured: Published = module.keep_in_flight(place, work, orders, seconds)
        return measured

    async def run() -> Published:
        async with _publishing(module, place, work) as publisher:
            if work.window:
                return await keep_in_flight(publisher.publish, cycle(orders), work.window, seconds)
            return await in_batches(publisher.publish_batch, cycle(orders), BATCH, seconds)

    return asyncio.run(run())


@asynccontextmanager
async def _publishing(module: ModuleType, place: Place, work: Work) -> AsyncIterator[AsyncPublisher]:
    """A contender's publisher. A plain one blocks the loop: nothing else runs there, and awaiting it costs nothing."""
    opened = module.publishing(place, work)
    if hasattr(opened, "__aenter__"):
        async with opened as publisher:
            yield publisher
        return
    with opened as plain:
        yield Awaitable(plain)


class Awaitable:
    """A plain publisher, as an async one."""

    def __init__(self, publisher: PlainPublisher) -> None:
        self._publisher = publisher

    async def publish(self, order: Order) -> None:
        self._publisher.publish(order)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        self._publisher.publish_batch(orders)


def _told(published: Published) -> dict[str, Any]:
    return {
        "confirmed": published.confirmed,
        "count": published.measured,
        "seconds": published.stretch.seconds,
        "cpu": published.stretch.cpu,
        "steal": published.stretch.steal,
    }


def _pace(module: ModuleType, work: Work, place: Place, count: int) -> int:
    orders = numbered(purchases(), count, work.size)

    async def run() -> int:
        async with _publishing(module, place, work) as publisher:
            return await at_pace(publisher.publish, orders, PACE)

    return asyncio.run(run())


# ---- consuming


def _consume(module: ModuleType, work: Work, place: Place, job: Job) -> dict[str, Any]:
    consuming = module.consuming
    began = time.monotonic()
    plain = not inspect.iscoroutinefunction(consuming)
    seconds = LONGEST_BACKLOG if work.kind == "memory" else None
    warm = 0 if job.count < 2 else min(job.count // 10, 500)
    if plain:
        ended = threading.Event()
        tally = Tally(job.count, warm=warm, ended=ended.set, seconds=seconds)
        handle: Callable[[Order], Any] = _plain_handler(work, tally)
        guard = threading.Timer(IDLE, ended.set)
        guard.daemon = True
        guard.start()
        consuming(place, work, handle, ended)
    else:
        tally = asyncio.run(_consume_async(module, work, place, job.count, warm, seconds))
    return _handled(tally, began)


async def _consume_async(
    module: ModuleType, work: Work, place: Place, count: int, warm: int, seconds: float | None
) -> Tally:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        loop.call_soon_threadsafe(ended.set)

    tally = Tally(count, warm=warm, ended=end, seconds=seconds)
    guard = loop.call_later(IDLE, ended.set)
    await module.consuming(place, work, _handler(work, tally), ended)
    guard.cancel()
    return tally


def _consume_here(module: ModuleType, work: Work, place: Place, job: Job) -> dict[str, Any]:
    """Where the broker lives in this process: the backlog is made here too, and the books are told by mqkit."""

    async def run() -> tuple[Tally, int]:
        if work.kind != "latency":
            await module.fill(place, list(numbered(purchases(), job.count, work.size)))
        warm = min(job.count // 10, 500)
        consumed = asyncio.create_task(_consume_async(module, work, place, job.count, warm, None))
        if work.kind == "latency":
            await asyncio.sleep(0.1)
            async with _publishing(module, place, work) as publisher:
                await at_pace(publisher.publish, numbered(purchases(), job.count, work.size), PACE)
        return await consumed, await module.left(place)

    began = time.monotonic()
    tally, left = asyncio.run(run())
    return {**_handled(tally, began), "left": left}


def _handler(work: Work, tally: Tally) -> Callable[[Order], Any]:
    seconds, fails = work.milliseconds / 1000, _fails_once(work)

    async def handle(order: Order) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        if fails(order.number):
            raise FailsOnce
        tally.note(order.number, order.placed)

    return handle


def _plain_handler(work: Work, tally: Tally) -> Callable[[Order], None]:
    seconds, fails = work.milliseconds / 1000, _fails_once(work)

    def handle(order: Order) -> None:
        if seconds:
            time.sleep(seconds)
        if fails(order.number):
            raise FailsOnce
        tally.note(order.number, order.placed)

    return handle


def _fails_once(work: Work) -> Callable[[int], bool]:
    """Whether this call shall fail: in a retry storm, of three in ten orders the first."""
    if work.kind != "retry":
        return lambda _: False
    failed: set[int] = set()

    def fails(number: int) -> bool:
        if number % 10 >= 3 or number in failed:
            return False
        failed.add(number)
        return True

    return fails


def _handled(tally: Tally, began: float) -> dict[str, Any]:
    found: Handled = tally.result()
    fields = asdict(found) | {
        "count": found.measured,
        "seconds": found.stretch.seconds,
        "cpu": found.stretch.cpu,
        "steal": found.stretch.steal,
        "startup": None if tally.first_at is None else tally.first_at - began,
        "peak_memory": peak_memory(),
        "p50": percentile(found.latencies, 0.50),
        "p99": percentile(found.latencies, 0.99),
    }
    for name in ("stretch", "latencies", "measured"):
        del fields[name]
    return fields


if __name__ == "__main__":
    main(sys.argv[1])
