"""mqkit's AsyncApp, on every broker."""

from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mqkit import AsyncApp, Retry, Topic
from mqkit.backends.kafka.options import KafkaTopic
from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.place import Place
from tests.bench.works import Work

AT_ONCE = 10
"""mqkit's default."""


def topic(place: Place) -> Topic[Order]:
    options = [KafkaTopic(partitions=1)] if place.broker == "kafka" else []
    return Topic(place.topic, Order, key="customer", groups=[place.group], options=options)


class Publisher:
    def __init__(self, app: AsyncApp, topic: Topic[Order]) -> None:
        self._app, self._topic = app, topic

    async def publish(self, order: Order) -> None:
        await self._app.publish(self._topic, order)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        await self._app.publish_many(self._topic, orders)


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    async with AsyncApp(place.url, service="bench") as app:
        publisher = Publisher(app, topic(place))
        await publisher.publish_batch([])  # declares the topic
        yield publisher


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    app = AsyncApp(place.url, service="bench")
    app.subscribe(
        topic(place),
        group=place.group,
        retry=Retry(attempts=5, wait_initial=0.5),
        ordering="key" if work.ordered else "none",
        concurrency=work.concurrency or AT_ONCE,
    )(handle)
    async with app.working():
        await done.wait()


async def fill(place: Place, orders: Sequence[Order]) -> None:
    async with AsyncApp(place.url, service="bench") as app:
        for start in range(0, len(orders), 1_000):
            await app.publish_many(topic(place), orders[start : start + 1_000])


async def left(place: Place) -> int | None:
    """What the group has still to handle: for brokers that no raw client can ask."""
    async with AsyncApp(place.url, service="bench", declare=False) as app:
        counts = await app.inspect(place.topic, place.group)
    return (counts.ready or 0) + (counts.in_flight or 0) + (counts.waiting or 0) + (counts.dead or 0)
