"""The envelope: what is sealed is unsealed, what is hostile is an error, what is forged is not believed."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.attributes import LONGEST_ATTRIBUTE, PREFIXES, SPELLED, are_plain, identity
from mqkit.attributes import texts as attribute_texts
from mqkit.envelope import (
    bookkeeping,
    buried,
    check_headers,
    key_bytes,
    key_text,
    postponed,
    replayed,
    retried,
    seal,
    timestamp,
    unseal,
)
from mqkit.errors import EncodeError, EnvelopeError
from mqkit.message import Delivery, HeaderValue, WireMessage
from mqkit.verdict import Failure

NOW = 1_700_000_000.0
FAILURE = Failure("ValueError", "no", "Traceback ...")

NAMELESS = "ad95be9f-a10e-505c-9faf-de6508384642"
"""What a message with nothing in it is called, by each version of mqkit."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
names = st.text("abcdefgh-_XYZ", min_size=1, max_size=30).filter(
    lambda name: not name.startswith(("mqkit-", "ce_", "ce-")) and name.lower() != "content-type"
)
user_headers = st.dictionaries(names, texts, max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=50)
    | st.decimals()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
hostile_names = st.sampled_from(
    [prefix + attribute for prefix in PREFIXES for attribute in ("id", "ID", "time", "type", "source", "specversion")]
    + ["mqkit-attempts", "mqkit-due", "mqkit-first-failed", "mqkit-group", "mqkit-", "content-type", ""]
)


def delivered(wire: WireMessage, **rest: Any) -> Delivery:
    return Delivery(wire, 1, "orders", "billing", **rest)


def sealed(**rest: Any) -> WireMessage:
    given: dict[str, Any] = {
        "prefix": "ce_",
        "id": "1",
        "source": "shop",
        "type": "Order",
        "now": NOW,
        "content_type": "application/json",
    }
    return seal(b"{}", **given | rest)


@given(st.dictionaries(st.sampled_from(sorted(SPELLED)), values, max_size=5))
def test_attributes_that_are_plain_are_as_they_are_read_one_by_one(headers: dict[str, HeaderValue]) -> None:
    given = {SPELLED[name]: value for name, value in headers.items()}
    if are_plain(given):
        assert attribute_texts(headers) == given


@pytest.mark.parametrize("value", ["", None, b"1", 1, True, ["1"], "x" * (LONGEST_ATTRIBUTE + 1)])
def test_an_attribute_that_takes_a_closer_look_is_not_plain(value: HeaderValue) -> None:
    assert are_plain({"id": "1", "type": "Order"})
    assert not are_plain({"id": "1", "type": value})


@given(
    prefix=st.sampled_from(PREFIXES), id=texts.filter(bool), source=texts, type=texts,
    key=st.none() | texts, headers=user_headers, due=st.none() | st.floats(NOW, NOW + 1e6),
)  # fmt: skip
def test_what_is_sealed_is_unsealed(
    prefix: str, id: str, source: str, type: str, key: str | None, headers: dict[str, str], due: float | None
) -> None:
    wire = sealed(prefix=prefix, id=id, source=source, type=type, key=key, headers=headers, due=due)
    envelope = unseal(delivered(wire), now=NOW)
    assert (envelope.id, envelope.source or "", envelope.type or "") == (id, source, type)
    assert envelope.headers == headers
    assert envelope.time == datetime.fromtimestamp(NOW, UTC)
    assert (envelope.due, envelope.attempts) == (due, 0)
    assert key_text(wire.key) == key
    assert wire.body == b"{}"
    assert all(isinstance(value, str) for value in wire.headers.values())


