"""AsyncApp: what a user holds in hand, on an event loop. `engine.py` does what it promises, app.py is its twin."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from mqkit.app import App
from mqkit.app_options import AppOptions
from mqkit.arguments import name_of
from mqkit.backend import Backend, Counts
from mqkit.bridge import for_event_loop
from mqkit.dead import AsyncDeadLetters
from mqkit.durations import Duration
from mqkit.engine import Engine
from mqkit.errors import ClosedError
from mqkit.event_loop import AsyncPorts
from mqkit.events import Listener
from mqkit.from_thread import FromThread
from mqkit.loop_watch import LoopWatch
from mqkit.process_signals import stopping
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
    _changing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
    """Held by who opens or closes it, on that loop."""
    _users = 0
    """Contexts that have it open."""
    _run: "_Run | None" = None
    _stopped = False
    """Whether the next run is over before it begins."""

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
        """Call `listener` with every event, on the event loop: it must not block; also as a decorator.

        Raises:
            ConfigurationError: it is async.
        """
        return self.engine.listeners.add(listener)

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

    @property
    def from_thread(self) -> FromThread:
        """The way to publish from other threads than the event loop's, as in a plain handler."""
        return FromThread(self.engine, self._home)

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
        """Connect and declare, if that was not done; afterwards the app can publish. Errors: as in App.open.

        Contexts of one app may overlap in any way, in any tasks of one event loop; the last one closes it.

        Raises:
            RuntimeError: it is open on another event loop.
        """
        if self.engine.hooks.inside:  # which runs while somebody opens or closes it, and waits for the hook
            self._users += 1
            return self
        async with self._lock():
            if not self.engine.is_open:
                ports = self._ports = AsyncPorts()  # hooks use the app
                try:
                    await self.engine.open(ports, "asynchronous", for_event_loop)
                except BaseException:
                    self._ports = None
                    ports.close()
                    raise
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop working and publishing, and let go of the broker, if this is the last context of the app."""
        if self.engine.hooks.inside:
            self._users -= 1
            return
        async with self._lock():
            self._users = max(0, self._users - 1)
            if self._users:
                return
            ports = self._ports
            if ports is not None:
                try:
                    await self.engine.close()  # hooks and threads may use it until then
                finally:
                    self._ports = None
                    ports.close()

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Self]:
        """Handlers run inside this context; opens the app if it is not open."""
        async with self:
            watch = LoopWatch(asyncio.get_running_loop())
            self.engine.start()
            try:
                yield self
            finally:
                watch.stop()
                await self.engine.finish()

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`; end within the grace. A second signal ends the process at once.

        When signals count, and what it raises: as App.run.
        """
        self.engine.require_handlers()
        if self._run is not None:
            raise RuntimeError("this app runs already: run it once, with as many handlers as you like")
        run = self._run = _Run()
        self.engine.on_failure = run.stop
        try:
            with stopping(self.stop):
                if not self._stopped:
                    await self._run_until_stopped(run)
        finally:
            self.engine.on_failure = None
            self._run, self._stopped = None, False
        if self.engine.failure is not None:
            raise self.engine.failure

    async def _run_until_stopped(self, run: "_Run") -> None:
        try:
            async with run.limit:
                await self.__aenter__()
        except TimeoutError:
            if run.limit.expired():
                log.info("stopped before it was connected")
                return
            raise
        try:
            async with self.working():
                await run.stopped.wait()
        finally:
            await self.__aexit__(None, None, None)

    def stop(self) -> None:
        """Make `run` return, or the next call of it if it does not run; from any thread, and from a signal handler."""
        self._stopped = True
        if (run := self._run) is not None:
            run.stop()

    def _home(self) -> AsyncPorts:
        if self._ports is None:
            raise ClosedError("the app is not open: use it inside of `async with app:`, or while it runs")
        return self._ports

    def _lock(self) -> asyncio.Lock:
        """For the loop that runs here, unless the app is at home on another."""
        ports = self._ports
        if ports is not None and ports.loop.is_closed():  # it ended with the app open
            self.engine.forget()
            ports.close()
            self._ports, self._users, ports = None, 0, None
        if ports is not None:
            ports.require_home()
        loop = asyncio.get_running_loop()
        if self._changing is None or self._changing[0] is not loop:
            self._changing = loop, asyncio.Lock()
        return self._changing[1]

    # ---- insight

    async def inspect(self, topic: Topic[Any] | str, group: str) -> Counts:
        """How a group stands at the broker."""
        return await self.engine.here().backend.inspect(name_of(topic), group)

    async def examine(self) -> Sequence[Finding]:
        """What of the app's topology exists at the broker, is missing, or differs."""
        return await self.engine.here().backend.examine(self.topology())

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


class _Run:
    """One call of `AsyncApp.run`, on its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.limit = asyncio.timeout(None)
        """Around opening it."""
        self.stopped = asyncio.Event()

    def stop(self) -> None:
        """End it; from any thread, and from a signal handler."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if not self.stopped.is_set():
            self.stopped.set()
            with suppress(RuntimeError):  # it is open by now
                self.limit.reschedule(self._loop.time())
