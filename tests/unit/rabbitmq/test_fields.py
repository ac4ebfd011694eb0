"""That what RabbitMQ lets through is read whatever it is, and written again as it was."""

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode as pamqp_decode

from mqkit.backends.rabbitmq.fields import DEEPEST, MALFORMED, Timestamp, decode_table, encode_table
from mqkit.errors import EncodeError
from mqkit.message import HeaderValue

names = st.text(max_size=40)
whole_seconds = st.integers(0, 253_402_300_799).map(lambda number: datetime.fromtimestamp(number, tz=UTC))
decimals = st.builds(
    lambda mantissa, scale: Decimal(mantissa).scaleb(-scale),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | whole_seconds
    | decimals
)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))


def typed(value: object) -> object:
    """A value with its types, as True == 1 == 1.0 == Decimal(1)."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), str(value) if isinstance(value, Decimal) else value


@given(st.dictionaries(names, values, max_size=6))
def test_what_was_written_is_read_with_its_types(table: dict[str, HeaderValue]) -> None:
    assert typed(decode_table(encode_table(table))) == typed(table)


@given(st.dictionaries(names, values, max_size=6))
def test_what_was_read_is_written_bit_by_bit(table: dict[str, HeaderValue]) -> None:
    data = encode_table(table)
    assert encode_table(decode_table(data)) == data


def table(*fields: bytes) -> bytes:
    data = b"".join(b"\x01" + b"n" + field for field in fields)
    return pack(">I", len(data)) + data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"t\x01", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"u\xff\xff", 65535),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f" + pack(">f", 0.5), 0.5),
        (b"d" + pack(">d", 0.1), 0.1),
        (b"D\x02\x00\x00\x00\x96", Decimal("1.50")),
        (b"D\x00\xff\xff\xff\xff", Decimal(-1)),
        (b"S\x00\x00\x00\x02\xff\xfe", "\udcff\udcfe"),
        (b"x\x00\x00\x00\x02hi", b"hi"),
        (b"T" + pack(">Q", 1), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (b"T" + pack(">Q", 1_763_716_800_123_456), Timestamp(1_763_716_800_123_456)),
        (b"T" + b"\xff" * 8, Timestamp(2**64 - 1)),
        (b"V", None),
    ],
)
def test_each_type_of_the_broker_is_read(field: bytes, value: object) -> None:
    found = decode_table(table(field))["n"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "field", [b"S\x00\x00\x00\x02\xff\xfe", b"x\x00\x00\x00\x01\xff", b"T" + b"\xff" * 8, b"D\x05\x80\x00\x00\x00"]
)
def test_what_the_client_library_cannot_keep_is_kept_bit_by_bit(field: bytes) -> None:
    assert encode_table(decode_table(table(field))) == table(field)


def test_a_name_of_255_bytes_is_kept() -> None:
    name = "ä" * 127 + "x"
    assert decode_table(encode_table({name: 1})) == {name: 1}


def test_a_doubles_last_bit_is_kept_where_the_client_library_writes_a_single() -> None:
    data = encode_table({"n": 0.1})
    assert pamqp_decode.field_table(data)[1] == {"n": 0.1}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"x" * 256: 1}, "255"),
        ({"n": 2**63}, "64 bits"),
        ({"n": Decimal(12345678901)}, "decimals"),
        ({"n": Decimal("NaN")}, "decimals"),
        ({"n": datetime(1969, 1, 1, tzinfo=UTC)}, "1970"),
        ({"n": "\ud800"}, "UTF-8"),
        ({"n": object()}, "object"),
        ({"n": [{"m": {1, 2}}]}, "set"),
    ],
)
def test_what_amqp_cannot_carry_is_refused_by_name(header: dict[str, HeaderValue], said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        encode_table(header)


def test_a_time_without_a_zone_is_utc() -> None:
    naive = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - that is the case
    assert decode_table(encode_table({"n": naive})) == {"n": naive.replace(tzinfo=UTC)}


def nested(levels: int) -> bytes:
    field = b"V"
    for _ in range(levels):
        field = b"A" + pack(">I", len(field)) + field
    return table(field)


def test_arrays_within_arrays_without_end_are_read_as_far_as_is_sane() -> None:
    found: object = decode_table(nested(5_000))["n"]
    levels = 0
    while isinstance(found, list):
        found, levels = found[0], levels + 1
    assert levels == DEEPEST
    assert isinstance(found, bytes)


@given(st.binary(max_size=60))
def test_what_is_no_table_is_malformed_and_nothing_worse(data: bytes) -> None:
    with suppress(*MALFORMED):
        decode_table(pack(">I", len(data)) + data)