def test_the_body_is_the_codecs_bytes_and_the_headers_are_cloudevents() -> None:
    assert sealed(headers={"trace": "7"}, key="k") == WireMessage(
        b"{}",
        {
            "ce_specversion": "1.0", "ce_id": "1", "ce_source": "shop", "ce_type": "Order",
            "ce_time": "2023-11-14T22:13:20.000000Z", "trace": "7",
        },
        b"k", "application/json", "1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"headers": {"mqkit-attempts": "9"}}, "mqkit-attempts"),
        ({"headers": {"ce_id": "9"}}, "ce_id"),
        ({"headers": {"cloudEvents:id": "9"}}, "cloudEvents:id"),
        ({"headers": {"Content-Type": "text/plain"}}, "Content-Type"),
        ({"headers": {"": "x"}}, "''"),
        ({"headers": {"a": 5}}, "not int; write str"),
        ({"headers": {"a": b"x"}}, "not bytes"),
        ({"headers": {"a": None}}, "not NoneType"),
        ({"headers": {5: "a"}}, "5.*not int"),
        ({"headers": [("a", "b")]}, "mapping of names to text, not list"),
        ({"headers": "a"}, "not str"),
        ({"headers": {"a\0b": "x"}}, "NUL"),
        ({"headers": {"x-death": "x"}}, "RabbitMQ keeps"),
        ({"headers": {"CC": "x"}}, "RabbitMQ keeps"),
        ({"headers": {"x-first-death-queue": "x"}}, "RabbitMQ keeps"),
        ({"headers": {"content-encoding": "gzip"}}, "this body is not packed"),
        ({"headers": {"compression": "application/x-gzip"}}, "'compression': this body is not packed"),
        ({"id": UUID(int=1)}, "id is text, not UUID: write str"),
        ({"id": b"1"}, "id is text, not bytes"),
        ({"key": 42}, "key is text, not int: write str"),
        ({"key": b"k"}, "key is text, not bytes: decode it"),
        ({"headers": {"a": "\ud800"}}, "'a'"),
        ({"headers": {"\ud800": "a"}}, "not valid text"),
        ({"headers": {"é" * 128: "a"}}, "256 bytes"),
        ({"id": ""}, "id"),
        ({"id": "x" * 256}, "256 bytes"),
        ({"id": "\ud800"}, "id"),
        ({"key": "\ud800"}, "key"),
    ],
)
def test_a_publisher_is_told_what_no_broker_could_carry(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(EncodeError, match=named):
        sealed(**arguments)


def test_bytes_may_say_that_they_are_packed() -> None:
    wire = sealed(headers={"content-encoding": "gzip"}, content_type="application/octet-stream")
    assert wire.headers["content-encoding"] == "gzip"


def test_a_long_schema_name_is_cut_rather_than_refused_by_every_consumer() -> None:
    wire = sealed(type="Union[" + "A" * 5000)
    assert unseal(delivered(wire), now=NOW).id == "1"


@pytest.mark.parametrize("key", [b"", b"abc", b"\xff\x00", "é".encode()])
def test_any_key_survives_being_text(key: bytes) -> None:
    assert key_bytes(key_text(key)) == key
    assert key_bytes(None) is None


@given(st.text())
def test_a_key_is_the_text_that_was_given_to_the_last_bit(key: str) -> None:
    try:
        expected = key.encode()
    except UnicodeEncodeError:
        return
    assert key_bytes(key) == expected
    assert key_text(expected) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [("\u00e9", "e\u0301"), ("\ufb01", "fi"), ("K", "k"), (" k", "k"), ("k\r\n", "k\n"), ("\u212a", "K")],
)
def test_keys_that_only_look_alike_are_two(one: str, other: str) -> None:
    assert key_bytes(one) == one.encode()
    assert key_bytes(other) == other.encode()
    assert sealed(id=one).headers["ce_id"] == one


@given(st.dictionaries(names | hostile_names, values, max_size=8), st.booleans(), st.none() | texts)
def test_hostile_headers_are_an_envelope_error_or_harmless(
    headers: dict[str, Any], returned: bool, id: str | None
) -> None:
    delivery = delivered(WireMessage(b"x", headers, id=id), returned=returned, origin="orders@5", unique=True)
    try:
        envelope = unseal(delivery, now=NOW)
    except EnvelopeError:
        letter = buried(
            delivery, "ce_", "new", reason="envelope", attempts=0, failure=FAILURE, now=NOW, handler="h", service="s"
        )
        foreign = {n for n in headers if not n.startswith("mqkit-")}  # what claims to be bookkeeping is not kept
        assert foreign <= letter.headers.keys()
        return
    assert envelope.id
    assert 0 <= envelope.attempts <= 1e9
    assert not [name for name in envelope.headers if name.startswith("mqkit-")]
    assert returned or envelope.attempts == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_specversion": "2.0"},
        {"ce_id": ["a"]},
        {"ce_id": True},
        {"ce_id": b"\xff"},
        {"ce_id": "x" * 2000},
        {"ce_id": 10**5000},
        {"ce_type": {"a": 1}},
        {"ce_time": "yesterday"},
        {"ce_time": 5},
        {"ce_time": float("inf")},
        {"ce_source": Decimal(1)},
        {"mqkit-left": "soon"},
        {"mqkit-left": "-1"},
        {"mqkit-left": "1e300"},
        {"mqkit-due": "soon"},
        {"mqkit-due": "nan"},
        {"mqkit-due": "-1"},
        {"mqkit-due": "1e300"},
    ],
    ids=range(18),
)
def test_what_cannot_be_read_is_named(headers: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError):
        unseal(delivered(WireMessage(b"", headers)), now=NOW)


