"""AsyncApp: what a user holds in hand. It puts the rooms together and decides nothing about messages."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from mqkit.backend import Backend, Counts
from mqkit.bridge import AsyncPorts, for_event_loop
from mqkit.dead import DeadLetters
from mqkit.durations import Duration, seconds
from mqkit.envelope import seal
from mqkit.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    FieldError,
    MqkitError,
    SchemaError,
    TopologyError,
)
from mqkit.events import Event, Listener
from mqkit.handler import Handler, HandlerOptions
from mqkit.message import Outgoing
from mqkit.middleware import Around, Middleware
from mqkit.ports import Job, Signal, joined
from mqkit.producer import Producer, new_id, published
from mqkit.pump import Pump
from mqkit.registration import Registration, Registrations, Republishing, Subscribing
from mqkit.registry import masked
from mqkit.retry import Retry
from mqkit.topic import Topic, schema_name
from mqkit.topology import Finding, TopicNeed, Topology
from mqkit.workers import TaskWorkers

if TYPE_CHECKING:
    # imported when an app is made: pydantic and the search for plugins cost more than all else
    from mqkit.codec import TopicCodec
    from mqkit.settings import Settings

log = logging.getLogger("mqkit")

T = TypeVar("T")
R = TypeVar("R")


class AsyncApp:
    """A service that talks through messages, on an event loop.

    Args:
        url: the broker; from `MQKIT_URL` or mqkit.toml if not given, else `sqlite:///mqkit.db`.
        service: who publishes: the CloudEvents `source`, and part of every dead letter.
        version: of the service.
        declare: whether to create what is missing at the broker.
        publish_timeout: seconds within which every publish ends.
        grace: seconds that running handlers get at the end.
        plugins: plugin objects or modules beside those that are installed.
        middleware: around every handler of this app, outermost first.
        listeners: callables that get every event.

    Raises:
        ConfigurationError: a setting makes no sense, a plugin is broken; the text says which and what to do.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        service: str | None = None,
        version: str | None = None,
        declare: bool | None = None,
        publish_timeout: Duration | None = None,
        grace: Duration | None = None,
        plugins: Sequence[object] = (),
        middleware: Sequence[Middleware] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.arguments: dict[str, object] = {
            "url": url,
            "service": service,
            "version": version,
            "declare": declare,
            "publish_timeout": None if publish_timeout is None else seconds(publish_timeout, option="publish_timeout"),
            "grace": None if grace is None else seconds(grace, option="grace"),
        }
        """What this app was given; settings come from here first."""
        from mqkit.plugins import Plugins
        from mqkit.settings import load

        self.settings: Settings = load(self.arguments)
        self._plugin_objects = tuple(plugins)
        self.plugins = Plugins(plugins, self.settings.disabled_plugins)
        self._middleware = (*self.plugins.collect("mqkit_middleware"), *middleware)
        self._listeners: list[Listener] = [*self.plugins.collect("mqkit_listeners"), *listeners]
        self._registrations = Registrations(self.settings.groups)
        self._codecs: dict[Topic[Any], TopicCodec[Any]] = {}
        self._declared: set[Topic[Any]] = set()
        self._opened: _Opened | None = None
        self._pumps: list[Pump] = []
        self._stopping: Signal | None = None

    # ---- writing a service

    @overload
    def subscribe(
        self,
        topic: Topic[T],
        *,
        group: str,
        retry: Retry | None = None,
        ordering: Literal["key", "none"] = "none",
        concurrency: int = 10,
        prefetch: int = 100,
        timeout: Duration | None = None,
        grace: Duration | None = None,
        publish: Topic[R],
        middleware: Sequence[Middleware] = (),
    ) -> Republishing[T, R]: ...
    @overload
    def subscribe(
        self,
        topic: Topic[T],
        *,
        group: str,
        retry: Retry | None = None,
        ordering: Literal["key", "none"] = "none",
        concurrency: int = 10,
        prefetch: int = 100,
        timeout: Duration | None = None,
        grace: Duration | None = None,
        publish: None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Subscribing[T]: ...
    def subscribe(
        self,
        topic: Topic[Any],
        *,
        group: str,
        retry: Retry | None = None,
        ordering: Literal["key", "none"] = "none",
        concurrency: int = 10,
        prefetch: int = 100,
        timeout: Duration | None = None,
        grace: Duration | None = None,
        publish: Topic[Any] | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> Callable[..., Any]:
        """Let the decorated function handle each message of `topic` once for `group`.

        The function is called as `function(payload)` or `function(payload, message)`. A plain function runs in a
        thread. What it may raise on purpose: `Skip`, `Reject`, `RetryLater`.

        Args:
            group: workers of one group share the work; every group gets every message.
            retry: how often and how patiently a failing message is tried.
            ordering: "key": messages of one key in the order of publication, one at a time, retries included.
            concurrency: at most so many handlers at once in this process.
            prefetch: at most so many more messages wait in this process.
            timeout: seconds after which a call counts as failed.
            grace: seconds that running handlers get at the end; the app's setting if not given.
            publish: where to publish what the function returns (None: nothing), before the message is settled.
            middleware: around this handler, inside the app's.

        Raises:
            ConfigurationError: an option makes no sense, or the group has a handler for this topic already.
        """
        options = HandlerOptions(
            retry=retry or Retry(),
            ordering=ordering,
            concurrency=concurrency,
            prefetch=prefetch,
            timeout=None if timeout is None else seconds(timeout, option="timeout"),
            grace=None if grace is None else seconds(grace, option="grace"),
        )
        self._codec(topic)
        if publish is not None:
            self._codec(publish)
        return self._registrations.decorator(topic, group, options, publish, (*self._middleware, *middleware))

    def listen(self, listener: Listener) -> Listener:
        """Call `listener` with every event; also as a decorator."""
        self._listeners.append(listener)
        return listener

    @property
    def registrations(self) -> Sequence[Registration]:
        """What `subscribe` was used for, in order."""
        return tuple(self._registrations)

    def topology(self) -> Topology:
        """What this app needs at its broker."""
        needs = [TopicNeed(r.topic.name, frozenset((r.group, *r.topic.groups)), r.topic.options)
                 for r in self._registrations]  # fmt: skip
        needs += [TopicNeed(t.name, frozenset(t.groups), t.options) for t in self._codecs]
        return Topology().including((*needs, *self.plugins.collect("mqkit_topology")))

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
        """Publish one message; return its id when the broker has made it safe.

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
        opened = self._require()
        outgoing = self._prepare(topic, payload, key, headers, seconds(delay, option="delay"), id)
        await self._ensure(opened, topic)
        errors = await opened.producer.send((outgoing,), self._timeout(timeout))
        if errors:
            raise published(errors) if isinstance(errors[0], ConnectionLost) else errors[0]
        return outgoing.labels["id"]

    async def publish_many(
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
        opened = self._require()
        batch = []
        for i, payload in enumerate(payloads):
            try:
                batch.append(self._prepare(topic, payload, None, headers))
            except SchemaError as error:
                fields = [FieldError(f"{i}.{f.path}" if f.path else str(i), f.problem) for f in error.fields]
                raise SchemaError(error.schema, fields) from error
        await self._ensure(opened, topic)
        errors = await opened.producer.send(batch, self._timeout(timeout))
        if errors:
            raise published(errors)
        return [outgoing.labels["id"] for outgoing in batch]

    # ---- running

    async def __aenter__(self) -> Self:
        """Connect and declare; afterwards the app can publish."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop working and publishing, and let go of the broker."""
        await self._close()

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[Self]:
        """Handlers run inside this context; opens the app if it is not open."""
        was_open = self._opened is not None
        opened = await self._open()
        jobs: list[Job] = []
        try:
            self._pumps = [self._pump(opened, registration) for registration in self._registrations]
            jobs = [opened.ports.spawn(pump.run(), f"mqkit pump {i}") for i, pump in enumerate(self._pumps)]
            yield self
        finally:
            for pump in self._pumps:
                pump.stop()
            self._pumps = []
            try:
                await joined(jobs)
            finally:
                if not was_open:
                    await self._close()

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`; end within the grace. A second signal ends the process at once.

        Raises:
            ConfigurationError: there is nothing to handle, or something is set up wrong.
            ConnectionLost: the broker is not there at the start. Later outages are waited out.
        """
        if not self._registrations:
            raise ConfigurationError("nothing to run: the app has no @app.subscribe")
        async with self.working():
            ports = self._require().ports
            self._stopping = ports.signal()
            with ports.ending(self.stop):
                await self._stopping.wait()
            log.info("stopping: running handlers have up to %g s", self.settings.grace)

    def stop(self) -> None:
        """Make `run` return; from the loop's thread."""
        if self._stopping is not None:
            self._stopping.set()

    # ---- insight

    async def inspect(self, topic: Topic[Any] | str, group: str) -> Counts:
        """How a group stands at the broker."""
        return await self._require().backend.inspect(_name(topic), group)

    async def examine(self) -> Sequence[Finding]:
        """What of the app's topology exists at the broker, is missing, or differs."""
        return await self._require().backend.examine(self.topology())

    def dead_letters(self, topic: Topic[Any] | str, group: str) -> DeadLetters:
        """The dead letters of a group."""
        opened = self._require()
        return DeadLetters(
            backend=opened.backend,
            producer=opened.producer,
            ports=opened.ports,
            topic=_name(topic),
            group=group,
            timeout=self.settings.publish_timeout,
        )

    @property
    def backend(self) -> Backend:
        """The backend of an open app, for tools. Raises ClosedError."""
        return self._require().backend

    @property
    def description(self) -> str:
        """What the broker says it is: `RabbitMQ 4.3.6`. Raises ClosedError."""
        return self._require().description

    # ---- inside

    def _require(self) -> "_Opened":
        if self._opened is None:
            raise ClosedError("the app is not open: use `async with app:`, or publish while it runs")
        return self._opened

    def _codec(self, topic: Topic[T]) -> "TopicCodec[T]":
        codec = self._codecs.get(topic)
        if codec is None:
            codec = self._codecs[topic] = self.plugins.codecs.bind(topic)
        return codec

    def _timeout(self, timeout: Duration | None) -> float:
        return self.settings.publish_timeout if timeout is None else seconds(timeout, option="timeout")

    def _prepare(
        self,
        topic: Topic[T],
        payload: T,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        id: str | None = None,
    ) -> Outgoing:
        opened = self._require()
        codec = self._codec(topic)
        body = codec.encode(payload)
        now = opened.ports.now()
        message_id = id or new_id()
        wire = seal(
            body,
            prefix=opened.prefix,
            id=message_id,
            source=self.settings.service,
            type=schema_name(topic.schema),
            now=now,
            content_type=codec.content_type,
            key=topic.key_of(payload) if key is None else key,
            headers=headers,
            due=now + delay if delay else None,
        )
        return Outgoing(wire, topic.name, delay=delay, labels={"id": message_id})

    async def _ensure(self, opened: "_Opened", topic: Topic[Any]) -> None:
        """Declare a topic when it is first published to."""
        if topic in self._declared or not self.settings.declare:
            return
        need = TopicNeed(topic.name, frozenset(topic.groups), topic.options)
        await opened.backend.declare(Topology((need,)))
        self._declared.add(topic)

    async def _open(self) -> "_Opened":
        if self._opened is not None:
            return self._opened
        settings = self.settings
        colour, found = self.plugins.backends.open(settings.url, "asynchronous")
        backend = for_event_loop(colour, found)
        for registration in self._registrations:
            if registration.options.ordering == "key" and not backend.capabilities.ordering:
                raise ConfigurationError(f'{masked(settings.url)} cannot keep ordering="key" for {registration.topic}')
        ports = AsyncPorts(threads=max(32, sum(r.options.concurrency for r in self._registrations)))
        try:
            description = await backend.connect(settings.connect_timeout)
            await self._settle_topology(backend)
            producer = Producer(backend, ports, self._producer_changed)
            producer.start()
        except BaseException:
            ports.close()
            await backend.close()
            raise
        self._opened = _Opened(backend, ports, producer, backend.capabilities.attribute_prefix, description)
        log.info("connected to %s (%s)", masked(settings.url), description)
        try:
            self._call_hooks("mqkit_startup")
        except BaseException:
            await self._close()
            raise
        return self._opened

    async def _settle_topology(self, backend: Backend) -> None:
        topology = self.topology()
        if self.settings.declare:
            await backend.declare(topology)
            self._declared.update(self._codecs)
            return
        findings = await backend.examine(topology)
        if missing := [f"{f.kind} {f.name} is missing" for f in findings if f.state == "missing"]:
            raise TopologyError("declare is off, and at the broker", missing)
        if wrong := [line for f in findings if f.state == "differs" for line in f.lines()]:
            raise TopologyError("at the broker", wrong)

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        self._opened = opened
        try:
            self._call_hooks("mqkit_shutdown")
        finally:
            await opened.producer.close()
            self._opened = None
            await opened.backend.close()
            opened.ports.close()
            self._declared.clear()

    def _call_hooks(self, name: str) -> None:
        for implementation in getattr(self.plugins.manager.hook, name).get_hookimpls():
            try:
                implementation.function(*([self] if implementation.argnames else []))
            except Exception as error:
                raise ConfigurationError(
                    f"plugin {implementation.plugin_name!r} failed in {name}: {type(error).__name__}: {error}"
                ) from error

    def _pump(self, opened: "_Opened", registration: Registration) -> Pump:
        settings = self.settings
        handler = Handler(
            topic=registration.topic,
            group=registration.group,
            function=registration.function,
            options=registration.options,
            codec=self._codec(registration.topic),
            around=Around(registration.middleware),
            ports=opened.ports,
            prepare=self._prepare,
            publish=registration.publish,
            max_body_bytes=settings.max_body_bytes,
        )
        grace = registration.options.grace
        need = TopicNeed(registration.topic.name, frozenset((registration.group,)), registration.topic.options)

        async def declare() -> None:
            await opened.backend.declare(Topology((need,)))

        return Pump(
            backend=opened.backend,
            handler=handler,
            workers=lambda on_outcome, on_again: TaskWorkers(handler, on_outcome, on_again),
            producer=opened.producer,
            ports=opened.ports,
            emit=self._emit,
            service=f"{settings.service} {settings.version}".strip(),
            grace=settings.grace if grace is None else grace,
            declare=declare if settings.declare else None,
        )

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("listener %r failed", listener)

    def _producer_changed(self, error: MqkitError | None) -> None:
        if error is None:
            log.warning("publishing goes on: connected again")
            self._emit(Event("connected"))
        else:
            log.warning("publishing waits: %s", error)
            self._emit(Event("disconnected", detail=str(error)))


@dataclass(frozen=True, slots=True)
class _Opened:
    """What an app has while it is open."""

    backend: Backend
    ports: AsyncPorts
    producer: Producer
    prefix: str
    description: str


def _name(topic: Topic[Any] | str) -> str:
    return topic if isinstance(topic, str) else topic.name
