"""WireMessage to AMQP properties and headers, and back. Pure.

The key is a header, `cloudEvents_partitionkey`, because the routing key is taken by the way back through the default
exchange; a stranger's message has its routing key as key. What the broker writes into headers (x-death, its counts)
is left out, so that copies neither carry nor grow it. Copies leave out what would lose or misroute them: expiration,
user id, CC.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from struct import Struct

from mqkit.backends.rabbitmq.fields import (
    MALFORMED,
    UINT64,
    decode_table,
    encode_short,
    encode_table,
    encode_timestamp,
    timestamp,
)
from mqkit.errors import EncodeError
from mqkit.message import HeaderValue, WireMessage, passing

KEY = "cloudEvents_partitionkey"
PERSISTENT = b"\x02"
CONTENT = Struct(">HHQH")
"""Class, weight, size of the body, and which properties follow."""

CONTENT_TYPE, HEADERS, DELIVERY_MODE, MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7
NAMES: tuple[tuple[int, str], ...] = (
    (CONTENT_TYPE, "content_type"),
    (1 << 14, "content_encoding"),
    (HEADERS, "headers"),
    (DELIVERY_MODE, "delivery_mode"),
    (1 << 11, "priority"),
    (1 << 10, "correlation_id"),
    (1 << 9, "reply_to"),
    (1 << 8, "expiration"),
    (MESSAGE_ID, "message_id"),
    (1 << 6, "timestamp"),
    (1 << 5, "type"),
    (1 << 4, "user_id"),
    (1 << 3, "app_id"),
    (1 << 2, "cluster_id"),
)
"""In the order in which they are on the wire."""
SENT = frozenset({"content_encoding", "priority", "correlation_id", "reply_to", "timestamp", "type", "app_id"})
"""Properties that copies keep. expiration could drop a copy that waits; user_id is refused unless it is our own."""
ROUTING = frozenset({"CC", "BCC"})
"""Headers that send a message elsewhere too."""
COUNT, ACQUIRED = "x-delivery-count", "x-acquired-count"
BROKERS = frozenset({"x-death", COUNT, ACQUIRED})
BROKERS_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-rabbitmq-")
UNREADABLE = "amqp-headers"
"""The header that holds a header table which is none."""


@passing
class Content:
    """What stood in a content header."""

    headers: dict[str, HeaderValue]
    properties: dict[str, HeaderValue]


def encode(message: WireMessage) -> bytes:
    """The payload of the content header frame of `message`, persistent.

    Raises:
        EncodeError: something that AMQP cannot carry; the text names it.
    """
    flags = HEADERS | DELIVERY_MODE
    parts: list[bytes] = []
    if message.content_type is not None:
        flags |= CONTENT_TYPE
        parts.append(_content_type(message.content_type))
    properties = message.properties
    if not properties:
        parts += (_headers(message), PERSISTENT)
        if message.id is not None:
            flags |= MESSAGE_ID
            parts.append(encode_short(message.id, "the message id"))
        return b"".join((CONTENT.pack(60, 0, len(message.body), flags), *parts))
    for flag, name in NAMES[1:]:
        if flag == HEADERS:
            parts.append(_headers(message))
        elif flag == DELIVERY_MODE:
            parts.append(PERSISTENT)
        elif flag == MESSAGE_ID:
            if message.id is not None:
                flags |= flag
                parts.append(encode_short(message.id, "the message id"))
        elif name in SENT and properties.get(name) is not None:
            flags |= flag
            parts.append(_property(name, properties[name]))
    return b"".join((CONTENT.pack(60, 0, len(message.body), flags), *parts))


@lru_cache(256)
def _content_type(name: str) -> bytes:
    return encode_short(name, "the content type")


def _headers(message: WireMessage) -> bytes:
    headers = message.headers
    for name in ROUTING:
        if name in headers:
            raise EncodeError(f"the header {name!r} would send the message to other queues too: use another name")
    if message.key is None:
        return encode_table(headers)
    try:
        key: HeaderValue = message.key.decode()
    except UnicodeDecodeError:
        key = message.key
    return encode_table({**headers, KEY: key})


def _property(name: str, value: HeaderValue) -> bytes:
    if name == "priority":
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise EncodeError(f"the priority is a number from 0 to 255, not {value!r}")
        return bytes((value,))
    if name == "timestamp":
        if not isinstance(value, (datetime, int)):
            raise EncodeError(f"the property 'timestamp' is a time, not {value!r}")
        return encode_timestamp(value, name)
    if not isinstance(value, str):
        raise EncodeError(f"the property {name!r} is text, not {value!r}")
    return encode_short(value, f"the property {name!r}")


def decode(payload: bytes) -> Content:
    """The properties and headers in the payload of a content header frame.

    Never raises for what RabbitMQ lets through; a header table that cannot be read is one header of its bytes.
    """
    flags = CONTENT.unpack_from(payload)[3]
    at = CONTENT.size
    headers: dict[str, HeaderValue] = {}
    properties: dict[str, HeaderValue] = {}
    for name in _present(flags):
        if name == "headers":
            end = at + 4 + int.from_bytes(payload[at : at + 4])
            try:
                headers = decode_table(payload, at)
            except MALFORMED:
                headers = {UNREADABLE: payload[at + 4 : end]}
            at = end
        elif name in {"delivery_mode", "priority"}:
            properties[name] = payload[at]
            at += 1
        elif name == "timestamp":
            properties[name] = timestamp(UINT64.unpack_from(payload, at)[0])
            at += 8
        else:
            end = at + 1 + payload[at]
            properties[name] = payload[at + 1 : end].decode("utf-8", "surrogateescape")
            at = end
    return Content(headers, properties)


@lru_cache(256)
def _present(flags: int) -> tuple[str, ...]:
    """Which properties follow."""
    return tuple(name for flag, name in NAMES if flags & flag)


def message_id(payload: bytes) -> str | None:
    """The message id in the payload of a content header frame."""
    found = decode(payload).properties.get("message_id")
    return found if isinstance(found, str) else None


def message(content: Content, body: bytes, routing_key: str | None) -> WireMessage:
    """What was received; `routing_key` only where a publisher chose it."""
    headers, properties = content.headers, content.properties
    key: bytes | None = None
    carried = headers.get(KEY)
    if isinstance(carried, str):
        del headers[KEY]
        key = carried.encode("utf-8", "surrogateescape")
    elif isinstance(carried, bytes):
        del headers[KEY]
        key = carried
    elif routing_key:
        key = routing_key.encode("utf-8", "surrogateescape")
    for name in [name for name in headers if name.startswith("x-")]:
        if name in BROKERS or name.startswith(BROKERS_PREFIXES):
            del headers[name]
    for name in ROUTING:
        if name in headers:
            properties[name] = headers.pop(name)
    content_type = properties.pop("content_type", None)
    identity = properties.pop("message_id", None)
    properties.pop("delivery_mode", None)
    return WireMessage(
        body,
        headers,
        key,
        content_type if isinstance(content_type, str) else None,
        identity if isinstance(identity, str) else None,
        properties,
    )


def redeliveries(headers: Mapping[str, HeaderValue], *, redelivered: bool) -> int:
    """How often the broker knows a delivery to have ended without being settled.

    x-delivery-count: RabbitMQ 4.3 counts there what failed (a lost connection, a closed channel) and not what was
    given back; 4.0 counts both. A publisher may write what it likes: believed only if the broker says that it was
    delivered before, and no more than it says to have handed it out (x-acquired-count, 4.3).
    """
    count, acquired = headers.get(COUNT), headers.get(ACQUIRED)
    if not redelivered or not isinstance(count, int):
        return 0
    return min(count, acquired) if isinstance(acquired, int) else count
