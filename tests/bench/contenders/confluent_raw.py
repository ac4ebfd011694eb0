"""confluent-kafka by itself: idempotent, all replicas; offsets are stored after the handler, and committed behind it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import cycle

from confluent_kafka import Consumer, Producer

from mqkit.bench.load import WARM_UP, Published
from mqkit.bench.meter import between, reading
from mqkit.bench.orders import Order
from tests.bench.contender import PlainHandle
from tests.bench.contenders import plain_kafka
from tests.bench.place import Place
from tests.bench.works import Work

AT_MOST = 500
FOREVER = 30.0


class Publisher:
    def __init__(self, place: Place, window: int) -> None:
        self._topic, self._failed, self._flying = place.topic, 0, 0
        # a linger is a wait for others: alone there are none
        linger = 0 if window == 1 else 1
        self._producer = Producer(
            {"bootstrap.servers": place.servers, "acks": "all", "enable.idempotence": True, "linger.ms": linger}
        )

    def _produce(self, order: Order) -> None:
        self._flying += 1
        self._producer.produce(
            self._topic, order.model_dump_json().encode(), order.customer.encode(), on_delivery=self._delivered
        )

    def _delivered(self, error: object, _: object) -> None:
        self._flying -= 1
        assert error is None, error

    def publish(self, order: Order) -> None:
        self._produce(order)
        self._drain()

    def publish_batch(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self._produce(order)
        self._drain()

    def pipelined(self, orders: Iterator[Order], window: int, until: Callable[[], bool]) -> int:
        """Publish with `window` messages in flight; how many were confirmed."""
        done = 0
        while not until():
            while self._flying >= window:
                self._producer.poll(FOREVER)
            self._produce(next(orders))
            done += 1
        self._drain()
        return done

    def _drain(self) -> None:
        while self._flying:
            self._producer.poll(FOREVER)


@contextmanager
def publishing(place: Place, work: Work) -> Iterator[Publisher]:
    plain_kafka.declare(place)
    yield Publisher(place, work.window)


def keep_in_flight(place: Place, work: Work, orders: Sequence[Order], seconds: float) -> Published:
    """One thread: the driver itself keeps a window in flight."""
    endless = cycle(orders)

    def lap(seconds: float) -> int:
        until = time.perf_counter() + seconds
        return publisher.pipelined(endless, work.window, lambda: time.perf_counter() >= until)

    with publishing(place, work) as publisher:
        warm = lap(min(WARM_UP, seconds / 2))
        first = reading()
        measured = lap(seconds)
        return Published(warm + measured, measured, between(first, reading()))


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    settings = {
        "bootstrap.servers": place.servers,
        "group.id": place.queue,
        "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False,
    }
    with closing(Consumer(settings)) as consumer:
        consumer.subscribe([place.topic])
        while not done.is_set():
            first = consumer.poll(0.1)
            if first is None:
                continue
            for message in (first, *consumer.consume(AT_MOST, 0)):
                handle(Order.model_validate_json(message.value() or b""))
                consumer.store_offsets(message)


def fill(place: Place, orders: Sequence[Order]) -> None:
    plain_kafka.fill(place, orders)
