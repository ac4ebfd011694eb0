"""WireMessage <-> the key, value and headers of a Kafka record. Pure.

A Kafka header is a name and bytes, or null; the same name may come several times. What is UTF-8 becomes `str`, all
else stays bytes; anything but text and bytes is written as text.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from json import dumps
from typing import TypeAlias

from mqkit.message import NO_BODY, NO_HEADERS, NOTHING, HeaderValue, WireMessage

Pairs: TypeAlias = list[tuple[str, str | bytes | None]]
"""Headers as the driver takes them."""

CONTENT_TYPE = "content-type"
NUL = "\0"
"""Where the driver ends a value that it is given as str; bytes it takes whole."""
BATCH_OVERHEAD = 61
"""Bytes of the header of a record batch, which counts against the broker's limit."""


def to_record(message: WireMessage) -> tuple[bytes | None, bytes | None, Pairs]:
    """(value, key, headers) of the record for `message`."""
    pairs: Pairs = []
    if message.content_type is not None:
        pairs.append((CONTENT_TYPE, _encoded(message.content_type)))
    for name, value in message.headers.items():
        if type(value) is str and value.isascii() and NUL not in value:  # nearly all: the rest must be looked at
            pairs.append((name, value))
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            pairs.extend((name, _encoded(item)) for item in value)
        else:
            pairs.append((name, _encoded(value)))
    value = None if message.properties and message.properties.get(NO_BODY) else message.body
    return value, message.key, pairs


def _encoded(value: HeaderValue) -> str | bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping | Sequence):
        return dumps(value, default=str)
    return str(value)


def from_record(
    value: bytes | None, key: bytes | None, headers: Iterable[tuple[str, bytes | str | None]] | None
) -> WireMessage:
    """The message that a record holds."""
    found: dict[str, HeaderValue] = {}
    repeated: dict[str, list[HeaderValue]] = {}
    content_type: str | None = None
    for name, raw in headers or ():
        text: str | bytes | None
        try:
            text = raw.decode() if isinstance(raw, bytes) else raw
        except UnicodeDecodeError:
            text = raw
        if name == CONTENT_TYPE and content_type is None and isinstance(text, str):
            content_type = text
        elif name not in found:
            found[name] = text
        elif name in repeated:
            repeated[name].append(text)
        else:
            found[name] = repeated[name] = [found[name], text]
    if value is None:
        return WireMessage(b"", found, key, content_type, None, NOTHING)  # so that a copy of it is null, too
    return WireMessage(value, found or NO_HEADERS, key, content_type)


def record_size(value: bytes | None, key: bytes | None, headers: Pairs) -> int:
    """Bytes that the record takes in a batch of its own, uncompressed: what a broker compares with its limit."""
    size = 1 + 1 + 1 + _field(key) + _field(value) + _varint(len(headers))
    for name, content in headers:
        size += _field(name.encode()) + _field(content.encode() if isinstance(content, str) else content)
    return BATCH_OVERHEAD + _varint(size) + size


def _field(content: bytes | None) -> int:
    return 1 if content is None else _varint(len(content)) + len(content)


def _varint(number: int) -> int:
    """Bytes of `number` as Kafka's zigzag variable-length integer."""
    return max(1, -(-(number << 1).bit_length() // 7))
