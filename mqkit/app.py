"""App: what a user holds in hand, in plain code. `engine.py` does what it promises, async_app.py is its twin."""

import atexit
import logging
import os
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from mqkit.app_options import AppOptions
from mqkit.backend import Counts
from mqkit.bridge import for_threads
from mqkit.dead import DeadLetters
from mqkit.durations import Duration
from mqkit.engine import Engine, name_of
from mqkit.errors import ClosedError
from mqkit.events import Listener
from mqkit.monitor import Monitor
from mqkit.pull import Consumer
from mqkit.registration import (
    PlainRepublishing,
    PlainSubscribing,
    Registration,
    SubscribeOptions,
)
from mqkit.retry import Retry
from mqkit.threads import ThreadPorts
from mqkit.topic import Topic
from mqkit.topology import Finding, Topology

if TYPE_CHECKING:
    from mqkit.settings import Settings  # brings pydantic along

log = logging.getLogger("mqkit")

T = TypeVar("T")
R = TypeVar("R")


class App:
    """A service that talks through messages, in plain code: handlers run in threads, any thread may publish.

    Use it as a context (`with app:`), or call `open` where that is awkward, as in a web worker. A process that is
    forked while the app is open (gunicorn, multiprocessing) connects anew when it first uses it. On Kafka do not fork
    while another thread publishes for the first time: a child may then be unable to connect, rarely.

    Args:
        url: the broker; from `MQKIT_URL` or mqkit.toml if not given, else `sqlite:///mqkit.db`.
        options: see AppOptions.

    Raises:
        ConfigurationError: a setting makes no sense, a plugin is broken; the text says which and what to do.
        TypeError: there is no such option.
    """

    def __init__(self, url: str | None = None, **options: Unpack[AppOptions]) -> None:
        self.engine = Engine(self, url, options, plain=True)
        """What App and AsyncApp have in common; for tools."""
        self._ports: ThreadPorts | None = None
        self._opening = Lock()
        self._was_forked = False
        self._endings: SimpleQueue[None] = SimpleQueue()
        APPS.add(self)

    # ---- writing a service

    @overload
    def subscribe(
        self, topic: Topic[T], *, group: str, publish: Topic[R], **options: Unpack[SubscribeOptions]
    ) -> PlainRepublishing[T, R]: ...
    @overload
    def subscribe(
        self, topic: Topic[T], *, group: str, publish: None = None, **options: Unpack[SubscribeOptions]
    ) -> PlainSubscribing[T]: ...
    def subscribe(
        self, topic: Topic[Any], *, group: str, publish: Topic[Any] | None = None, **options: Unpack[SubscribeOptions]
    ) -> Callable[..., Any]:
        """Let the decorated function handle each message of `topic` once for `group`, in a thread.

        It is called as `function(payload)` or `function(payload, message)`. What it may raise on purpose: `Skip`,
        `Reject`, `RetryLater`.

        Args:
            group: workers of one group share the work; every group gets every message.
            publish: where to publish what the function returns (None: nothing), before the message is settled.
            options: see SubscribeOptions.

        Raises:
            ConfigurationError: an option makes no sense, the function is async, or the group has a handler already.
            TypeError: there is no such option.
        """
        return self.engine.subscribe(topic, group, publish, options)

    def listen(self, listener: Listener) -> Listener:
        """Call `listener` with every event, from one thread at a time; also as a decorator."""
        self.engine.listeners.append(listener)
        return listener

    @property
    def settings(self) -> "Settings":
        """What was decided by arguments, environment, mqkit.toml and defaults."""
        return self.engine.settings

    @property
    def registrations(self) -> Sequence[Registration]:
        """What `subscribe` was used for, in order."""
        return tuple(self.engine.registrations)

    def topology(self) -> Topology:
        """What this app needs at its broker."""
        return self.engine.topology()

    # ---- publishing

    def publish(
        self,
        topic: Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: Duration = 0.0,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> str:
        """Publish one message, from any thread; return its id when the broker has made it safe.

        What threads publish at the same time goes to the broker together.

        Args:
            key: what it is ordered by, if not by the topic's own key.
            headers: text, for the receivers' eyes.
            delay: seconds before which no group gets it.
            id: to publish again what may have been published before.
            timeout: seconds within which this ends; the app's publish_timeout if not given.

        Raises:
            SchemaError: the payload does not match the topic's schema; names the fields. Nothing was sent.
            EncodeError: a key, header or payload cannot be written. Nothing was sent.
            MessageTooLarge: the broker would not take it; names both sizes.
            Unroutable: nothing would ever receive it.
            PublishError: it was refused, or its outcome is unknown.
            ClosedError: the app is not open.
        """
        return self._run(
            self.engine.publish, topic, payload, key=key, headers=headers, delay=delay, id=id, timeout=timeout
        )

    def publish_many(
        self,
        topic: Topic[T],
        payloads: Iterable[T],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> list[str]:
        """Publish many messages, those of one key in their order; their ids when the broker has made all safe.

        Raises:
            SchemaError: payloads do not match; paths begin with their positions. Nothing was sent.
            PublishError: `rejected` and `unknown` tell by position what became of those that are not safe.
            EncodeError, ClosedError: as in publish.
        """
        return self._run(self.engine.publish_many, topic, payloads, headers=headers, timeout=timeout)

    # ---- pulling

    def consumer(
        self,
        topic: Topic[T],
        *,
        group: str,
        retry: Retry | None = None,
        ordering: Literal["key", "none"] = "none",
        prefetch: int = 100,
    ) -> Consumer[T]:
        """Pull messages of `topic` for `group`, in your own loop: for jobs, notebooks and tests.

        with app.consumer(orders, group="audit") as consumer:
            for delivery in consumer.fetch(100, timeout=1):
                delivery.done()  # or retry(), dead_letter(), release()

        The promises are those of subscribe; middleware is not called.

        Args:
            retry: when a message that failed comes again, and when it is dead.
            ordering: "key": the next message of a key comes when the one before it was decided.
            prefetch: at most so many messages are in this process, fetched or not.

        Raises:
            ConfigurationError: an option makes no sense.
            ClosedError: the app is not open.
        """
        ports = self._connected()
        return Consumer(self.engine.consumer(topic, group, retry, ordering, prefetch), ports.run)

    # ---- running

    def open(self) -> None:
        """Connect and declare; nothing if that was done. What is open when the process ends is closed then.

        Raises:
            ConnectionLost, AuthenticationFailed: the broker is not there, or does not let us in.
            ConfigurationError, TopologyError: something is set up wrong.
        """
        with self._opening:
            if self.engine.is_open:
                return
            ports = ThreadPorts()
            try:
                ports.run(self.engine.open(ports, "blocking", partial(for_threads, ports)))
            except BaseException:
                ports.close()
                raise
            self._ports, self._was_forked = ports, False
            atexit.register(self.close)

    def close(self) -> None:
        """Stop publishing, and let go of the broker; idempotent."""
        with self._opening:
            self._was_forked = False
            ports, self._ports = self._ports, None
            if ports is None:
                return
            atexit.unregister(self.close)
            try:
                ports.run(self.engine.close())
            finally:
                ports.close()

    def __enter__(self) -> Self:
        """As open."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As close."""
        self.close()

    @contextmanager
    def working(self) -> Generator[Self]:
        """Handlers run inside this context; opens the app if it is not open."""
        was_open = self.engine.is_open or self._was_forked
        self.open()
        try:
            self._run(self._start)
            yield self
        finally:
            try:
                if self.engine.is_open:
                    self._run(self.engine.finish)
            finally:
                if not was_open:
                    self.close()

    async def _start(self) -> None:
        self.engine.start()

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`; end within the grace. A second signal ends the process at once.

        Raises:
            ConfigurationError: there is nothing to handle, or something is set up wrong.
            ConnectionLost: the broker is not there at the start. Later outages are waited out.
        """
        self.engine.require_handlers()
        with self.working(), self._connected().ending(self.stop):
            self._endings.get()

    def stop(self) -> None:
        """Make `run` return; from any thread, and from a signal handler."""
        self._endings.put(None)

    # ---- insight

    def inspect(self, topic: Topic[Any] | str, group: str) -> Counts:
        """How a group stands at the broker."""
        ports = self._connected()
        return ports.run(self.engine.opened.backend.inspect(name_of(topic), group))

    def examine(self) -> Sequence[Finding]:
        """What of the app's topology exists at the broker, is missing, or differs."""
        ports = self._connected()
        return ports.run(self.engine.opened.backend.examine(self.topology()))

    def dead_letters(self, topic: Topic[Any] | str, group: str) -> DeadLetters:
        """The dead letters of a group."""
        ports = self._connected()
        return DeadLetters(self.engine.dead_letters(topic, group), ports.run)

    @property
    def description(self) -> str:
        """What the broker says it is: `RabbitMQ 4.3.6`. Raises ClosedError."""
        self._connected()
        return self.engine.opened.description

    # ---- inside

    def _connected(self) -> ThreadPorts:
        if self._was_forked:  # from a process where it was open
            self.open()
        if self._ports is None:
            raise ClosedError("the app is not open: use it inside of `with app:`, after app.open(), or while it runs")
        return self._ports

    def _run(self, work: Callable[..., Coroutine[Any, Any, R]], *args: Any, **options: Any) -> R:
        return self._connected().run(work(*args, **options))

    def _forked(self) -> None:
        """This is a child process: all that was open belongs to the parent, and its threads are not here."""
        self._opening = Lock()
        self._endings = SimpleQueue()
        INHERITED.append((self._ports, self.engine.forget()))  # also when a thread was opening or closing it just now
        if self._ports is not None:
            atexit.unregister(self.close)
            self._ports.restore_signals()
            self._ports = None
            self._was_forked = True


APPS: WeakSet[App] = WeakSet()
INHERITED: list[object] = []
"""What child processes hold of their parents' connections: kept, since letting go would speak to the broker."""
STANDSTILL: Final = 1.0
"""Seconds that a fork waits for the orchestration of an app to pause."""
PAUSED: list[Monitor] = []


def _before_fork() -> None:
    """Let nobody be in the middle of a step: a child would wait for ever for a lock that pydantic held just then."""
    for app in tuple(APPS):
        ports = app._ports  # noqa: SLF001 - the other half of App
        if ports is not None and ports.monitor.take(STANDSTILL):
            PAUSED.append(ports.monitor)


def _go_on() -> None:
    while PAUSED:
        PAUSED.pop().__exit__(None, None, None)


def _forked() -> None:
    _go_on()
    for app in tuple(APPS):
        app._forked()  # noqa: SLF001 - the other half of App


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_go_on, after_in_child=_forked)
