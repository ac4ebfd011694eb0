"""AsyncApp: what a user holds in hand, on an event loop. `engine.py` does what it promises, app.py is its twin."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from mqkit.app import App
from mqkit.app_options import AppOptions
from mqkit.backend import Backend, Counts
from mqkit.bridge import for_event_loop
from mqkit.dead import AsyncDeadLetters
from mqkit.durations import Duration
from mqkit.engine import Engine, name_of
from mqkit.event_loop import AsyncPorts
from mqkit.events import Listener
from mqkit.ports import Signal
from mqkit.pull import AsyncConsumer
from mqkit.registration import Registration, Republishing, SubscribeOptions, Subscribing
from mqkit.retry import Retry
from mqkit.topic import Topic
from mqkit.topology import Finding, Topology

if TYPE_CHECKING:
    from mqkit.settings import Settings  # brings pydantic along

log = logging.getLogger("mqkit")

T = TypeVar("T")
R = TypeVar("R")


class AsyncApp:
    """A service that talks through messages, on an event loop.

    Args:
        url: the broker; from `MQKIT_URL` or mqkit.toml if not given, else `sqlite:///mqkit.db`.
        options: see AppOptions.

    Raises:
        ConfigurationError: a setting makes no sense, a plugin is broken; the text says which and what to do.
        TypeError: there is no such option.
    """

    engine: Engine
    """What App and AsyncApp have in common; for tools."""
    _ports: AsyncPorts | None = None
    _stopping: Signal | None = None

    def __init__(self, url: str | None = None, **options: Unpack[AppOptions]) -> None:
        self.engine = Engine(self, url, options, plain=False)

    @classmethod
    def of(cls, app: App) -> Self:
        """The same service on an event loop, for tools; only one of the two may be open."""
        found = cls.__new__(cls)
        found.engine = app.engine
        return found

    # ---- writing a service

    @overload
    def subscribe(
        self, topic: Topic[T], *, group: str, publish: Topic[R], **options: Unpack[SubscribeOptions]
    ) -> Republishing[T, R]: ...
    @overload
    def subscribe(
        self, topic: Topic[T], *, group: str, publish: None = None, **options: Unpack[SubscribeOptions]
    ) -> Subscribing[T]: ...
    def subscribe(
        self, topic: Topic[Any], *, group: str, publish: Topic[Any] | None = None, **options: Unpack[SubscribeOptions]
    ) -> Callable[..., Any]:
        """Let the decorated function handle each message of `topic` once for `group`; a plain one runs in a thread.

        Called, with what options, and what it may raise: as in App.subscribe.
        """
        return self.engine.subscribe(topic, group, publish, options)

    def listen(self, listener: Listener) -> Listener:
        """Call `listener` with every event; also as a decorator."""
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

    async def publish(
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
        """Publish one message; return its id when the broker has made it safe. Arguments and errors: App.publish."""
        return await self.engine.publish(topic, payload, key=key, headers=headers, delay=delay, id=id, timeout=timeout)

    async def publish_many(
        self,
        topic: Topic[T],
        payloads: Iterable[T],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> list[str]:
        """Publish many messages; their ids when the broker has made all safe. Errors: as in App.publish_many."""
        return await self.engine.publish_many(topic, payloads, headers=headers, timeout=timeout)

    # ---- pulling

    def consumer(
        self,
        topic: Topic[T],
        *,
        group: str,
        retry: Retry | None = None,
        ordering: Literal["key", "none"] = "none",
        prefetch: int = 100,
    ) -> AsyncConsumer[T]:
        """Pull messages of `topic` for `group`, in your own loop: the async twin of App.consumer."""
        return self.engine.consumer(topic, group, retry, ordering, prefetch)

    # ---- running

    async def __aenter__(self) -> Self:
        """Connect and declare; afterwards the app can publish. Errors: as in App.open."""
        if not self.engine.is_open:
            ports = AsyncPorts()
            try:
                await self.engine.open(ports, "asynchronous", for_event_loop)
            except BaseException:
                ports.close()
                raise
            self._ports = ports
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop working and publishing, and let go of the broker."""
        ports, self._ports = self._ports, None
        if ports is not None:
            try:
                await self.engine.close()
            finally:
                ports.close()

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Self]:
        """Handlers run inside this context; opens the app if it is not open."""
        was_open = self.engine.is_open
        await self.__aenter__()
        try:
            self.engine.start()
            yield self
        finally:
            try:
                await self.engine.finish()
            finally:
                if not was_open:
                    await self.__aexit__(None, None, None)

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`; end within the grace. A second signal ends the process at once.

        Raises:
            ConfigurationError: there is nothing to handle, or something is set up wrong.
            ConnectionLost: the broker is not there at the start. Later outages are waited out.
        """
        self.engine.require_handlers()
        async with self.working():
            ports = self._ports
            assert ports is not None
            self._stopping = ports.signal()
            with ports.ending(self.stop):
                await self._stopping.wait()

    def stop(self) -> None:
        """Make `run` return; from the loop's thread."""
        if self._stopping is not None:
            self._stopping.set()

    # ---- insight

    async def inspect(self, topic: Topic[Any] | str, group: str) -> Counts:
        """How a group stands at the broker."""
        return await self.backend.inspect(name_of(topic), group)

    async def examine(self) -> Sequence[Finding]:
        """What of the app's topology exists at the broker, is missing, or differs."""
        return await self.backend.examine(self.topology())

    def dead_letters(self, topic: Topic[Any] | str, group: str) -> AsyncDeadLetters:
        """The dead letters of a group."""
        return self.engine.dead_letters(topic, group)

    @property
    def backend(self) -> Backend:
        """The backend of an open app, for tools. Raises ClosedError."""
        return self.engine.opened.backend

    @property
    def description(self) -> str:
        """What the broker says it is: `RabbitMQ 4.3.6`. Raises ClosedError."""
        return self.engine.opened.description
