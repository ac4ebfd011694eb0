"""What App and AsyncApp have in common: everything but their colour. It puts the rooms together.

Decides nothing about messages, waits through its ports, and is given a backend that suits them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mqkit.app_options import AppOptions, arguments
from mqkit.arguments import in_batch, many, name_of, several, topic_of, whole
from mqkit.backend import Backend, BlockingBackend
from mqkit.dead import AsyncDeadLetters
from mqkit.declarations import Declarations, declared, settled
from mqkit.durations import Duration, seconds
from mqkit.envelope import seal
from mqkit.errors import ClosedError, ConfigurationError, ConnectionLost, MessageError, MqkitError
from mqkit.events import Event
from mqkit.handler import Handler
from mqkit.hooks import Hooks
from mqkit.listeners import Listeners, audible
from mqkit.message import NOTHING, Outgoing
from mqkit.middleware import Around
from mqkit.ports import Job, Ports
from mqkit.producer import Producer, new_id, published
from mqkit.pull import AsyncConsumer, by_consumer
from mqkit.pump import MakeRunner, Pump
from mqkit.registration import Registration, Registrations, SubscribeOptions
from mqkit.registry import Colour, masked
from mqkit.retry import Retry
from mqkit.stopping import ended, hung_up, parted
from mqkit.topic import Topic
from mqkit.topology import TopicNeed, Topology, left_over
from mqkit.workers import Workers

if TYPE_CHECKING:
    # imported when an app is made: pydantic and the search for plugins cost more than all else
    from mqkit.codec import TopicCodec
    from mqkit.settings import Settings

log = logging.getLogger("mqkit")

T = TypeVar("T")
Adapt = Callable[[Colour, Backend | BlockingBackend], Backend]
"""Makes a backend of either colour one that suits the ports."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What an app has while it is open."""

    backend: Backend
    ports: Ports
    producer: Producer
    prefix: str
    description: str


