"""A service under test, driven from plain code: an app on an event loop of its own thread.

The tests see blocking calls and plain functions only, so that every colour of app can be put behind them.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from mqkit.app import AsyncApp
from mqkit.backend import Counts
from mqkit.dead import DeadLetter, DeadLetters
from mqkit.message import Message
from mqkit.testing.record import Record
from mqkit.testing.waiting import PATIENCE, eventually
from mqkit.topic import Topic

Script = Callable[[Message[Any]], Any]
"""What a handler shall do: returns or raises what the handler shall. May block."""
LONGEST_CALL: Final = 90.0
"""Seconds after which a call into the app has failed."""


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
    """An app in a thread of its own, and a record of what happened in it.

    Args:
        url: of the broker.
        options: for the app.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.record = Record()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mqkit service", daemon=True)
        self._scripts = ThreadPoolExecutor(128, "mqkit script")
        self._gates: list[Gate] = []
        self._open = False
        self._working: Future[None] | None = None
        self._stopping: asyncio.Event | None = None
        self._thread.start()
        self.app = AsyncApp(
            url,
            **{"service": "conformance", "version": "1", "grace": 5.0, "publish_timeout": 30.0, **options},
            listeners=[self.record.tell],
        )

    def _call(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        async def call() -> Any:
            return await function(*args, **options)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(LONGEST_CALL)

    # ---- writing

    def subscribe(self, topic: Topic[Any], group: str, script: Script = accept, **options: Any) -> None:
        """Let `script` handle the topic's messages for `group`; options as in `app.subscribe`."""

        async def handle(_: Any, message: Message[Any]) -> Any:
            call = self.record.begin(message)
            try:
                result = await self._loop.run_in_executor(self._scripts, script, message)
            except asyncio.CancelledError:
                self.record.end(call, "cancelled")
                raise
            except Exception as error:
                self.record.end(call, type(error).__name__)
                raise
            self.record.end(call, "returned")
            return result

        self.app.subscribe(topic, group=group, **options)(handle)

    def gate(self) -> Gate:
        """A new one, opened at the latest when this service closes."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    # ---- running

    def open(self) -> "Service":
        """Connect and declare."""
        if not self._open:
            self._call(self.app.__aenter__)
            self._open = True
        return self

    def start(self) -> "Service":
        """Work; returns when every subscription has its session."""
        self.open()
        subscriptions = len(self.app.registrations)
        before = len(self.record.events("started"))
        ready: Future[None] = Future()
        self._working = asyncio.run_coroutine_threadsafe(self._work(ready), self._loop)
        ready.result(LONGEST_CALL)
        self.wait_until(
            lambda: len(self.record.events("started")) >= before + subscriptions, "every subscription has a session"
        )
        return self

    async def _work(self, ready: "Future[None]") -> None:
        self._stopping = asyncio.Event()
        async with self.app.working():
            ready.set_result(None)
            await self._stopping.wait()

    def stop(self) -> None:
        """Stop working, as SIGTERM does; the connection stays. Returns when it has ended."""
        self.begin_stop()
        working, self._working = self._working, None
        if working is not None:
            working.result(LONGEST_CALL)

    def begin_stop(self) -> None:
        """Ask for `stop`, and do not wait for its end."""
        if self._working is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def close(self) -> None:
        """Stop, and let go of everything. Idempotent."""
        if self._loop.is_closed():
            return
        for gate in self._gates:
            gate.open()
        try:
            self.stop()
            if self._open:
                self._open = False
                self._call(self.app.__aexit__, None, None, None)
        finally:
            self._scripts.shutdown(wait=True)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LONGEST_CALL)
            self._loop.close()

    # ---- publishing

    def publish(self, topic: Topic[Any], payload: Any, **options: Any) -> str:
        """As app.publish."""
        found: str = self._call(self.app.publish, topic, payload, **options)
        return found

    def publish_many(self, topic: Topic[Any], payloads: Iterable[Any], **options: Any) -> list[str]:
        """As app.publish_many."""
        found: list[str] = self._call(self.app.publish_many, topic, payloads, **options)
        return found

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

    def _dead(self, topic: Topic[Any], group: str) -> DeadLetters:
        return self.app.dead_letters(topic, group)


def idle(counts: Counts) -> bool:
    """Whether nothing is left to do, as far as the broker can tell."""
    return not any((counts.ready, counts.in_flight, counts.waiting, counts.lag))
