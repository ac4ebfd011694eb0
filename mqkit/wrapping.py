"""The last resort for a copy that no broker would store as it is: all that its publisher wrote, inside of its body.

A wrapped message has the content type `application/vnd.mqkit.wrapped` and the header `mqkit-wrapped`, which names the
compression: `zlib` (RFC 1950) or `xz`. Decompressed, the body is one line of JSON, `[headers, properties, key, content
type, id]`, and behind it the original body, byte for byte. In that JSON text, numbers, true, false and null stand for
themselves; each other value is a list of a tag and its text or items. mqkit's own headers stay outside. Pure.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from mqkit.attributes import OWN, PREFIXES
from mqkit.envelope import LONGEST_NAME
from mqkit.errors import AuthenticationFailed, BackendError, MessageError, MqkitError, Unroutable
from mqkit.message import Delivery, HeaderValue, WireMessage

WRAPPED: Final = "mqkit-wrapped"
CONTENT_TYPE: Final = "application/vnd.mqkit.wrapped"
LARGEST: Final = 1 << 30
"""Bytes that are unwrapped at most: more is no message, but an attack."""
Compression: TypeAlias = Literal["zlib", "xz"]
COMPRESSIONS: Final[tuple[Compression, ...]] = ("zlib", "xz")
"""`xz` is smaller, and takes ten times as long."""


def wrap(message: WireMessage, compression: Compression) -> WireMessage:
    """`message` with its user's headers, properties, content type and body inside of a compressed body.

    Its id stays outside as well, and its key, if they are short: people and brokers look at them.
    """
    headers = message.headers
    inner = {name: value for name, value in headers.items() if not name.startswith(OWN)}
    outer: dict[str, HeaderValue] = {name: value for name, value in headers.items() if name.startswith(OWN)}
    for name in (prefix + "id" for prefix in PREFIXES):
        value = inner.get(name)
        if isinstance(value, str) and len(value) <= LONGEST_NAME:
            outer[name] = value
    outer[WRAPPED] = compression
    facts = [inner, message.properties, message.key, message.content_type, message.id]
    head = json.dumps([_pack(fact) for fact in facts], separators=(",", ":")).encode()
    key = message.key if message.key is not None and len(message.key) <= LONGEST_NAME else None
    return WireMessage(_squeeze(head + b"\n" + message.body, compression), outer, key, CONTENT_TYPE, message.id)


def unwrapped(delivery: Delivery) -> Delivery:
    """`delivery` as it was before `wrap`, if it was wrapped and came by the group's own way back; else itself."""
    message = delivery.message
    compression = message.headers.get(WRAPPED)
    if not delivery.returned or compression is None:
        return delivery
    import lzma  # rarely needed, and slow to import
    import zlib

    try:
        head, _, body = _expand(message.body, str(compression)).partition(b"\n")
        inner, properties, key, content_type, identity = map(_unpack, json.loads(head))
        own = {name: value for name, value in message.headers.items() if name.startswith(OWN) and name != WRAPPED}
        found = WireMessage(body, {**inner, **own}, key, content_type, identity, properties)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, zlib.error, lzma.LZMAError):
        return delivery  # not ours after all: it is read as what it is
    return replace(delivery, message=found)


def lies_in_the_form(error: MqkitError) -> bool:
    """Whether the same message in another form may be taken."""
    if isinstance(error, BackendError):
        return not error.retryable and not isinstance(error, (Unroutable, AuthenticationFailed))
    return isinstance(error, MessageError)


def _squeeze(data: bytes, compression: Compression) -> bytes:
    if compression == "zlib":
        import zlib

        return zlib.compress(data)
    import lzma

    return lzma.compress(data)


def _expand(data: bytes, compression: str) -> bytes:
    """Raises ValueError for more than LARGEST bytes, or an unknown compression."""
    if compression == "zlib":
        import zlib

        inflater = zlib.decompressobj()
        found, whole = inflater.decompress(data, LARGEST), inflater.eof
    elif compression == "xz":
        import lzma

        expander = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        found, whole = expander.decompress(data, LARGEST), expander.eof
    else:
        raise ValueError(f"unknown compression {compression!r}")
    if not whole:
        raise ValueError("cut off, or too large")
    return found


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _pack(value: HeaderValue) -> Any:
    """As JSON that keeps types."""
    match value:
        case None | bool():
            return value
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:  # JSON would join two lone surrogates into one character
                return ["text", b64encode(_text(value)).decode()]
            return value
        case int():
            return ["int", hex(value)]  # Python refuses to read very long decimal ones
        case float():
            return ["float", value.hex()]
        case bytes() | bytearray() | memoryview():
            return ["bytes", b64encode(value).decode()]
        case datetime():
            return ["time", value.isoformat()]
        case Decimal():
            return ["decimal", str(value)]
        case Mapping():
            return ["map", [[_pack(name), _pack(item)] for name, item in value.items()]]
        case Sequence():
            return ["list", [_pack(item) for item in value]]
    raise TypeError(f"a header cannot be of type {type(value).__name__}")


def _unpack(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    tag, inner = value
    match tag:
        case "text":
            return b64decode(inner).decode("utf-8", "surrogatepass")
        case "int":
            return int(inner, 16)
        case "float":
            return float.fromhex(inner)
        case "bytes":
            return b64decode(inner)
        case "time":
            return datetime.fromisoformat(inner)
        case "decimal":
            return Decimal(inner)
        case "map":
            return {_unpack(name): _unpack(item) for name, item in inner}
        case "list":
            return [_unpack(item) for item in inner]
    raise ValueError(f"unknown tag {tag!r}")
