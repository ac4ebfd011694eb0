"""kombu on RabbitMQ (py-amqp): confirmed publishing, an acknowledgement for each message."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue

from mqkit.bench.orders import Order
from tests.bench.contender import FailsOnce, PlainHandle
from tests.bench.contenders import plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work


def _connection(place: Place) -> Any:
    return Connection(place.amqp, transport_options={"confirm_publish": True})


class Publisher:
    def __init__(self, producer: Any, place: Place) -> None:
        self._producer, self._queue = producer, place.queue

    def publish(self, order: Order) -> None:
        self._producer.publish(
            order.model_dump_json().encode(),
            routing_key=self._queue,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            mandatory=True,
        )

    def publish_batch(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.publish(order)


@contextmanager
def publishing(place: Place, work: Work) -> Iterator[Publisher]:
    plain_rabbitmq.declare(place)
    with _connection(place) as connection:
        yield Publisher(Producer(connection), place)


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    def on_message(message: Any) -> None:
        try:
            handle(Order.model_validate_json(message.body))
        except FailsOnce:
            message.requeue()
            return
        message.ack()

    queue = Queue(place.queue, Exchange(""), durable=True, no_declare=True)
    with _connection(place) as connection:
        prefetch = work.concurrency or plain_rabbitmq.PREFETCH
        with Consumer(connection, [queue], on_message=on_message, prefetch_count=prefetch, accept=["json"]):
            while not done.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except socket.timeout:  # noqa: UP041 - what kombu says that it raises
                    continue


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_rabbitmq.fill(place, orders)
