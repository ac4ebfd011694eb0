"""Binds a user's function to a topic and group, and turns one delivery into one verdict.

The order matters: envelope, due time, body, then middleware and function. What cannot be read is a verdict before any
of the user's code could swallow it. Nothing here talks to the broker.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mqkit.arguments import whole
from mqkit.attributes import identity
from mqkit.callables import function_name
from mqkit.envelope import Envelope, key_text, unseal
from mqkit.errors import (
    ConfigurationError,
    DecodeError,
    EnvelopeError,
    MessageError,
    MessageTooLarge,
    MqkitError,
    SchemaError,
    Unroutable,
)
from mqkit.exits import contained
from mqkit.message import Delivery, Message, Outgoing
from mqkit.middleware import Around
from mqkit.ports import HandlerTimeout, Job, Ports
from mqkit.retry import Retry, decide, failure
from mqkit.signature import takes_message, unusable_result
from mqkit.topic import Topic
from mqkit.verdict import Again, DeadLetter, Done, Failure, Postpone, Release, Verdict

if TYPE_CHECKING:
    from mqkit.codec import TopicCodec  # brings pydantic along

UNREADABLE: dict[type[MessageError], str] = {
    EnvelopeError: "envelope",
    DecodeError: "undecodable",
    SchemaError: "schema",
    MessageTooLarge: "too-large",
}
PREFETCH = 250
"""Messages that may wait in a process. RabbitMQ's documentation finds 100 to 300 best; Spring AMQP has 250, too."""
PREFETCH_BYTES = 64 * 1024 * 1024
"""Bytes of bodies that may be in a process, running and waiting."""
LOST_WORKERS = 3
"""Workers that may be lost while a message, and nothing else, had just begun."""
DONE = Done()
PATIENCE = 1.0
"""Seconds before a handler that met a broken broker is called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """How a group works at a topic. Every field can be overridden by configuration."""

    retry: Retry = field(default_factory=Retry)
    ordering: Literal["key", "none"] = "none"
    concurrency: int = 10
    prefetch: int = PREFETCH
    prefetch_bytes: int = PREFETCH_BYTES
    timeout: float | None = None
    grace: float | None = None
    lost_workers: int = LOST_WORKERS

    def __post_init__(self) -> None:
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry is a policy, as in Retry(attempts=3), not {self.retry!r}")
        for option in ("concurrency", "prefetch", "prefetch_bytes", "lost_workers"):
            whole(getattr(self, option), option, ConfigurationError)
        if self.concurrency < 1:
            raise ConfigurationError(f"concurrency is a number of handlers of at least 1, not {self.concurrency}")
        if self.prefetch < 0:
            raise ConfigurationError(f"prefetch is a number of waiting messages, not {self.prefetch}")
        if self.prefetch_bytes < 1:
            raise ConfigurationError(f"prefetch_bytes is a number of bytes, at least 1, not {self.prefetch_bytes}")
        if self.lost_workers < 1:
            raise ConfigurationError(f"lost_workers is a number of workers of at least 1, not {self.lost_workers}")
        if self.ordering not in ("key", "none"):
            raise ConfigurationError(f"ordering is 'key' or 'none', not {self.ordering!r}")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigurationError(f"timeout is a number of seconds above 0, not {self.timeout}")


Form: TypeAlias = Literal["full", "slim", "wrapped", "squeezed"]
"""How the copy of a message is written: with all that is known, with little, or inside of its own body."""


@dataclass(slots=True)
class Outcome:
    """What became of one delivery, and what is known about it."""

    delivery: Delivery
    verdict: Verdict
    id: str
    attempt: int
    """Which attempt this was; 0 if the handler was not called."""
    seconds: float = 0.0
    envelope: Envelope | None = None
    epoch: int = 0
    """Of the receiver's session."""
    form: Form = "full"
    """Of its copy, if it needs one."""
    failed: tuple[float, float] | None = None
    """When attempts at this delivery failed, the first and the last, in seconds since the epoch; None if none did."""
    still: Job | None = None
    """Where the function runs on, if it took too long and could not be stopped."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a delivery says."""

    delivery: Delivery
    envelope: Envelope
    payload: Any
    attempt: int
    """Which one this is."""


