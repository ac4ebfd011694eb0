"""FastStream on Kafka through confluent-kafka: idempotent, all replicas; acknowledged (committed) after the handler."""

import logging
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from faststream import AckPolicy
from faststream.confluent import KafkaBroker

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_kafka
from tests.bench.place import Place
from tests.bench.works import Work


def _broker(place: Place) -> KafkaBroker:
    return KafkaBroker(
        place.servers,
        acks="all",
        enable_idempotence=True,
        allow_auto_create_topics=False,
        logger=None,
        log_level=logging.CRITICAL,
    )


class Publisher:
    def __init__(self, broker: KafkaBroker, place: Place) -> None:
        self._broker, self._topic = broker, place.topic

    async def publish(self, order: Order) -> None:
        await self._broker.publish(order, self._topic, key=order.customer)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        await self._broker.publish_batch(*orders, topic=self._topic)


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    plain_kafka.declare(place)
    async with _broker(place) as broker:
        yield Publisher(broker, place)


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    broker = _broker(place)
    several = work.concurrency > 1
    broker.subscriber(
        place.topic,
        group_id=place.queue,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK_FIRST if several else AckPolicy.NACK_ON_ERROR,
        max_workers=max(1, work.concurrency),
    )(handle)
    async with broker:
        await broker.start()
        await done.wait()


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_kafka.fill(place, orders)