@pytest.mark.parametrize("attempts", ["-1", "x", "nan", "1e10", ["1"], "9" * 5000], ids=lambda v: str(v)[:9])
def test_bookkeeping_is_read_where_mqkit_wrote_it_and_nowhere_else(attempts: Any) -> None:
    wire = WireMessage(b"", {"mqkit-attempts": attempts})
    assert unseal(delivered(wire), now=NOW).attempts == 0
    with pytest.raises(EnvelopeError):
        unseal(delivered(wire, returned=True), now=NOW)


@pytest.mark.parametrize(
    ("headers", "wire_id", "delivery", "expected"),
    [
        ({"ce_id": "ce"}, "wire", {"origin": "o", "unique": True}, "ce"),
        ({"ce_id": ""}, "wire", {}, "wire"),
        ({"ce_id": None}, None, {"origin": "o", "unique": True}, "o"),
        ({}, "wire", {"origin": "o", "unique": True}, "wire"),
        ({}, "", {"origin": "o", "unique": True}, "o"),
        ({}, None, {"origin": "o", "unique": False}, NAMELESS),
        ({"ce_id": 7}, None, {}, "7"),
        ({"ce_id": b"7"}, None, {}, "7"),
        ({"cloudEvents:ID": "7"}, None, {}, "7"),
    ],
)
def test_where_the_id_comes_from_and_that_copies_keep_it(
    headers: dict[str, Any], wire_id: str | None, delivery: dict[str, Any], expected: str
) -> None:
    got = delivered(WireMessage(b"", headers, id=wire_id), **delivery)
    assert unseal(got, now=NOW).id == expected
    for prefix in ("ce_", "cloudEvents:"):
        copy = retried(got, prefix, expected, attempts=1, failure=FAILURE, now=NOW, delay=1, left=0)
        # as another broker might hand it on: no id of its own, headers in another order
        turned = WireMessage(b"", dict(sorted(copy.headers.items(), reverse=True)))
        for wire in (copy, WireMessage(b"", copy.headers), turned):
            assert unseal(delivered(wire, returned=True), now=NOW).id == expected