class Engine:
    """An app without its colour.

    Args:
        app: what the user holds; hooks get it.
        plain: whether handlers and middleware must be plain functions.

    Raises:
        ConfigurationError: a setting makes no sense, a plugin is broken; the text says which and what to do.
        TypeError: there is no such option.
    """

    def __init__(self, app: object, url: str | None, options: AppOptions, *, plain: bool) -> None:
        self.arguments = arguments(url, options)
        for option in ("plugins", "listeners", "middleware"):
            several(options.get(option, ()), option)
        from mqkit.plugins import Plugins
        from mqkit.settings import load

        self.settings: Settings = load(self.arguments)
        self.plugins = Plugins(options.get("plugins", ()), self.settings.disabled_plugins)
        if plain:
            self.plugins.require_plain()
        self.hooks = Hooks(self.plugins, app)
        self.listeners = Listeners((*self.plugins.collect("mqkit_listeners"), *options.get("listeners", ())))
        self.registrations = Registrations(self.settings.groups, plain=plain)
        self._middleware = (*self.plugins.collect("mqkit_middleware"), *options.get("middleware", ()))
        self._codecs: dict[Topic[Any], TopicCodec[Any]] = {}
        self._declarations = Declarations()
        self._opened: Opened | None = None
        self._ports: Ports | None = None
        self._pumps: list[Pump] = []
        self._jobs: list[Job] = []
        self._workers = 0
        self.failure: Exception | None = None
        """What ended a part of the app that nothing should end; None when it was opened."""
        self.on_failure: Callable[[], None] | None = None
        """Called when there is one."""

    # ---- before it is open

    def subscribe(
        self, topic: Topic[Any], group: str, publish: Topic[Any] | None, options: SubscribeOptions
    ) -> Callable[..., Any]:
        """As App.subscribe."""
        self._codec(topic_of(topic, "subscribe", ConfigurationError))
        if publish is not None:
            self._codec(topic_of(publish, "subscribe(publish=...)", ConfigurationError)).require_writable()
        several(options.get("middleware", ()), "middleware", ConfigurationError)
        around = (*self._middleware, *options.get("middleware", ()))
        return self.registrations.decorator(topic, group, options, publish, around)

    def use(self, url: str) -> None:
        """Another broker than was decided; before it is open."""
        self.arguments["url"] = url
        self.settings = self.settings.model_copy(update={"url": url})

    def require_handlers(self) -> None:
        """Raise ConfigurationError if there is nothing to work at."""
        if not self.registrations:
            raise ConfigurationError("nothing to run: the app has no @app.subscribe")

    def topology(self) -> Topology:
        """What this app needs at its broker."""
        needs = [TopicNeed(r.topic.name, frozenset((r.group, *r.topic.groups)), r.topic.options)
                 for r in self.registrations]  # fmt: skip
        needs += [TopicNeed(t.name, frozenset(t.groups), t.options) for t in self._codecs]
        return Topology().including((*needs, *self.plugins.collect("mqkit_topology")))

    # ---- open, and closed again

    @property
    def is_open(self) -> bool:
        """Whether it is connected, or was until an outage."""
        return self._opened is not None

    @property
    def opened(self) -> Opened:
        """What there is while it is open. Raises ClosedError."""
        if self._opened is None:
            raise ClosedError("the app is not open: use it inside of `with app:` (`async with`), or while it runs")
        return self._opened

    def here(self) -> Opened:
        """As opened, for what has to be awaited: raises RuntimeError on another event loop than the app's."""
        opened = self.opened
        opened.ports.require_home()
        return opened

    async def open(self, ports: Ports, prefer: Colour, adapt: Adapt) -> None:
        """Connect and declare."""
        if self._opened is not None:
            return
        audible()
        settings = self.settings
        self._ports, self.failure = ports, None
        ports.on_death = self._died
        backend = adapt(*self.plugins.backends.open(settings.url, prefer))
        for registration in self.registrations:
            if registration.options.ordering == "key" and not backend.capabilities.ordering:
                raise ConfigurationError(f'{masked(settings.url)} cannot keep ordering="key" for {registration.topic}')
        try:
            description = await backend.connect(settings.connect_timeout)
            await settled(backend, self.topology(), declare=settings.declare)
            self._declarations = Declarations(self._codecs, declare=settings.declare, topology=self.topology)
            producer = Producer(backend, ports, self._producer_changed)
            producer.start()
        except BaseException:
            await parted(ports, backend)
            raise
        self._opened = Opened(backend, ports, producer, backend.capabilities.attribute_prefix, description)
        log.info("connected to %s (%s)", masked(settings.url), description)
        try:
            await self.hooks.call("mqkit_startup")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the broker, in some seconds also when it does not answer; stops what still works."""
        if self._opened is None:
            return
        opened = self._opened
        try:
            self._workers = min(self._workers, 1)
            await self.finish()
            await self.hooks.call("mqkit_shutdown")
        finally:
            try:
                await self._declarations.close()
                await hung_up(opened.ports, opened.producer)
            finally:
                self._opened = None
                await parted(opened.ports, opened.backend)

    def forget(self) -> Opened | None:
        """Be closed, and touch nothing of what was open: it belongs to the process that this one was forked from."""
        opened, self._opened = self._opened, None
        self._pumps, self._jobs, self._workers = [], [], 0
        return opened

    def start(self) -> None:
        """Let handlers run; one more wants that."""
        opened = self.opened
        self._workers += 1
        if self._workers > 1:
            return
        audible()  # hooks configure logging, too
        self._pumps = [self._pump(opened, self._handler(opened, registration)) for registration in self.registrations]
        self._jobs = [opened.ports.spawn(pump.run(), f"mqkit pump of {pump.where}") for pump in self._pumps]

    async def finish(self) -> None:
        """One wants no more. At the last: start no more handlers, and return when the running ones ended within their
        grace and all is settled, or when it is clear that the broker does not answer.
        """
        if not self._workers:
            return
        self._workers -= 1
        if self._workers:
            return
        pumps, self._pumps = self._pumps, []
        jobs, self._jobs = self._jobs, []
        for pump in pumps:
            pump.stop()
        log.info("stopping: running handlers have up to %g s", self.settings.grace)
        await ended(self.opened.ports, tuple(zip(pumps, jobs, strict=True)))

    # ---- publishing

    async def publish(
        self,
        topic: Topic[T],
        payload: T,
        *,
        key: str | None,
        headers: Mapping[str, str] | None,
        delay: Duration,
        id: str | None,
        timeout: Duration | None,
    ) -> str:
        """As App.publish."""
        opened = self.here()
        outgoing = self.prepare(topic, payload, key, headers, seconds(delay, option="delay"), id)
        errors = await self._declarations.send(
            opened.backend, opened.ports, opened.producer, topic, (outgoing,), self._timeout(timeout)
        )
        if errors:
            raise published(errors) if isinstance(errors[0], ConnectionLost) else errors[0]
        return outgoing.labels["id"]

    async def publish_many(
        self,
        topic: Topic[T],
        payloads: Iterable[T],
        *,
        headers: Mapping[str, str] | None,
        timeout: Duration | None,
    ) -> list[str]:
        """As App.publish_many."""
        opened = self.here()
        batch = []
        for i, payload in enumerate(many(payloads)):
            try:
                batch.append(self.prepare(topic, payload, None, headers))
            except MessageError as error:
                raise in_batch(i, error) from error
        errors = await self._declarations.send(
            opened.backend, opened.ports, opened.producer, topic, batch, self._timeout(timeout)
        )
        if errors:
            raise published(errors)
        return [outgoing.labels["id"] for outgoing in batch]

    def prepare(
        self,
        topic: Topic[T],
        payload: T,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        id: str | None = None,
    ) -> Outgoing:
        """The message that carries a payload. Raises SchemaError, EncodeError."""
        opened = self.opened
        codec = self._codec(topic)
        body, validated = codec.write(payload)
        now = opened.ports.now()
        message_id = new_id() if id is None else id
        wire = seal(
            body,
            prefix=opened.prefix,
            id=message_id,
            source=self.settings.service,
            type=codec.schema_name,
            now=now,
            content_type=codec.content_type,
            key=topic.key_of(validated) if key is None else key,
            headers=headers,
            due=now + delay if delay else None,
            left=left_over(delay, exact=opened.backend.capabilities.exact_delay) if delay else 0.0,
        )
        if codec.writes_nothing(validated, body):
            wire = replace(wire, properties=NOTHING)
        return Outgoing(wire, topic.name, delay=delay, labels={"id": message_id})

    # ---- the rest

    def consumer(
        self, topic: Topic[T], group: str, retry: Retry | None, ordering: Literal["key", "none"], prefetch: int
    ) -> AsyncConsumer[T]:
        """As App.consumer."""
        opened = self.opened
        topic_of(topic, "consumer")
        whole(prefetch, "prefetch", ConfigurationError)
        if prefetch < 1:
            raise ConfigurationError(f"prefetch is how many messages a consumer has, at least 1, not {prefetch}")
        options: SubscribeOptions = {
            "retry": retry,
            "ordering": ordering,
            "concurrency": 1,
            "prefetch": prefetch - 1,
            "grace": 0.0,
        }
        handler = self._handler(opened, self.registrations.made(topic, group, by_consumer, options))
        need = TopicNeed(topic.name, frozenset((group,)), topic.options)
        return AsyncConsumer(
            handler,
            opened.ports,
            partial(self._pump, opened, handler),
            partial(settled, opened.backend, Topology((need,)), declare=self.settings.declare),
        )

    def dead_letters(self, topic: Topic[Any] | str, group: str) -> AsyncDeadLetters:
        """As AsyncApp.dead_letters."""
        opened = self.opened
        return AsyncDeadLetters(
            backend=opened.backend,
            producer=opened.producer,
            ports=opened.ports,
            topic=name_of(topic),
            group=group,
            timeout=self.settings.publish_timeout,
        )

    def _codec(self, topic: Topic[T]) -> "TopicCodec[T]":
        try:
            return self._codecs[topic]
        except (KeyError, TypeError):  # not seen before, or no topic at all
            codec = self._codecs[topic] = self.plugins.codecs.bind(topic_of(topic, "publish"))
            return codec

    def _timeout(self, timeout: Duration | None) -> float:
        return self.settings.publish_timeout if timeout is None else seconds(timeout, option="timeout")

    def _handler(self, opened: Opened, registration: Registration) -> Handler:
        return Handler(
            topic=registration.topic, group=registration.group, function=registration.function,
            options=registration.options, codec=self._codec(registration.topic),
            around=Around(registration.middleware), ports=opened.ports, prepare=self.prepare,
            publish=registration.publish, max_body_bytes=self.settings.max_body_bytes,
        )  # fmt: skip

    def _pump(self, opened: Opened, handler: Handler, runner: MakeRunner = Workers) -> Pump:
        settings = self.settings
        grace = handler.options.grace
        topology = Topology((TopicNeed(handler.topic.name, frozenset((handler.group,)), handler.topic.options),))
        return Pump(
            backend=opened.backend,
            handler=handler,
            producer=opened.producer,
            ports=opened.ports,
            emit=self._emit,
            service=f"{settings.service} {settings.version}".strip(),
            grace=settings.grace if grace is None else grace,
            declare=partial(declared, opened.backend, topology) if settings.declare else None,
            runner=runner,
            heard=partial(bool, self.listeners),
        )

    def _emit(self, event: Event) -> None:
        if self.listeners and self._ports is not None:
            self._ports.announce(partial(self.listeners.tell, event))

    def _died(self, name: str, error: Exception) -> None:
        """A job of the app has ended that should not: nothing may idle on as if it were there."""
        log.critical("%s met an error in mqkit itself and ended, so the app cannot go on", name, exc_info=error)
        self.failure = self.failure or error
        if self.on_failure is not None:
            self.on_failure()

    def _producer_changed(self, error: MqkitError | None) -> None:
        if error is None:
            log.warning("publishing goes on: connected again")
            self._emit(Event("connected"))
        else:
            log.warning("publishing waits: %s", error)
            self._emit(Event("disconnected", detail=str(error)))
