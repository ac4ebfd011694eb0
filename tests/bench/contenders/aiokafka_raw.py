"""aiokafka by itself: idempotent, all replicas; what was fetched is handled, then committed, as one batch."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_kafka
from tests.bench.place import Place
from tests.bench.works import Work

AT_MOST = 500


class Publisher:
    def __init__(self, producer: AIOKafkaProducer, place: Place) -> None:
        self._producer, self._topic = producer, place.topic

    async def publish(self, order: Order) -> None:
        await self._producer.send_and_wait(self._topic, order.model_dump_json().encode(), order.customer.encode())

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        sent = [
            await self._producer.send(self._topic, order.model_dump_json().encode(), order.customer.encode())
            for order in orders
        ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    plain_kafka.declare(place)
    async with AIOKafkaProducer(bootstrap_servers=place.servers, acks="all", enable_idempotence=True) as producer:
        yield Publisher(producer, place)


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    consumer = AIOKafkaConsumer(
        place.topic,
        bootstrap_servers=place.servers,
        group_id=place.queue,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        while not done.is_set():
            fetched = await consumer.getmany(timeout_ms=100, max_records=work.concurrency or AT_MOST)
            orders = [Order.model_validate_json(record.value) for batch in fetched.values() for record in batch]
            if work.concurrency > 1:
                await asyncio.gather(*map(handle, orders))
            else:
                for order in orders:
                    await handle(order)
            if orders:
                await consumer.commit()


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_kafka.fill(place, orders)
