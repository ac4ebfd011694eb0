"""RabbitMQ as a plain client sees it: the queue that contenders share, a backlog in it, and what is left of that.

Not a contender: it makes what is measured, and checks the books.
"""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker

from mqkit.bench.orders import Order
from mqkit.topology import STEPS, dead_name, retry_name
from tests.bench.place import Place

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
PREFETCH = 250
"""The same for everybody: mqkit's default."""
PEERS = (".DQ", ".XQ", ".dead")
"""What dramatiq and taskiq call the queues beside theirs."""


def declare(place: Place) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        connection.channel().queue_declare(place.queue, durable=True, arguments=QUORUM)


def fill(place: Place, orders: Iterable[Order]) -> None:
    """Without confirmations, for speed: the books are checked afterwards."""
    declare(place)
    persistent = pika.BasicProperties(delivery_mode=2, content_type="application/json")
    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        channel = connection.channel()
        for order in orders:
            channel.basic_publish("", place.queue, order.model_dump_json().encode(), persistent)


def left(place: Place) -> int | None:
    """Messages in the queue; None if there is no queue."""
    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        try:
            found = connection.channel().queue_declare(place.queue, passive=True)
        except ChannelClosedByBroker:
            return None
        return int(found.method.message_count)


def remove(place: Place) -> None:
    """What a sample left: the queue, and what contenders declare beside it."""
    with closing(pika.BlockingConnection(pika.URLParameters(place.amqp))) as connection:
        channel = connection.channel()
        retries = (retry_name(place.topic, place.group, step) for step in STEPS)
        for queue in (place.queue, dead_name(place.topic, place.group), *retries, *(place.queue + x for x in PEERS)):
            channel.queue_delete(queue)
        channel.exchange_delete(place.topic)
