"""App: what a user holds in hand, in plain code. `engine.py` does what it promises, async_app.py is its twin."""

import atexit
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from mqkit import forks
from mqkit.app_options import AppOptions
from mqkit.arguments import name_of
from mqkit.backend import Counts
from mqkit.bridge import for_threads
from mqkit.dead import DeadLetters
from mqkit.durations import Duration
from mqkit.engine import Engine
from mqkit.errors import ClosedError
from mqkit.events import Listener
from mqkit.monitor import Monitor
from mqkit.process_signals import stopping
from mqkit.pull import Consumer
from mqkit.registration import PlainRepublishing, PlainSubscribing, Registration, SubscribeOptions
from mqkit.retry import Retry
from mqkit.threads import JobCancelled, ThreadJob, ThreadPorts
from mqkit.topic import Topic
from mqkit.topology import Finding, Topology

if TYPE_CHECKING:
    from mqkit.settings import Settings  # brings pydantic along

log = logging.getLogger("mqkit")

T = TypeVar("T")
R = TypeVar("R")
LOOK = 0.1
"""Seconds between two looks whether it was stopped, while another thread opens or closes it."""


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
        self._changing = Lock()
        """Held by who opens or closes it."""
        self._users = 0
        """Contexts that have it open."""
        self._kept = False
        """Whether `open` was called after the last `close`."""
        self._was_forked = False
        self._running = Lock()
        self._endings: SimpleQueue[None] = SimpleQueue()
        """An entry for each time that somebody wants `run` to return."""
        self._connecting: ThreadJob | None = None
        """What `stop` ends, while `run` opens it."""
        forks.APPS.add(self)

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
        """Call `listener` with every event, in order, in a thread where it may use the app; also as a decorator.

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
        if not self.engine.hooks.inside:  # else it is open, or not for long
            with self._changing:
                self._connect()
                self._kept = True

    def close(self) -> None:
        """Stop working and publishing, and let go of the broker, whoever still uses it; ends `run`. Not for hooks."""
        self.engine.hooks.require_outside()
        with self._changing:
            self._kept = False
            self._disconnect()

    def __enter__(self) -> Self:
        """As open, until this context is left; contexts of one app may overlap in any way, the last one closes it."""
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As close, if nobody else has it open: by a context, or by `open`."""
        if self.engine.hooks.inside:
            self._users -= 1
            return
        with self._changing:
            self._users = max(0, self._users - 1)
            if not self._users and not self._kept:
                self._disconnect()

    @contextmanager
    def working(self) -> Generator[Self]:
        """Handlers run inside this context; opens the app if it is not open."""
        with self:
            with self._connected().monitor:
                self.engine.start()
            try:
                yield self
            finally:
                if self.engine.is_open:
                    self._run(self.engine.finish)

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`; end within the grace. A second signal ends the process at once.

        Signals count from the call on, also while it connects; in another than the main thread only while an app runs
        in that, too.

        Raises:
            ConfigurationError: there is nothing to handle, or something is set up wrong.
            ConnectionLost: the broker is not there at the start. Later outages are waited out.
            RuntimeError: it runs already.
            Exception: a part of mqkit ended that should not, by this error; the log has said so.
        """
        self.engine.require_handlers()
        if not self._running.acquire(blocking=False):
            raise RuntimeError("this app runs already: run it once, with as many handlers as you like")
        try:
            with stopping(self.stop):
                if self._endings.empty():
                    self._run_until_stopped()
        finally:
            self._endings = SimpleQueue()  # what was asked for more than once is not for the next run
            self._running.release()
        if self.engine.failure is not None:
            raise self.engine.failure

    def _run_until_stopped(self) -> None:
        self.engine.on_failure = self.stop
        try:
            self._enter(until_stopped=True)
            try:
                with self.working():
                    self._endings.get()
            finally:
                self.__exit__(None, None, None)
        except JobCancelled:
            log.info("stopped before it was connected")
        finally:
            self.engine.on_failure = None

    def stop(self) -> None:
        """Make `run` return, or the next call of it if it does not run; from any thread, and from a signal handler."""
        self._endings.put(None)
        if (connecting := self._connecting) is not None:
            connecting.cancel()

    # ---- insight

    def inspect(self, topic: Topic[Any] | str, group: str) -> Counts:
        """How a group stands at the broker."""
        return self._connected().run(self.engine.opened.backend.inspect(name_of(topic), group))

    def examine(self) -> Sequence[Finding]:
        """What of the app's topology exists at the broker, is missing, or differs."""
        return self._connected().run(self.engine.opened.backend.examine(self.topology()))

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

    def _enter(self, *, until_stopped: bool = False) -> None:
        """One more has it open. Raises JobCancelled at `stop`, if it shall."""
        if self.engine.hooks.inside:  # which runs while somebody opens or closes it, and waits for the hook
            self._users += 1
            return
        while not self._changing.acquire(timeout=LOOK):
            if until_stopped and not self._endings.empty():
                raise JobCancelled
        try:
            self._connect(until_stopped=until_stopped)
            self._users += 1
        finally:
            self._changing.release()

    def _connect(self, *, until_stopped: bool = False) -> None:
        """Open it, if it is not open; by who holds `_changing`."""
        if self.engine.is_open:
            return
        job = ThreadJob(ports := ThreadPorts())
        try:
            if until_stopped:
                self._connecting = job
                if not self._endings.empty():
                    job.cancel()
            self._ports, self._was_forked = ports, False  # hooks use the app
            ports.run(self.engine.open(ports, "blocking", partial(for_threads, ports)), job)
        except BaseException:
            self._ports = None
            ports.close()
            raise
        finally:
            self._connecting = None
        atexit.register(self.close)

    def _disconnect(self) -> None:
        self._was_forked = False
        ports = self._ports
        if ports is None:
            return
        atexit.unregister(self.close)
        try:
            ports.run(self.engine.close())  # hooks and listeners may use it until then
        finally:
            self._ports = None
            ports.close()
            if self._running.locked():
                self.stop()  # nothing of it works any more

    def _connected(self) -> ThreadPorts:
        if self._was_forked:  # from a process where it was open
            with self._changing:
                self._connect()
        if self._ports is None:
            raise ClosedError("the app is not open: use it inside of `with app:`, after app.open(), or while it runs")
        return self._ports

    def _run(self, work: Callable[..., Coroutine[Any, Any, R]], *args: Any, **options: Any) -> R:
        return self._connected().run(work(*args, **options))

    def _monitor(self) -> Monitor | None:
        return None if self._ports is None else self._ports.monitor

    def _forked(self) -> None:
        """This is a child process: all that was open belongs to the parent, and its threads are not here."""
        self._changing, self._running, self._endings = Lock(), Lock(), SimpleQueue()
        # also when a thread was opening or closing it just now
        forks.INHERITED.append((self._ports, self.engine.forget()))
        if self._ports is not None:
            atexit.unregister(self.close)
            self._ports = None
            self._was_forked = True
