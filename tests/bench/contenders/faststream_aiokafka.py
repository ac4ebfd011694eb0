"""FastStream on Kafka through aiokafka: idempotent, all replicas; acknowledged (committed) after the handler."""

import logging
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_kafka
from tests.bench.place import Place
from tests.bench.works import Work

BATCH_BYTES = 900_000
"""A batch is one record batch here, which must fit into the broker's limit of a megabyte."""


def _broker(place: Place) -> KafkaBroker:
    return KafkaBroker(
        place.servers,
        acks="all",
        enable_idempotence=True,
        allow_auto_create_topics=False,
        max_batch_size=BATCH_BYTES,
        logger=None,
        log_level=logging.CRITICAL,
    )


class Publisher:
    def __init__(self, broker: KafkaBroker, place: Place) -> None:
        self._broker, self._topic = broker, place.topic

    async def publish(self, order: Order) -> None:
        await self._broker.publish(order, self._topic, key=order.customer.encode())

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        at_once = min(len(orders), BATCH_BYTES // (len(orders[0].model_dump_json()) + 200))
        for start in range(0, len(orders), at_once):
            await self._broker.publish_batch(*orders[start : start + at_once], topic=self._topic)


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