@dataclass(slots=True, kw_only=True)
class Handler:
    """One subscription: a function, the topic and group it works for, and how."""

    topic: Topic[Any]
    group: str
    function: Callable[..., Any]
    options: HandlerOptions
    codec: "TopicCodec[Any]"
    around: Around
    ports: Ports
    prepare: Callable[[Topic[Any], Any], Outgoing]
    """Makes an outgoing message of a payload; for what the function returns."""
    publish: Topic[Any] | None = None
    max_body_bytes: int = 16 * 1024 * 1024
    wants_message: bool = field(init=False)
    shows_message: bool = field(init=False)
    """Whether anybody of the user's sees the message, and not only its payload: else none is made."""

    def __post_init__(self) -> None:
        self.wants_message = takes_message(self.function)
        self.shows_message = self.wants_message or bool(self.around)

    @property
    def name(self) -> str:
        """Of the function, for people: `shop.bill`."""
        return function_name(self.function)

    async def process(self, delivery: Delivery, spent: int = 0, lost: int = 0) -> Outcome:
        """One attempt, or why there was none. Never raises Exception. Arguments as in read."""
        reading = self.read(delivery, spent, lost)
        if isinstance(reading, Outcome):
            return reading
        attempt, ports = reading.attempt, self.ports
        still: Job | None = None
        started = ports.monotonic()
        try:
            if self.shows_message:
                result = await self._show(reading)
            else:
                result = await ports.call(self.function, (reading.payload,), self.options.timeout)
            verdict = DONE if result is None else self._done(result)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes a verdict
            verdict = self.judge(error, attempt)
            if isinstance(error, HandlerTimeout):
                still = error.still
        except BaseException as error:
            if ports.ends_all(error):
                raise
            verdict = self.judge(contained(error), attempt)
        seconds = ports.monotonic() - started
        return Outcome(delivery, verdict, reading.envelope.id, attempt, seconds, reading.envelope, still=still)

    def read(self, delivery: Delivery, spent: int = 0, lost: int = 0) -> "Reading | Outcome":
        """What a delivery says, ready for an attempt; or what becomes of it without one.

        Args:
            spent: attempts that happened in place before.
            lost: attempts that were begun in place, with workers that were never heard of again.
        """
        now = self.ports.now()
        try:
            envelope = unseal(delivery, now=now, largest=self.max_body_bytes)
        except MessageError as error:
            return Outcome(delivery, self._unreadable(error), identity(delivery), 0)
        if envelope.left > 0 and not spent:
            return Outcome(delivery, Postpone(envelope.left), envelope.id, 0, envelope=envelope)
        before = envelope.attempts + spent + lost
        if lost and (lost >= self.options.lost_workers or before >= self.options.retry.attempts):
            return Outcome(delivery, _worker_lost(delivery, lost), envelope.id, before, envelope=envelope)
        try:
            payload = self._payload(delivery, envelope)
        except MessageError as error:
            return Outcome(delivery, self._unreadable(error), envelope.id, 0, envelope=envelope)
        except Exception as error:  # noqa: BLE001 - the schema's own code failed, as a handler may
            return Outcome(delivery, self.judge(error, before + 1), envelope.id, before + 1, envelope=envelope)
        return Reading(delivery, envelope, payload, before + 1)

    def judge(self, error: Exception, attempt: int) -> Verdict:
        """What becomes of a message whose attempt ended with `error`."""
        if isinstance(error, MqkitError) and not isinstance(error, (MessageError, Unroutable)):
            # the broker's fault, ours or the service's: the message pays nothing for it
            return Again(PATIENCE, failure(error), counted=False)
        if isinstance(error, HandlerTimeout):
            error = TimeoutError(str(error))  # people and policies know it by its built-in name
        return decide(self.options.retry, error, attempt, self.ports.draw())

    def released(self, delivery: Delivery) -> Outcome:
        """The outcome of a delivery that is given back, whatever state it is in."""
        return Outcome(delivery, Release(), identity(delivery), 0)

    def _unreadable(self, error: MessageError) -> DeadLetter:
        return DeadLetter(UNREADABLE.get(type(error), "undecodable"), failure(error))

    def message(self, reading: Reading) -> Message[Any]:
        """What was read, as handlers that ask for it, middleware and consumers see it."""
        wire, envelope = reading.delivery.message, reading.envelope
        return Message(
            payload=reading.payload,
            id=envelope.id,
            topic=self.topic.name,
            group=self.group,
            key=key_text(wire.key),
            headers=envelope.headers,
            attempt=reading.attempt,
            type=envelope.type,
            source=envelope.source,
            time=envelope.time,
            content_type=envelope.content_type,
            body=wire.body,
        )

    def _payload(self, delivery: Delivery, envelope: Envelope) -> Any:
        size = len(delivery.message.body)
        if size > self.max_body_bytes:
            raise MessageTooLarge(size, self.max_body_bytes, "this app (max_body_bytes)")
        if envelope.body is None:
            return self.codec.absent()
        return self.codec.decode(envelope.body, envelope.content_type, envelope.encoding, self.max_body_bytes)

    async def _show(self, reading: Reading) -> Any:
        """What the function returns, called with the message, or inside of middleware that sees it."""
        message = self.message(reading)
        args: Sequence[Any] = (message.payload, message) if self.wants_message else (message.payload,)
        if not self.around:
            return await self.ports.call(self.function, args, self.options.timeout)
        async with AsyncExitStack() as stack:
            await self.around.enter(stack, message)
            return await self.ports.call(self.function, args, self.options.timeout)

    def _done(self, result: Any) -> Verdict:
        """What becomes of a message whose function returned something."""
        if wrong := unusable_result(result):
            raise TypeError(f"handler {self.name} returned {wrong}")
        if self.publish is None:
            return DONE
        return Done((self.prepare(self.publish, result),))


def _worker_lost(delivery: Delivery, lost: int) -> DeadLetter:
    text = (
        f"{lost} times a worker began with this message alone and was never heard of again: its process ended, or its "
        f"event loop was blocked for so long that the broker gave it up; with {delivery.redelivered} deliveries in all"
    )
    return DeadLetter("worker-lost", Failure("WorkerLost", text))
