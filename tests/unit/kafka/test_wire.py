"""Messages as Kafka records."""

from datetime import UTC, datetime
from decimal import Decimal
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.kafka.wire import Pairs, from_record, record_size, to_record
from mqkit.message import NOTHING, HeaderValue, WireMessage

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name != "content-type")
VALUES = st.one_of(st.none(), st.text(max_size=20), st.binary(max_size=20).filter(lambda raw: not _is_text(raw)))


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def as_received(pairs: Pairs) -> list[tuple[str, bytes | str | None]]:
    """The driver gives back bytes for what it was given as str, up to the first NUL."""
    return [(name, value.partition("\0")[0].encode() if isinstance(value, str) else value) for name, value in pairs]


@given(
    st.binary(max_size=50),
    st.one_of(st.none(), st.binary(max_size=20)),
    st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, min_size=2, max_size=3))),
    st.one_of(st.none(), st.text(max_size=20)),
)
def test_a_message_survives_its_way(
    body: bytes, key: bytes | None, headers: dict[str, HeaderValue], content_type: str | None
) -> None:
    message = WireMessage(body, headers, key, content_type)
    value, record_key, pairs = to_record(message)
    assert from_record(value, record_key, as_received(pairs)) == message


@pytest.mark.parametrize("value", ["a\0b", "\0", "é\0", b"\x00\x00\x00\x07", ["a\0", "b"], "a\r\nb"])
def test_a_value_is_not_cut_where_a_c_string_would_end(value: HeaderValue) -> None:
    message = WireMessage(b"", {"x": value}, content_type="a/b\0c")
    found = from_record(b"", None, as_received(to_record(message)[2]))
    expected = value.decode() if isinstance(value, bytes) else value
    assert (found.headers["x"], found.content_type) == (expected, "a/b\0c")


def test_a_tombstone_stays_null_in_its_copies_and_is_an_empty_body_to_us() -> None:
    message = from_record(None, b"k", None)
    assert message.body == b""
    assert to_record(message) == (None, b"k", [])
    assert to_record(WireMessage(b""))[0] == b"", "an empty body is not a null"


def test_a_message_that_says_nothing_is_a_tombstone() -> None:
    assert to_record(WireMessage(b"null", key=b"k", properties=NOTHING)) == (None, b"k", [])
    assert to_record(WireMessage(b"null", key=b"k"))[0] == b"null", "a stranger's text is left as it is"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (-0.5, "-0.5"),
        (Decimal("1.20"), "1.20"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ("é", "é".encode()),
        ("\udcff", b"\xff"),
        (b"\xff\x00", b"\xff\x00"),
        (None, None),
    ],
)
def test_values_of_other_brokers_are_written_as_text(value: HeaderValue, written: object) -> None:
    assert to_record(WireMessage(b"", {"h": value}))[2] == [("h", written)]


def test_a_repeated_header_is_a_list_in_order() -> None:
    message = from_record(b"", None, [("a", b"1"), ("b", b"x"), ("a", b"2"), ("a", None)])
    assert message.headers == {"a": ["1", "2", None], "b": "x"}
    assert [name for name, _ in to_record(message)[2]] == ["a", "a", "a", "b"]


def test_a_header_that_is_repeated_very_often_costs_hardly_more_than_as_many_different_ones() -> None:
    number = 80_000

    def cost(pairs: Pairs) -> float:
        started = thread_time()
        message = from_record(b"", None, pairs)
        assert len(to_record(message)[2]) == number
        return thread_time() - started

    different = cost([(f"a{i}", b"x") for i in range(number)])
    assert cost([("a", b"x") for _ in range(number)]) < 10 * different, "a copy for each would be 100 times as much"


def test_the_content_type_has_a_place_of_its_own() -> None:
    message = from_record(b"", None, [("content-type", b"text/plain"), ("content-type", b"second")])
    assert message.content_type == "text/plain"
    assert message.headers == {"content-type": "second"}
    assert from_record(b"", None, [("content-type", b"\xff")]).headers == {"content-type": b"\xff"}


def test_the_size_is_what_the_protocol_makes_of_it() -> None:
    """By hand: a batch's 61, then length 1, attributes 1, two deltas 2, key 1+1, value 1+3, count 1, header 1+1+1+2."""
    assert record_size(b"abc", b"k", [("h", "xy")]) == 61 + 1 + 1 + 2 + 2 + 4 + 1 + 5
    assert record_size(None, None, []) == 61 + 1 + 1 + 2 + 1 + 1 + 1
    assert record_size(b"x" * 64, None, []) == 61 + 2 + 1 + 2 + 1 + (2 + 64) + 1
