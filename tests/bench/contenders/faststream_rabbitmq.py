"""FastStream on RabbitMQ: persistent, confirmed, mandatory; one channel whose prefetch is the concurrency."""

import asyncio
import logging
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from faststream import AckPolicy
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work


def _queue(place: Place) -> RabbitQueue:
    return RabbitQueue(place.queue, queue_type=QueueType.QUORUM, durable=True)


def _broker(place: Place, prefetch: int = plain_rabbitmq.PREFETCH) -> RabbitBroker:
    channel = Channel(prefetch_count=prefetch, publisher_confirms=True, on_return_raises=True)
    return RabbitBroker(place.amqp, default_channel=channel, logger=None, log_level=logging.CRITICAL)


class Publisher:
    def __init__(self, broker: RabbitBroker, place: Place) -> None:
        self._broker, self._queue = broker, place.queue

    async def publish(self, order: Order) -> None:
        await self._broker.publish(order, self._queue, persist=True, mandatory=True)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        await asyncio.gather(*map(self.publish, orders))


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    async with _broker(place) as broker:
        await broker.declare_queue(_queue(place))
        yield Publisher(broker, place)


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    broker = _broker(place, work.concurrency or plain_rabbitmq.PREFETCH)
    broker.subscriber(_queue(place), ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    async with broker:
        await broker.start()
        await done.wait()


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_rabbitmq.fill(place, orders)
