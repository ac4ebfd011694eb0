"""mqkit's App, on every broker: what is in flight are threads that publish, handlers are plain functions."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice

from mqkit import App, Retry
from mqkit.bench.load import WARM_UP, Published
from mqkit.bench.meter import between, reading
from mqkit.bench.orders import Order
from tests.bench.contender import PlainHandle
from tests.bench.contenders import mqkit_async
from tests.bench.contenders.mqkit_async import AT_ONCE, topic
from tests.bench.place import Place
from tests.bench.works import Work

fill = mqkit_async.fill
left = mqkit_async.left


class Publisher:
    def __init__(self, app: App, place: Place) -> None:
        self._app, self._topic = app, topic(place)

    def publish(self, order: Order) -> None:
        self._app.publish(self._topic, order)

    def publish_batch(self, orders: Sequence[Order]) -> None:
        self._app.publish_many(self._topic, orders)


@contextmanager
def publishing(place: Place, work: Work) -> Iterator[Publisher]:
    with App(place.url, service="bench") as app:
        publisher = Publisher(app, place)
        publisher.publish_batch([])  # declares the topic
        yield publisher


def keep_in_flight(place: Place, work: Work, orders: Sequence[Order], seconds: float) -> Published:
    """A thread for each message in flight."""

    def lane(number: int, until: float) -> int:
        done = 0
        for order in islice(cycle(orders), number, None):
            if time.perf_counter() >= until:
                break
            publisher.publish(order)
            done += 1
        return done

    with publishing(place, work) as publisher, ThreadPoolExecutor(work.window) as threads:

        def lanes(seconds: float) -> int:
            until = time.perf_counter() + seconds
            return sum(threads.map(lane, range(work.window), [until] * work.window))

        warm = lanes(min(WARM_UP, seconds / 2))
        first = reading()
        measured = lanes(seconds)
        return Published(warm + measured, measured, between(first, reading()))


def consuming(place: Place, work: Work, handle: PlainHandle, done: threading.Event) -> None:
    app = App(place.url, service="bench")

    @app.subscribe(
        topic(place),
        group=place.group,
        retry=Retry(attempts=5, wait_initial=0.5),
        ordering="key" if work.ordered else "none",
        concurrency=work.concurrency or AT_ONCE,
    )
    def consume(order: Order) -> None:
        handle(order)

    with app.working():
        done.wait()
