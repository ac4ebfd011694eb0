"""dramatiq on RabbitMQ: an actor in threads; its broker confirms publishing when asked to."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import Retries

from mqkit.bench.orders import Order
from tests.bench.contender import PlainHandle
from tests.bench.place import Place
from tests.bench.works import Work

THREADS = 8
"""What the `dramatiq` command gives each process by default."""
BACKOFF = 500
"""Milliseconds, as mqkit's retries here."""


def _actor(broker: Any, place: Place, function: Any) -> Any:
    return dramatiq.actor(function, broker=broker, actor_name="bench", queue_name=place.queue, throws=())


def _broker(place: Place, *, confirmed: bool = True) -> Any:
    middleware = [Retries(min_backoff=BACKOFF, max_backoff=BACKOFF)]
    return RabbitmqBroker(url=place.amqp, confirm_delivery=confirmed, middleware=middleware)


class Publisher:
    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def publish(self, order: Order) -> None:
        self._actor.send(order.model_dump(mode="json"))

    def publish_batch(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.publish(order)


@contextmanager
def publishing(place: Place, work: Work, *, confirmed: bool = True) -> Iterator[Publisher]:
    broker = _broker(place, confirmed=confirmed)
    try:
        yield Publisher(_actor(broker, place, lambda _: None))
    finally:
        broker.close()


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    broker = _broker(place)

    def act(fields: dict[str, object]) -> None:
        handle(Order.model_validate(fields))

    _actor(broker, place, act)
    worker = dramatiq.Worker(broker, worker_threads=work.concurrency or THREADS)
    worker.start()
    done.wait()
    worker.stop()
    broker.close()


def fill(place: Place, orders: Sequence[Order]) -> None:
    with publishing(place, None, confirmed=False) as publisher:  # type: ignore[arg-type] # the work is of no interest
        publisher.publish_batch(orders)
