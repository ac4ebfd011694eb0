"""aio-pika by itself: a robust connection, confirmed and mandatory publishing, a callback that acknowledges."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work


class Publisher:
    def __init__(self, channel: AbstractChannel, place: Place) -> None:
        self._exchange, self._queue = channel.default_exchange, place.queue

    async def publish(self, order: Order) -> None:
        message = aio_pika.Message(
            order.model_dump_json().encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, self._queue, mandatory=True)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        await asyncio.gather(*map(self.publish, orders))


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    async with await aio_pika.connect_robust(place.amqp) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.declare_queue(place.queue, durable=True, arguments=plain_rabbitmq.QUORUM)
        yield Publisher(channel, place)


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    async def on_message(message: AbstractIncomingMessage) -> None:
        async with message.process(requeue=True):
            await handle(Order.model_validate_json(message.body))

    async with await aio_pika.connect_robust(place.amqp) as connection:
        channel = await connection.channel()
        await channel.set_qos(work.concurrency or plain_rabbitmq.PREFETCH)
        queue = await channel.declare_queue(place.queue, durable=True, arguments=plain_rabbitmq.QUORUM)
        tag = await queue.consume(on_message)
        await done.wait()
        await queue.cancel(tag)
        await asyncio.sleep(0.1)  # the last acknowledgements are on their way


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_rabbitmq.fill(place, orders)
