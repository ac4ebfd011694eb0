"""mqkit's RabbitMQ backend on pika by itself: what App stands on, without the app."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from mqkit.backend import Settlement, Subscription
from mqkit.backends.rabbitmq.blocking import RabbitBackend, RabbitSender
from mqkit.bench.orders import Order
from mqkit.envelope import seal
from mqkit.message import Outgoing
from mqkit.producer import new_id
from mqkit.topology import TopicNeed, Topology
from tests.bench.contender import PlainHandle
from tests.bench.contenders import mqkit_async, plain_rabbitmq
from tests.bench.place import Place
from tests.bench.works import Work

TIMEOUT = 30.0

fill = mqkit_async.fill


class Publisher:
    def __init__(self, sender: RabbitSender, place: Place) -> None:
        self._sender, self._topic = sender, place.topic

    def publish(self, order: Order) -> None:
        self.publish_batch([order])

    def publish_batch(self, orders: Sequence[Order]) -> None:
        self._sender.send([self._outgoing(order) for order in orders], TIMEOUT)

    def _outgoing(self, order: Order) -> Outgoing:
        body = order.model_dump_json().encode()
        wire = seal(
            body,
            prefix="cloudEvents_",
            id=new_id(),
            source="bench",
            type="Order",
            now=time.time(),
            content_type="application/json",
            key=order.customer,
        )
        return Outgoing(wire, self._topic)


@contextmanager
def publishing(place: Place, work: Work) -> Iterator[Publisher]:
    with closing(RabbitBackend(place.url)) as backend:
        backend.declare(Topology((TopicNeed(place.topic, frozenset({place.group})),)))
        yield Publisher(backend.open_sender(), place)


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    prefetch = plain_rabbitmq.PREFETCH
    with closing(RabbitBackend(place.url)) as backend:
        wanted = Subscription(topic=place.topic, group=place.group, prefetch=prefetch)
        with closing(backend.open_receiver(wanted, lambda *_: None)) as receiver:
            while not done.is_set():
                found = receiver.receive(prefetch, 0.1)
                for delivery in found:
                    handle(Order.model_validate_json(delivery.message.body))
                receiver.settle([(delivery.token, Settlement.DONE) for delivery in found])