def test_a_message_without_anything_gets_defaults() -> None:
    envelope = unseal(delivered(WireMessage(b"")), now=NOW)
    assert (envelope.id, envelope.type, envelope.source, envelope.time, envelope.content_type) == (
        NAMELESS,
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_protocol_bindings_prefix_is_read(prefix: str) -> None:
    wire = WireMessage(b"", {prefix + "type": "Order", prefix + "datacontenttype": "a/b", prefix + "traceparent": "t"})
    envelope = unseal(delivered(wire), now=NOW)
    assert (envelope.type, envelope.content_type) == ("Order", "a/b")
    assert envelope.headers == {prefix + "traceparent": "t"}


def copies(delivery: Delivery) -> dict[str, WireMessage]:
    envelope = unseal(delivery, now=NOW)
    return {
        "postponed": postponed(delivery, "ce_", envelope, left=3),
        "retried": retried(
            delivery, "ce_", envelope.id, attempts=envelope.attempts + 1, failure=FAILURE, now=NOW, delay=5, left=0
        ),
        "buried": buried(
            delivery,
            "ce_",
            envelope.id,
            reason="exhausted",
            attempts=3,
            failure=FAILURE,
            now=NOW,
            handler="h",
            service="s",
        ),
        "replayed": replayed(delivery, "ce_", envelope.id),
    }


@given(
    user=st.dictionaries(names, values, max_size=4), properties=st.dictionaries(names, texts, max_size=2),
    body=st.binary(max_size=50), key=st.none() | st.binary(max_size=20), content_type=st.none() | texts,
)  # fmt: skip
def test_copies_keep_body_key_id_properties_and_all_that_belongs_to_the_user(
    user: dict[str, HeaderValue],
    properties: dict[str, HeaderValue],
    body: bytes,
    key: bytes | None,
    content_type: str | None,
) -> None:
    delivery = delivered(
        WireMessage(body, {**user, "ce_id": "7"}, key, content_type, "wire", properties), returned=True
    )
    for copy in copies(delivery).values():
        assert (copy.body, copy.key, copy.content_type, copy.id, copy.properties) == (
            body,
            key,
            content_type,
            "wire",
            properties,
        )
        kept = {name: value for name, value in copy.headers.items() if not name.startswith("mqkit-")}
        assert repr(kept) == repr({**user, "ce_id": "7"})


def test_forged_bookkeeping_does_not_survive_the_first_copy() -> None:
    forged = {
        "mqkit-attempts": "99", "mqkit-group": "other", "mqkit-topic": "other", "mqkit-first-failed": "x",
        "mqkit-reason": "x", "mqkit-whatever": "x",
    }  # fmt: skip
    delivery = delivered(WireMessage(b"", {"ce_id": "1", **forged}))
    made = copies(delivery)
    assert made["retried"].headers["mqkit-attempts"] == "1"
    assert made["retried"].headers["mqkit-first-failed"] == timestamp(NOW)
    assert made["buried"].headers["mqkit-group"] == "billing"
    assert made["buried"].headers["mqkit-topic"] == "orders"
    for copy in made.values():
        assert "x" not in copy.headers.values()
        assert "99" not in copy.headers.values()


def test_attempts_and_the_first_failure_go_on_from_copy_to_copy() -> None:
    delivery = delivered(WireMessage(b"", {"ce_id": "1"}))
    for attempt in (1, 2, 3):
        wire = retried(delivery, "ce_", "1", attempts=attempt, failure=FAILURE, now=NOW + attempt, delay=2, left=0)
        delivery = delivered(wire, returned=True)
        envelope = unseal(delivery, now=NOW)
        assert envelope.attempts == attempt
        assert envelope.due == NOW + attempt + 2
        assert wire.headers["mqkit-first-failed"] == timestamp(NOW + 1)
        assert wire.headers["mqkit-last-failed"] == timestamp(NOW + attempt)
        moved = postponed(delivery, "ce_", envelope, left=0)
        again = unseal(delivered(moved, returned=True), now=NOW)
        assert (again.attempts, again.due) == (attempt, envelope.due)


def test_a_dead_letter_tells_all_that_is_known_and_a_replay_forgets_it() -> None:
    delivery = delivered(
        WireMessage(b"", {"ce_id": "1", "mqkit-due": repr(NOW)}), returned=True, origin="orders[3]@1042"
    )
    letter = copies(delivery)["buried"]
    told = bookkeeping(delivered(letter))
    assert told == {
        "reason": "exhausted", "attempts": "3", "error-type": "ValueError", "error": "no", "traceback": "Traceback ...",
        "first-failed": timestamp(NOW), "last-failed": timestamp(NOW), "origin": "orders[3]@1042",
        "topic": "orders", "group": "billing", "handler": "h", "service": "s",
    }  # fmt: skip
    assert replayed(delivered(letter), "ce_", "1").headers == {"ce_id": "1"}
    assert json.dumps(told)


def test_check_headers_takes_ordinary_ones() -> None:
    check_headers({"trace-id": "1", "X-Anything": "é", "celery": "2", "empty": ""})


def test_the_id_of_a_stranger_is_the_brokers_or_a_unique_origin_or_what_it_is_made_of() -> None:
    assert identity(delivered(WireMessage(b"", id="a"))) == "a"
    assert identity(delivered(WireMessage(b""), origin="o", unique=True)) == "o"
    assert identity(delivered(WireMessage(b""), origin="o")) == NAMELESS


def test_an_id_that_can_be_read_names_a_message_that_cannot() -> None:
    got = delivered(WireMessage(b"", {"ce_id": "mine", "ce_time": "yesterday"}), origin="o", unique=True)
    assert identity(got) == "mine"
    assert identity(delivered(WireMessage(b"", {"ce_id": "x" * 2000}), origin="o", unique=True)) == "o"


def test_a_made_up_id_is_the_same_at_every_delivery_and_another_for_another_message() -> None:
    def made(wire: WireMessage, **rest: Any) -> str:
        return unseal(delivered(wire, **rest), now=NOW).id

    def wire(**changed: Any) -> WireMessage:
        given: dict[str, Any] = {"headers": {"a": 1, "b": [b"x", None]}, "key": b"k", "content_type": "a/b"}
        return WireMessage(**{"body": b"{}", "properties": {"priority": 3}, **given, **changed})

    first = made(wire())
    assert UUID(first).version == 5
    assert first == made(wire(), origin="elsewhere", redelivered=3)
    assert first == made(wire(headers={"b": [b"x", None], "a": 1, "mqkit-attempts": "3"}))
    assert first == made(wire(properties={"priority": 3, "x-death": [{"count": 1}]}))
    others = [
        wire(body=b"{} "), wire(key=b"l"), wire(key=None), wire(content_type=None), wire(headers={"a": 2}),
        wire(properties={"priority": 4}), wire(properties={}), wire(headers={"a": 10**5000}),
    ]  # fmt: skip
    assert len({first, *map(made, others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-05t17:31:00z", datetime(2024, 5, 5, 17, 31, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024-05-05T17:31:00.123456789Z", datetime(2024, 5, 5, 17, 31, 0, 123456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_as_rfc_3339_allows_it(text: str, expected: datetime) -> None:
    assert unseal(delivered(WireMessage(b"", {"ce_time": text})), now=NOW).time == expected


def test_a_body_that_is_packed_says_so_in_a_property_or_a_header() -> None:
    for wire in (
        WireMessage(b"", properties={"content_encoding": "gzip"}),
        WireMessage(b"", {"content-encoding": "gzip"}),
        WireMessage(b"", {"Content-Encoding": "gzip"}),
    ):
        assert unseal(delivered(wire), now=NOW).encoding == "gzip"
    kombu = WireMessage(b"", {"compression": "application/x-gzip"}, properties={"content_encoding": "utf-8"})
    assert unseal(delivered(kombu), now=NOW).encoding == "application/x-gzip"
    assert unseal(delivered(WireMessage(b"", {"compression": "high"})), now=NOW).encoding is None


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_is_written_to_the_microsecond(microseconds: int) -> None:
    now = microseconds / 1e6
    written = datetime.fromisoformat(timestamp(now))
    assert abs(written.timestamp() - now) < 2e-6
    assert written.tzinfo is UTC


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({}, 0),
        ({"mqkit-due": repr(NOW + 50)}, 50),
        ({"mqkit-due": repr(NOW - 50)}, 0),
        ({"mqkit-due": repr(NOW + 50), "mqkit-left": "0.0"}, 0),
        ({"mqkit-due": repr(NOW - 50), "mqkit-left": "7.5"}, 7.5),
    ],
)
def test_what_is_left_to_wait_is_no_matter_of_clocks_where_it_is_told(headers: dict[str, str], left: float) -> None:
    assert unseal(delivered(WireMessage(b"", headers)), now=NOW).left == pytest.approx(left)


def test_who_seals_and_who_copies_tell_what_is_left() -> None:
    sealed = seal(b"", prefix="ce_", id="1", source="s", type="t", now=NOW, content_type="a/b", due=NOW + 20, left=5.0)
    ahead, behind = (unseal(delivered(sealed), now=NOW + skew) for skew in (900, -900))
    assert (ahead.left, behind.left) == (5, 5)
    moved = postponed(delivered(sealed), "ce_", ahead, left=0.0)
    assert unseal(delivered(moved), now=NOW - 900).left == 0
    again = retried(delivered(sealed), "ce_", "1", attempts=1, failure=FAILURE, now=NOW, delay=60, left=0.0)
    assert unseal(delivered(again), now=NOW - 900).left == 0
