"""Publishing on purpose: so many in flight, in batches, or at a steady pace; measured after a moment of warming up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mqkit.bench.meter import Stretch, between, reading
from mqkit.bench.orders import Order

WARM_UP = 0.25
"""Seconds, or this share of the time that is measured, if that is less."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a time of publishing came to."""

    confirmed: int
    """All messages, those of the warm-up included: what must be in the queue."""
    measured: int
    stretch: Stretch


async def keep_in_flight(
    publish: Callable[[Order], Awaitable[object]], orders: Iterator[Order], window: int, seconds: float
) -> Published:
    """Publish for `seconds`, `window` messages at a time, each awaited by whoever published it."""

    async def lane(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await publish(next(orders))
            done += 1
        return done

    async def lanes(seconds: float) -> int:
        until = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(lane(until) for _ in range(window))))

    warm = await lanes(min(WARM_UP, seconds / 2))
    first = reading()
    measured = await lanes(seconds)
    return Published(warm + measured, measured, between(first, reading()))


async def in_batches(
    publish_batch: Callable[[Sequence[Order]], Awaitable[object]], orders: Iterator[Order], size: int, seconds: float
) -> Published:
    """Publish for `seconds` batches of `size`, one after the other."""

    async def batches(seconds: float) -> int:
        until, done = time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            await publish_batch(list(islice(orders, size)))
            done += size
        return done

    warm = await batches(min(WARM_UP, seconds / 2))
    first = reading()
    measured = await batches(seconds)
    return Published(warm + measured, measured, between(first, reading()))


async def at_pace(publish: Callable[[Order], Awaitable[object]], orders: Iterable[Order], rate: float) -> int:
    """Publish each of `orders` at its time, `rate` a second, with the time of publishing written into it."""
    started, number = time.monotonic(), 0
    tasks: list[asyncio.Future[object]] = []
    for number, order in enumerate(orders, 1):
        await asyncio.sleep(started + number / rate - time.monotonic())
        stamped = order.model_copy(update={"placed": time.monotonic()})
        tasks.append(asyncio.ensure_future(publish(stamped)))
    await asyncio.gather(*tasks)
    return number
