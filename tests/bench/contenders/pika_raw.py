"""pika by itself, its BlockingConnection: confirmed and mandatory publishing, an acknowledgement for each message."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel

from mqkit.bench.orders import Order
from tests.bench.contender import FailsOnce, PlainHandle
from tests.bench.contenders import plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work

PERSISTENT = pika.BasicProperties(delivery_mode=2, content_type="application/json")


class Publisher:
    def __init__(self, channel: BlockingChannel, place: Place) -> None:
        self._channel, self._queue = channel, place.queue

    def publish(self, order: Order) -> None:
        self._channel.basic_publish("", self._queue, order.model_dump_json().encode(), PERSISTENT, mandatory=True)

    def publish_batch(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.publish(order)


@contextmanager
def publishing(place: Place, work: Work) -> Iterator[Publisher]:
    plain_rabbitmq.declare(place)
    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield Publisher(channel, place)


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    def on_message(channel: BlockingChannel, method: pika.spec.Basic.Deliver, _: object, body: bytes) -> None:
        try:
            handle(Order.model_validate_json(body))
        except FailsOnce:
            channel.basic_nack(method.delivery_tag)
            return
        channel.basic_ack(method.delivery_tag)

    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=work.concurrency or plain_rabbitmq.PREFETCH)
        channel.basic_consume(place.queue, on_message)
        while not done.is_set():
            connection.process_data_events(0.1)


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_rabbitmq.fill(place, orders)
