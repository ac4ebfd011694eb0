"""What travels: the message a handler sees, the bytes a broker carries, and the two directions between them.

Facts only, frozen; how a `Message` becomes a `WireMessage` is `envelope.py`. Imports nothing of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def passing(cls: type[T]) -> type[T]:
    """A slotted dataclass that is frozen for type checkers alone: at run time it would take three times as long.

    For what is made for each message, and is not the user's to change.
    """
    return dataclass(slots=True)(cls)


HeaderValue: TypeAlias = (
    "str | bytes | int | float | bool | datetime | Decimal | Sequence[HeaderValue] | Mapping[str, HeaderValue] | None"
)
"""What brokers can carry in a header. mqkit itself writes only `str`; the rest comes from other clients.
A header that a broker lets occur more than once (Kafka) is a list of its values."""

Headers: TypeAlias = Mapping[str, HeaderValue]

NO_HEADERS: Headers = MappingProxyType({})
NO_BODY = "kafka-null"
"""The property of a message that says nothing, where the broker has a way of its own to say so: Kafka's null."""
NOTHING: Headers = MappingProxyType({NO_BODY: True})
"""The properties of such a message."""


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """One message as a handler and a middleware see it."""

    payload: T
    """The decoded and validated body."""
    id: str
    """The same on every attempt, in every group, and after a replay."""
    topic: str
    group: str
    key: str | None = None
    """What ordering goes by. Bytes that are not UTF-8 come as surrogate escapes."""
    headers: Headers = field(default_factory=lambda: NO_HEADERS)
    """What the publisher added; neither CloudEvents attributes nor mqkit's bookkeeping."""
    attempt: int = 1
    """Which call of the handler this is, counted from 1 across processes and restarts."""
    type: str | None = None
    """CloudEvents `type`: the schema's name at the publisher."""
    source: str | None = None
    """CloudEvents `source`: who published it."""
    time: datetime | None = None
    """When it was published, if the publisher said so."""
    content_type: str | None = None
    body: bytes = b""
    """The bytes as the broker had them."""


@passing
class WireMessage:
    """Bytes and headers as a broker carries them. An adapter never reads the body and adds nothing to the headers."""

    body: bytes
    headers: Headers = field(default_factory=lambda: NO_HEADERS)
    key: bytes | None = None
    content_type: str | None = None
    """In the broker's own place for it: AMQP's property, Kafka's `content-type` header."""
    id: str | None = None
    """In the broker's own place for it (AMQP's `message_id`), where it has one; else None when received."""
    properties: Headers = field(default_factory=lambda: NO_HEADERS)
    """What else the broker carries beside headers (AMQP's correlation_id, type, priority ...): copies keep it."""


@passing
class Delivery:
    """One message handed to one member of one group, not settled yet."""

    message: WireMessage
    token: object
    """What `Receiver.settle` takes. Only the adapter that made it looks inside; it names the epoch it belongs to."""
    topic: str
    group: str
    origin: str = ""
    """Where it lay, for people: `purchases[3]@1042`, `queue purchases.billing`. The same at every redelivery, if the
    broker can say so."""
    returned: bool = False
    """It came by this group's own way back (a retry or a replay), so its `mqkit-` headers were written by mqkit.
    False for all that came through the topic, whatever its headers claim."""
    redelivered: int = 0
    """How often whoever had it was lost with it, as far as the broker knows; 0 where it does not count. RabbitMQ before
    4.3 counts what was given back in order, too."""
    spent: int = 0
    """Attempts that happened in place, in sessions before this one: what `Receiver.note` kept; 0 if nothing was."""
    unique: bool = False
    """`origin` names this one message and no other (Kafka's offset, SQLite's row): good enough for a missing id."""


@passing
class Outgoing:
    """One message on its way to the broker, and where to.

    `group=None`: to the topic, so to each of its groups. With a group: to that group alone, by its way back
    (retry, replay). `dead=True`: into that group's dead letters.
    """

    message: WireMessage
    topic: str
    group: str | None = None
    dead: bool = False
    delay: float = 0.0
    """Seconds that it stays out of sight, kept by the broker. An adapter may cut it short to one step (`topology.step`)
    if its capabilities say so: what is left then stands in the `mqkit-left` header, and whoever receives it sends it
    on its way again."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For people and events: not sent."""
