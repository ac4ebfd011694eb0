"""The cases that `mqkit bench` runs on a user's broker, one after the other, in this process: mqkit alone.

The books are checked by asking the broker: what was confirmed waits in the group; every message that was confirmed is
handled; at the end nothing is left.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from mqkit.async_app import AsyncApp
from mqkit.backend import Counts
from mqkit.bench.load import Published, at_pace, in_batches, keep_in_flight
from mqkit.bench.orders import Order, made_up, sized
from mqkit.bench.tally import Tally, percentile
from mqkit.errors import ConnectionLost
from mqkit.message import Message
from mqkit.topic import Topic

GROUP = "bench"
WINDOW = 100
BATCH = 1_000
PACE = 100.0
PATIENCE = 10.0
"""Seconds in which the broker's own count must come right."""
SILENCE = 30.0
"""Seconds without a message after which the rest is given up."""
CASES = ("publish-1", "publish-100", "publish-batch", "consume", "latency")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case came to."""

    case: str
    title: str
    messages: int
    seconds: float
    cpu: float
    """Seconds of this process."""
    p50: float | None = None
    """Seconds from publishing to the handler."""
    p99: float | None = None
    problem: str = ""
    """What is wrong with the books."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def cpu_each(self) -> float:
        """Seconds of this process for each message."""
        return self.cpu / self.messages if self.messages else 0.0


def new_topic(size: int) -> Topic[Order]:
    """A topic that nobody else has, for orders of `size` bytes."""
    return Topic(f"mqkit-bench.{size}.{secrets.token_hex(4)}", Order, key="customer", groups=[GROUP])


async def trials(app: AsyncApp, topic: Topic[Order], size: int, seconds: float) -> AsyncGenerator[Outcome]:
    """Run every case of CASES with `app`, which is open, on `topic`; each takes about `seconds`."""
    known = [sized(order, size) for order in islice(made_up(), BATCH)]

    async def publish(order: Order) -> None:
        await app.publish(topic, order)

    async def publish_batch(orders: Sequence[Order]) -> None:
        await app.publish_many(topic, orders)

    await publish_batch([])  # declares the topic
    stored = 0
    for case, title, window in (
        ("publish-1", "publish, one by one", 1),
        ("publish-100", f"publish, {WINDOW} in flight", WINDOW),
        ("publish-batch", f"publish in batches of {BATCH:,}", 0),
    ):
        if window:
            published = await keep_in_flight(publish, cycle(known), window, seconds)
        else:
            published = await in_batches(publish_batch, cycle(known), BATCH, seconds)
        stored += published.confirmed
        yield _published(case, title, published, await _books(app, topic, stored))
    yield await _consume(app, topic, stored)
    yield await _latency(app, topic, known, seconds)


def _published(case: str, title: str, published: Published, problem: str) -> Outcome:
    return Outcome(
        case, title, published.measured, published.stretch.seconds, published.stretch.cpu, problem=problem
    )  # fmt: skip


async def _consume(app: AsyncApp, topic: Topic[Order], stored: int) -> Outcome:
    """Work the backlog that publishing left. Orders repeat there, so messages are told apart by their ids."""
    done = asyncio.Event()
    tally = Tally(stored, warm=min(500, stored // 10), ended=done.set)
    seen: dict[str, int] = {}

    async def handle(_: Order, message: Message[Order]) -> None:
        tally.note(seen.setdefault(message.id, len(seen)))

    await _work(app, topic, handle, done, lambda: len(seen))
    found = tally.result()
    problem = await _books(app, topic, 0)
    if found.handled < stored:
        problem = f"{stored:,} messages were published, and {found.handled:,} handled"
    return Outcome(
        "consume", "consume, handler only validates", found.measured, found.stretch.seconds, found.stretch.cpu,
        problem=problem,
    )  # fmt: skip


async def _latency(app: AsyncApp, topic: Topic[Order], known: Sequence[Order], seconds: float) -> Outcome:
    number = max(100, int(PACE * seconds))
    done = asyncio.Event()
    tally = Tally(number, warm=10, ended=done.set)
    orders = (order.model_copy(update={"number": i}) for i, order in zip(range(number), cycle(known), strict=False))
    handled = 0

    async def handle(order: Order) -> None:
        nonlocal handled
        handled += 1
        tally.note(order.number, order.placed)

    async def publish(order: Order) -> None:
        await app.publish(topic, order)

    async def at_work() -> None:
        await _work(app, topic, handle, done, lambda: handled)

    working = asyncio.create_task(at_work())
    await at_pace(publish, orders, PACE)
    await working
    found = tally.result()
    problem = await _books(app, topic, 0)
    if found.handled < number:
        problem = f"{number:,} messages were published, and {found.handled:,} handled"
    return Outcome(
        "latency", f"publish to handler, at {PACE:g} messages a second", found.measured, found.stretch.seconds,
        found.stretch.cpu, percentile(found.latencies, 0.50), percentile(found.latencies, 0.99), problem,
    )  # fmt: skip


async def _work(
    app: AsyncApp, topic: Topic[Order], handle: Callable[..., object], done: asyncio.Event, handled: Callable[[], int]
) -> None:
    """Handle messages with an app of its own until `done`, or until none came for long."""
    worker = AsyncApp(app.settings.url, service="bench")
    worker.subscribe(topic, group=GROUP)(handle)
    async with worker.working():
        before, since = -1, time.monotonic()
        while not done.is_set() and time.monotonic() < since + SILENCE:
            if handled() != before:
                before, since = handled(), time.monotonic()
            try:
                await asyncio.wait_for(done.wait(), 0.5)
            except TimeoutError:
                continue


async def _books(app: AsyncApp, topic: Topic[Order], expected: int) -> str:
    """What is wrong with the broker's own count of what the group has still to handle; nothing if it is right."""
    deadline = time.monotonic() + PATIENCE
    while True:
        late = time.monotonic() > deadline
        try:
            found = _unfinished(await app.inspect(topic, GROUP))
        except ConnectionLost:  # a Kafka that never had a group takes a moment
            if late:
                raise
            await asyncio.sleep(0.1)
            continue
        if found in (expected, None):
            return ""
        if late:
            return f"{expected:,} messages should be left to handle, and the broker says {found:,}"
        await asyncio.sleep(0.1)


def _unfinished(counts: Counts) -> int | None:
    if counts.lag is not None:
        return counts.lag + (counts.waiting or 0) + (counts.dead or 0)
    known = [n for n in (counts.ready, counts.in_flight, counts.waiting, counts.dead) if n is not None]
    return sum(known) if known else None
