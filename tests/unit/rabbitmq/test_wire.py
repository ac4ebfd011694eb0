"""That a message keeps all of itself on its way through RabbitMQ, and that copies carry nothing that harms."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from mqkit.backends.rabbitmq import wire
from mqkit.errors import EncodeError
from mqkit.message import HeaderValue, WireMessage

short = st.text(max_size=60)
messages = st.builds(
    WireMessage,
    st.binary(),
    st.dictionaries(st.text(max_size=10).filter(lambda name: name not in {*wire.ROUTING, wire.KEY}
                                                and not name.startswith("x-")), st.text() | st.integers(0, 9)),
    st.none() | st.binary(),
    st.none() | short,
    st.none() | short,
    st.fixed_dictionaries({}, optional={
        "content_encoding": short, "priority": st.integers(0, 255), "correlation_id": short, "reply_to": short,
        "timestamp": st.integers(0, 2**32 - 1).map(lambda number: datetime.fromtimestamp(number, tz=UTC)),
        "type": short, "app_id": short,
    }),
)  # fmt: skip


def through(message: WireMessage, routing_key: str | None = None) -> WireMessage:
    return wire.message(wire.decode(wire.encode(message)), message.body, routing_key)


@given(messages)
def test_what_was_sent_is_received(message: WireMessage) -> None:
    assert through(message) == message


@given(messages)
def test_another_client_reads_the_same(message: WireMessage) -> None:
    header = ContentHeader()
    header.unmarshal(wire.encode(message))
    assert header.body_size == len(message.body)
    assert header.properties.delivery_mode == 2
    assert header.properties.content_type == message.content_type
    assert header.properties.message_id == message.id
    assert header.properties.priority == message.properties.get("priority")
    assert header.properties.timestamp == message.properties.get("timestamp")


@pytest.mark.parametrize("key", [b"", b"k", "ä".encode(), b"\xff\x00", b"x" * 5_000])
def test_the_key_survives_whatever_its_bytes(key: bytes) -> None:
    found = through(WireMessage(b"", key=key), "something else")
    assert found.key == key
    assert found.headers == {}


@pytest.mark.parametrize(("routing_key", "key"), [("k1", b"k1"), ("\udcff", b"\xff"), ("", None), (None, None)])
def test_a_strangers_routing_key_is_the_key(routing_key: str | None, key: bytes | None) -> None:
    assert through(WireMessage(b""), routing_key).key == key


def test_a_strangers_header_of_our_keys_name_that_is_no_text_stays_a_header() -> None:
    assert through(WireMessage(b"", {wire.KEY: 7}), "k") == WireMessage(b"", {wire.KEY: 7}, b"k")


def received(headers: dict[str, HeaderValue], **properties: object) -> WireMessage:
    """What a client with other ways sent."""
    frame = commands.Basic.Properties(headers=headers, **properties)  # type: ignore[arg-type]  # pamqp's own types
    return wire.message(wire.decode(ContentHeader(0, 0, frame).marshal()), b"", None)


def test_what_the_broker_wrote_into_the_headers_does_not_come_out() -> None:
    found = received(
        {
            "x-death": [{"count": 3, "queue": "q"}],
            "x-delivery-count": 4,
            "x-acquired-count": 5,
            "x-first-death-queue": "q",
            "x-last-death-reason": "expired",
            "x-mine": "kept",
        }
    )
    assert found.headers == {"x-mine": "kept"}


def test_copies_leave_out_what_would_lose_or_misroute_them() -> None:
    found = received({"CC": ["elsewhere"], "n": 1}, expiration="5", user_id="guest", priority=3)
    assert found.properties == {"expiration": "5", "user_id": "guest", "priority": 3, "CC": ["elsewhere"]}
    copy = wire.decode(wire.encode(found))
    assert copy.properties == {"priority": 3, "delivery_mode": 2}
    assert copy.headers == {"n": 1}


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_a_header_that_sends_the_message_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(EncodeError, match=name):
        wire.encode(WireMessage(b"", {name: ["q"]}))


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"priority": 256}, "0 to 255"),
        ({"priority": "high"}, "0 to 255"),
        ({"timestamp": "now"}, "is a time"),
        ({"correlation_id": 7}, "is text"),
        ({"correlation_id": "x" * 256}, "255"),
    ],
)
def test_properties_that_amqp_does_not_have_are_refused(properties: dict[str, HeaderValue], said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        wire.encode(WireMessage(b"", properties=properties))


def test_an_id_or_content_type_that_is_too_long_is_refused() -> None:
    with pytest.raises(EncodeError, match="message id"):
        wire.encode(WireMessage(b"", id="x" * 256))
    with pytest.raises(EncodeError, match="content type"):
        wire.encode(WireMessage(b"", content_type="x" * 256))


def test_a_header_table_that_is_none_is_one_header_of_its_bytes() -> None:
    payload = b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00" + b"\x00\x00\x00\x03\x01n?"
    assert wire.decode(payload).headers == {wire.UNREADABLE: b"\x01n?"}


@pytest.mark.parametrize(
    ("headers", "redelivered", "count"),
    [
        ({}, True, 0),
        ({"x-delivery-count": 2}, True, 2),
        ({"x-delivery-count": 2, "x-acquired-count": 9}, True, 2),
        ({"x-acquired-count": 9}, True, 0),
        ({"x-delivery-count": 99, "x-acquired-count": 1}, True, 1),
        ({"x-delivery-count": 99}, False, 0),
        ({"x-delivery-count": "99"}, True, 0),
    ],
)
def test_redeliveries_are_what_the_broker_counts_as_failed(
    headers: dict[str, HeaderValue], count: int, *, redelivered: bool
) -> None:
    assert wire.redeliveries(headers, redelivered=redelivered) == count


def test_frames_that_we_write_are_frames() -> None:
    from mqkit.backends.rabbitmq import frames

    message = WireMessage(b"x" * 300_000, id="1")
    data = b"".join(frames.publish(7, ("e", "k"), wire.encode(message), message.body, 131_072))
    kinds = []
    while data:
        size, channel, frame = unmarshal(data)
        kinds.append(frame.name)
        assert channel == 7
        assert size <= 131_072
        data = data[size:]
    assert kinds == ["Basic.Publish", "ContentHeader", "ContentBody", "ContentBody", "ContentBody"]
    _, _, ack = unmarshal(frames.ack(7, 5, multiple=True))
    assert (ack.delivery_tag, ack.multiple) == (5, True)  # type: ignore[union-attr]  # it is an Ack
    _, _, nack = unmarshal(frames.give_back(7, 5, multiple=False))
    assert (nack.delivery_tag, nack.multiple, nack.requeue) == (5, False, True)  # type: ignore[union-attr]  # a Nack
