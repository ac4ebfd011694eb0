"""A service under test, driven from plain code: an app of either colour, and a record of what happened in it.

The tests see blocking calls and plain functions only; `colours.py` puts every colour of app behind them.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from mqkit.backend import Counts
from mqkit.dead import AsyncDeadLetters, DeadLetter, DeadLetters
from mqkit.message import Message
from mqkit.pull import AsyncConsumer, Consumer, Pulled
from mqkit.testing.colours import DRIVERS, LONGEST_CALL, Driver, Script, plain_handler
from mqkit.testing.record import Record
from mqkit.testing.waiting import PATIENCE, eventually
from mqkit.topic import Topic


def accept(_: Message[Any]) -> None:
    """The script of a handler that is content."""


class Gate:
    """Holds scripts back until it is opened."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def open(self) -> None:
        """Let all through, now and later."""
        self._event.set()

    def pass_through(self) -> None:
        """Wait until it is open. Raises TimeoutError."""
        if not self._event.wait(LONGEST_CALL):
            raise TimeoutError("nobody opened the gate")


class Service:
    """An app that works beside the test, and a record of what happened in it.

    Args:
        url: of the broker.
        colour: App or AsyncApp.
        options: for the app.
    """

    def __init__(self, url: str, colour: str = "AsyncApp", **options: Any) -> None:
        self.record = Record()
        defaults = {"service": "conformance", "version": "1", "grace": 5.0, "publish_timeout": 30.0}
        self._driver = DRIVERS[colour](url, **(defaults | options), listeners=[self.record.tell])
        self.app = self._driver.app
        self.overdue = self._driver.overdue
        self._call = self._driver.call
        self._gates: list[Gate] = []
        self._open = False
        self._working: Any = None
        self._stopping: Future[None] | None = None
        self._threads = ThreadPoolExecutor(1, "mqkit stop")

    # ---- writing

    def subscribe(
        self, topic: Topic[Any], group: str, script: Script = accept, *, plain: bool = False, **options: Any
    ) -> None:
        """Let `script` handle the topic's messages for `group`; options as in `app.subscribe`.

        Args:
            plain: as a plain function, whatever the app's colour is.
        """
        handler = plain_handler if plain else self._driver.handler
        self.app.subscribe(topic, group=group, **options)(handler(script, self.record))

    def gate(self) -> Gate:
        """A new one, opened at the latest when this service closes."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    # ---- running

    def open(self) -> "Service":
        """Connect and declare."""
        if not self._open:
            self._driver.enter(self.app)
            self._open = True
        return self

    def start(self) -> "Service":
        """Work; returns when every subscription has its session."""
        self.open()
        subscriptions = len(self.app.registrations)
        before = len(self.record.events("started"))
        self._working = self.app.working()
        self._driver.enter(self._working)
        self.wait_until(
            lambda: len(self.record.events("started")) >= before + subscriptions, "every subscription has a session"
        )
        return self

    def stop(self) -> None:
        """Stop working, as SIGTERM does; the connection stays. Returns when it has ended."""
        self.begin_stop()
        stopping, self._stopping = self._stopping, None
        if stopping is not None:
            stopping.result(LONGEST_CALL)

    def begin_stop(self) -> None:
        """Ask for `stop`, and do not wait for its end."""
        working, self._working = self._working, None
        if working is not None:
            self._stopping = self._threads.submit(self._driver.leave, working)

    def close(self) -> None:
        """Stop, and let go of everything. Idempotent."""
        for gate in self._gates:
            gate.open()
        try:
            self.stop()
            if self._open:
                self._open = False
                self._driver.leave(self.app)
        finally:
            self._threads.shutdown()
            self._driver.close()

    # ---- publishing

    def publish(self, topic: Topic[Any], payload: Any, **options: Any) -> str:
        """As app.publish."""
        found: str = self._call(self.app.publish, topic, payload, **options)
        return found

    def publish_many(self, topic: Topic[Any], payloads: Iterable[Any], **options: Any) -> list[str]:
        """As app.publish_many."""
        found: list[str] = self._call(self.app.publish_many, topic, payloads, **options)
        return found

    # ---- pulling

    def consumer(self, topic: Topic[Any], group: str, **options: Any) -> "Puller":
        """As app.consumer, of either colour."""
        return Puller(self._driver, self.app.consumer(topic, group=group, **options))

    # ---- looking

    def wait_until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """`eventually`, with this service's record in the failure."""
        return eventually(condition, what, timeout=timeout, shown=lambda: str(self.record))

    def inspect(self, topic: Topic[Any], group: str) -> Counts:
        """As app.inspect."""
        found: Counts = self._call(self.app.inspect, topic, group)
        return found

    def wait_for_counts(
        self, topic: Topic[Any], group: str, fits: Callable[[Counts], bool], what: str, timeout: float = PATIENCE
    ) -> Counts:
        """The counts of the group as soon as they fit."""
        seen: list[Counts] = []

        def look() -> Counts | None:
            seen.append(self.inspect(topic, group))
            return seen[-1] if fits(seen[-1]) else None

        return eventually(look, what, timeout=timeout, every=0.1, shown=lambda: f"{seen[-1]}; {self.record}")

    def wait_until_idle(self, topic: Topic[Any], group: str) -> None:
        """Until nothing of the group is ready, with a member or waiting: so nothing more can come.

        It must be seen twice, since what a broker counts may be a moment late.
        """
        for _ in range(2):
            self.wait_for_counts(topic, group, idle, f"nothing is left of {topic.name}.{group}")
            self.wait_until(lambda: not self.record.running, "no handler runs")

    def letters(self, topic: Topic[Any], group: str, **options: Any) -> Sequence[DeadLetter]:
        """The dead letters of a group."""
        found: Sequence[DeadLetter] = self._call(self._dead(topic, group).list, **options)
        return found

    def wait_for_letters(self, topic: Topic[Any], group: str, number: int) -> Sequence[DeadLetter]:
        """The dead letters of a group, as soon as there are so many."""
        self.wait_until(lambda: len(self.record.events("dead-letter")) >= number, f"{number} dead letters were made")
        found: list[Sequence[DeadLetter]] = []

        def look() -> bool:
            found[:] = [self.letters(topic, group, limit=10_000)]
            return len(found[0]) >= number

        eventually(look, f"{number} dead letters", every=0.1, shown=lambda: f"{found}; {self.record}")
        return found[0]

    def replay(self, topic: Topic[Any], group: str, *args: Any, **options: Any) -> Sequence[str]:
        """As DeadLetters.replay."""
        found: Sequence[str] = self._call(self._dead(topic, group).replay, *args, **options)
        return found

    def purge(self, topic: Topic[Any], group: str, *args: Any, **options: Any) -> Sequence[str]:
        """As DeadLetters.purge."""
        found: Sequence[str] = self._call(self._dead(topic, group).purge, *args, **options)
        return found

    def _dead(self, topic: Topic[Any], group: str) -> DeadLetters | AsyncDeadLetters:
        return self.app.dead_letters(topic, group)


class Puller:
    """A consumer of either colour, as a context."""

    def __init__(self, driver: Driver, consumer: Consumer[Any] | AsyncConsumer[Any]) -> None:
        self._driver = driver
        self._consumer = consumer

    def __enter__(self) -> Self:
        self._driver.enter(self._consumer)
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.leave(self._consumer)

    def fetch(self, limit: int, timeout: float) -> Sequence[Pulled[Any]]:
        """As the consumer's."""
        found: Sequence[Pulled[Any]] = self._driver.call(self._consumer.fetch, limit, timeout)
        return found

    def pull(self, number: int) -> list[Pulled[Any]]:
        """So many messages, as they come."""
        found: list[Pulled[Any]] = []

        def enough() -> bool:
            found.extend(self.fetch(number - len(found), 1.0))
            return len(found) >= number

        eventually(enough, f"{number} messages are pulled", shown=lambda: f"{[each.message for each in found]}")
        return found


def idle(counts: Counts) -> bool:
    """Whether nothing is left to do, as far as the broker can tell."""
    return not any((counts.ready, counts.in_flight, counts.waiting, counts.lag))
