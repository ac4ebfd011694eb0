"""AMQP field tables, to values and back, without losing a type or a bit. Pure.

Written here because the client libraries read what they cannot write (bytes in a long string), write less than they
read (doubles as floats, names cut at 128 bytes) and give up the connection over what a stranger may send (a time
stamp in milliseconds, text that is not UTF-8). What RabbitMQ lets through is read here, whatever it is.
"""

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct

from mqkit.errors import EncodeError
from mqkit.message import HeaderValue

DEEPEST = 32
"""Levels of tables and arrays within each other that are read; deeper ones stay as their bytes."""

LONG_STRING = ord("S")
UINT32 = Struct(">I")
INT32 = Struct(">i")
INT64 = Struct(">q")
UINT64 = Struct(">Q")
DOUBLE = Struct(">d")
SCALED = Struct(">Bi")
TEXT = Struct(">BI")
"""What stands before a text: its type, and how many bytes it has."""
NUMBERS = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): INT32,
    ord("i"): UINT32,
    ord("l"): INT64,
    ord("L"): INT64,
    ord("f"): Struct(">f"),
    ord("d"): DOUBLE,
}
MALFORMED = (ValueError, IndexError, ArithmeticError, struct.error)
"""What reading raises over bytes that are no table."""
LATEST = 253_402_300_799
"""The last second of the year 9999."""


class Timestamp(int):
    """A time stamp that is no date: milliseconds, most likely. Kept as the number that came."""

    __slots__ = ()


def timestamp(number: int) -> datetime | Timestamp:
    """What an AMQP time stamp means: seconds since 1970, if that can be."""
    return datetime.fromtimestamp(number, tz=UTC) if number <= LATEST else Timestamp(number)


def decode_table(data: bytes, start: int = 0, depth: int = 0) -> dict[str, HeaderValue]:
    """The table that begins with its length at `start`.

    Raises:
        one of MALFORMED: this is no table.
    """
    end = start + 4 + UINT32.unpack_from(data, start)[0]
    if end > len(data):
        raise ValueError("a field table that ends too early")
    at = start + 4
    table: dict[str, HeaderValue] = {}
    while at < end:
        value_at = at + 1 + data[at]
        name = data[at + 1 : value_at].decode("utf-8", "surrogateescape")
        if data[value_at] == LONG_STRING:  # as nearly every header is
            begin = value_at + 5
            at = begin + UINT32.unpack_from(data, value_at + 1)[0]
            table[name] = data[begin:at].decode("utf-8", "surrogateescape")
        else:
            table[name], at = _decode(data, value_at, depth)
    return table


def _decode(data: bytes, at: int, depth: int) -> tuple[HeaderValue, int]:
    """The value whose type stands at `at`, and where the next begins."""
    kind = data[at]
    at += 1
    if kind == LONG_STRING:
        end = at + 4 + UINT32.unpack_from(data, at)[0]
        return data[at + 4 : end].decode("utf-8", "surrogateescape"), end
    if kind in NUMBERS:
        form = NUMBERS[kind]
        return form.unpack_from(data, at)[0], at + form.size
    if kind == 0x74:  # t: a boolean
        return data[at] != 0, at + 1
    if kind == 0x56:  # V: nothing
        return None, at
    if kind == 0x54:  # T: a time stamp
        return timestamp(UINT64.unpack_from(data, at)[0]), at + 8
    if kind == 0x44:  # D: a decimal
        scale, mantissa = SCALED.unpack_from(data, at)
        return Decimal(mantissa).scaleb(-scale), at + 5
    if kind not in b"xFA":
        raise ValueError(f"a field of the unknown type {chr(kind)!r}")
    end = at + 4 + UINT32.unpack_from(data, at)[0]
    if kind == 0x78 or depth >= DEEPEST:  # x: bytes
        return data[at + 4 : end], end
    if kind == 0x46:  # F: a table
        return decode_table(data, at, depth + 1), end
    values: list[HeaderValue] = []
    at += 4
    while at < end:
        value, at = _decode(data, at, depth + 1)
        values.append(value)
    return values, end


def encode_short(text: str, what: str) -> bytes:
    """`text` as a short string.

    Raises:
        EncodeError: longer than 255 bytes, or not to be written as UTF-8; `what` says whose it is.
    """
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"{what} cannot be written as UTF-8: {error.reason}") from error
    if len(data) > 255:
        raise EncodeError(f"{what} is {len(data)} bytes long; RabbitMQ takes 255")
    return bytes((len(data),)) + data


def encode_table(table: Mapping[str, HeaderValue]) -> bytes:
    """`table` with its length before it.

    Raises:
        EncodeError: a name or value that AMQP cannot carry; the text names the header.
    """
    parts: list[bytes] = []
    for name, value in table.items():
        if isinstance(value, str):  # as nearly every header is
            text = value.encode() if value.isascii() else _text(value, name)
            parts += (_name(name), TEXT.pack(LONG_STRING, len(text)), text)
        else:
            parts += (_name(name), encode_value(value, name))
    data = b"".join(parts)
    return UINT32.pack(len(data)) + data


@lru_cache(1024)
def _name(name: str) -> bytes:
    """The same few come with every message."""
    return encode_short(name, f"the header name {name!r}")


def encode_value(value: HeaderValue, name: str) -> bytes:
    """`value` with its type before it; `name` is for the error.

    Raises:
        EncodeError: AMQP cannot carry it.
    """
    if isinstance(value, str):
        text = _text(value, name)
        return TEXT.pack(LONG_STRING, len(text)) + text
    if value is None:
        return b"V"
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, Timestamp):
        return b"T" + UINT64.pack(value)
    if isinstance(value, int):
        if -0x8000_0000 <= value <= 0x7FFF_FFFF:
            return b"I" + INT32.pack(value)
        if -(2**63) <= value < 2**63:
            return b"l" + INT64.pack(value)
        raise EncodeError(f"the header {name!r}: {value} does not fit into AMQP's 64 bits")
    if isinstance(value, float):
        return b"d" + DOUBLE.pack(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"x" + UINT32.pack(len(value)) + bytes(value)
    if isinstance(value, datetime):
        return b"T" + encode_timestamp(value, name)
    if isinstance(value, Decimal):
        return b"D" + _scaled(value, name)
    if isinstance(value, Mapping):
        return b"F" + encode_table(value)
    if isinstance(value, Sequence):
        data = b"".join(encode_value(item, name) for item in value)
        return b"A" + UINT32.pack(len(data)) + data
    raise EncodeError(f"the header {name!r}: RabbitMQ cannot carry a {type(value).__name__}")


def _text(value: str, name: str) -> bytes:
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"the header {name!r} cannot be written as UTF-8: {error.reason}") from error


def encode_timestamp(value: datetime | int, name: str) -> bytes:
    """Whole seconds since 1970; a time without a zone is taken for UTC.

    Raises:
        EncodeError: before 1970.
    """
    if isinstance(value, datetime):
        value = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if not 0 <= value < 2**64:
        raise EncodeError(f"{name!r}: AMQP's time stamps begin in 1970, this one is {value} seconds from there")
    return UINT64.pack(value)


def _scaled(value: Decimal, name: str) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and exponent > 0:
        digits, exponent = (*digits, *(0,) * exponent), 0
    mantissa = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    if not isinstance(exponent, int) or exponent < -255 or not -0x8000_0000 <= mantissa <= 0x7FFF_FFFF:
        raise EncodeError(f"the header {name!r}: {value} does not fit into AMQP's decimals (32 bits and a scale)")
    return SCALED.pack(-exponent, mantissa)
