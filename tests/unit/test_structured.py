"""CloudEvents in structured mode: attributes and data out of one JSON object, the data to the letter."""

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.envelope import Envelope, unseal
from mqkit.errors import DecodeError, EnvelopeError, MessageError, MessageTooLarge
from mqkit.message import Delivery, WireMessage
from mqkit.structured import is_structured, read_event

STRUCTURED = "application/cloudevents+json"
EVENT: dict[str, Any] = {
    "specversion": "1.0", "id": "A-1", "source": "https://shop.example/till/3", "type": "com.example.order",
    "time": "2024-05-05T17:31:00Z", "subject": "orders/7", "traceparent": "00-aa", "sampled": True, "rank": 7,
    "datacontenttype": "application/json", "data": {"id": "7"},
}  # fmt: skip


def unsealed(event: Any, content_type: str = STRUCTURED, **rest: Any) -> Envelope:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    limit = rest.pop("largest", None)
    return unseal(Delivery(WireMessage(body, content_type=content_type, **rest), 1, "t", "g"), now=0.0, largest=limit)


@pytest.mark.parametrize(
    "content_type",
    [
        STRUCTURED,
        STRUCTURED + "; charset=UTF-8",
        "Application/CloudEvents+JSON",
        f'"{STRUCTURED}"',
        "application/cloudevents",
    ],
)
def test_attributes_and_data_are_read(content_type: str) -> None:
    envelope = unsealed(EVENT, content_type)
    assert (envelope.id, envelope.source, envelope.type) == ("A-1", "https://shop.example/till/3", "com.example.order")
    assert envelope.time == datetime(2024, 5, 5, 17, 31, tzinfo=UTC)
    assert envelope.headers == {
        "ce_subject": "orders/7",
        "ce_traceparent": "00-aa",
        "ce_sampled": "true",
        "ce_rank": "7",
    }
    assert (envelope.content_type, envelope.body, envelope.encoding) == ("application/json", b'{"id": "7"}', None)


def test_the_attributes_of_the_body_count_and_headers_stay() -> None:
    envelope = unsealed(EVENT, headers={"ce_id": "other", "tenant": "a", "ce_subject": "mine"})
    assert envelope.id == "A-1"
    assert (envelope.headers["tenant"], envelope.headers["ce_subject"]) == ("a", "mine")


@pytest.mark.parametrize(
    ("members", "body", "content_type"),
    [
        ('"data": {"price": 1.10, "big": 12345678901234567890.123}', b'{"price": 1.10, "big": 12345678901234567890.123}', "application/json"),
        ('"data" :\t[1,\n2] ', b"[1,\n2]", "application/json"),
        ('"data": "text"', b'"text"', "application/json"),
        ('"datacontenttype": "text/xml", "data": "<a/>"', b"<a/>", "text/xml"),
        ('"datacontenttype": "application/vnd.x+json", "data": "a"', b'"a"', "application/vnd.x+json"),
        ('"data_base64": "AP8=", "datacontenttype": "image/png"', b"\x00\xff", "image/png"),
        ('"data": 1, "data": 2', b"2", "application/json"),
        ('"data": null', None, "application/json"),
        ('"id": "1"', None, "application/json"),
    ],
)  # fmt: skip
def test_data_comes_as_it_was_sent(members: str, body: bytes | None, content_type: str) -> None:
    event = read_event(("\ufeff{" + members + "}").encode(), STRUCTURED)
    assert (event.data, event.content_type) == (body, content_type)


@pytest.mark.parametrize(
    ("event", "content_type", "kind", "told"),
    [
        ([EVENT], "application/cloudevents-batch+json", EnvelopeError, "a batch of CloudEvents is not read"),
        (b"...", "application/cloudevents+avro", EnvelopeError, "'\\+avro' are not read"),
        (b"", STRUCTURED, DecodeError, "not a CloudEvent in JSON"),
        (b"[]", STRUCTURED, DecodeError, "'{' was expected"),
        (b'{"id"}', STRUCTURED, DecodeError, "':' was expected"),
        (b'{"id": "1",}', STRUCTURED, DecodeError, "a name was expected"),
        (b'{"id": "1"} {}', STRUCTURED, DecodeError, "there is more"),
        (b'{"id": "1"', STRUCTURED, DecodeError, "expected"),
        (b"\xff", STRUCTURED, DecodeError, "not a CloudEvent"),
        (b'{"data": ' + b"[" * 100_000, STRUCTURED, DecodeError, "recursion"),
        (b'{"rank": ' + b"9" * 5_000 + b"}", STRUCTURED, DecodeError, "not a CloudEvent"),
        ({"data_base64": "%"}, STRUCTURED, DecodeError, "not base64"),
        ({"data_base64": 5}, STRUCTURED, DecodeError, "not base64"),
        ({"id": ["a"]}, STRUCTURED, EnvelopeError, "'id' of the CloudEvent is list"),
        ({"x": "a" * 2000}, STRUCTURED, EnvelopeError, "2,000 characters"),
        ({"specversion": "0.3"}, STRUCTURED, EnvelopeError, "version '0.3'"),
        ({"time": "yesterday"}, STRUCTURED, EnvelopeError, "'yesterday'"),
    ],
    ids=range(17),
)
def test_what_cannot_be_read_is_named(event: Any, content_type: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        unsealed(event, content_type)


def test_no_more_is_read_than_may_be() -> None:
    with pytest.raises(MessageTooLarge):
        unsealed({"data": "x" * 500}, largest=100)
    packed = gzip.compress(json.dumps({"id": "1", "data": " " * 5_000}).encode())
    with pytest.raises(MessageTooLarge):
        unsealed(packed, properties={"content_encoding": "gzip"}, largest=1_000)
    assert unsealed(packed, properties={"content_encoding": "gzip"}).id == "1"


@given(st.binary(max_size=60) | st.text('{}[]":, data_base64null1', max_size=40).map(str.encode))
def test_whatever_comes_is_an_event_or_an_error_of_the_message(body: bytes) -> None:
    try:
        unsealed(body)
    except MessageError:
        return


@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/cloud+json", "x" * 9999])
def test_other_content_types_are_no_events(content_type: str | None) -> None:
    assert not is_structured(content_type)
