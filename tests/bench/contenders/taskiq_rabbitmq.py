"""taskiq with taskiq-aio-pika: a task whose argument is an order; acknowledged when it was executed."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from taskiq import SimpleRetryMiddleware
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from mqkit.bench.orders import Order
from tests.bench.contender import Handle
from tests.bench.contenders import plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work

AT_ONCE = 100
"""What `taskiq worker` runs at once by default."""


def _broker(place: Place, prefetch: int = plain_rabbitmq.PREFETCH) -> Any:
    return AioPikaBroker(
        place.amqp,
        qos=prefetch,
        exchange=Exchange(name=place.topic),
        task_queues=[Queue(name=place.queue)],
        dead_letter_queue=Queue(name=f"{place.queue}.dead"),
    )


def _task(broker: Any, handle: Handle) -> Any:
    return broker.register_task(handle, task_name="bench", retry_on_error=True, max_retries=3)


async def _nothing(order: Order) -> None:
    """What a publisher knows of the task."""


class Publisher:
    def __init__(self, task: Any) -> None:
        self._task = task

    async def publish(self, order: Order) -> None:
        await self._task.kiq(order)

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        await asyncio.gather(*map(self.publish, orders))


@asynccontextmanager
async def publishing(place: Place, work: Work) -> AsyncIterator[Publisher]:
    broker = _broker(place)
    await broker.startup()
    try:
        yield Publisher(_task(broker, _nothing))
    finally:
        await broker.shutdown()


async def consuming(place: Place, work: Work, handle: Handle, done: Event) -> None:
    at_once = work.concurrency or AT_ONCE
    broker = _broker(place, at_once).with_middlewares(SimpleRetryMiddleware())
    broker.is_worker_process = True
    _task(broker, handle)
    with ThreadPoolExecutor(1) as executor:
        receiver = Receiver(
            broker,
            executor,
            max_async_tasks=at_once,
            max_prefetch=at_once,
            ack_type=AcknowledgeType.WHEN_EXECUTED,
            run_startup=True,
        )
        finish = asyncio.Event()
        listening = asyncio.create_task(receiver.listen(finish))
        await done.wait()
        finish.set()
        await listening
        await broker.shutdown()


async def fill(place: Place, orders: Sequence[Order]) -> None:
    async with publishing(place, None) as publisher:  # type: ignore[arg-type] # the work is of no interest
        for start in range(0, len(orders), 500):
            await publisher.publish_batch(orders[start : start + 500])
