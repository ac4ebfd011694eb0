"""What mqkit sent back to a group's queue is told from what anybody published there."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backend import Subscription
from mqkit.backends.rabbitmq import wire
from mqkit.backends.rabbitmq.arrivals import delivery
from mqkit.backends.rabbitmq.way_back import MARK, is_marked, marked
from mqkit.message import Delivery, Outgoing, WireMessage

COPY = WireMessage(
    b"{}", {"cloudEvents_id": "1", "tenant": "a", "mqkit-attempts": "2", "mqkit-due": "5.0"}, b"k", id="1"
)


def came(message: WireMessage, queue: str = "cds.billing", exchange: str = "") -> Delivery:
    arrived = (1, (exchange, queue), wire.encode(message), message.body, False)
    return delivery(arrived, Subscription(topic="cds", group="billing"), "cds.billing", 1)


def test_a_copy_that_mqkit_sent_back_is_believed() -> None:
    got = came(marked(Outgoing(COPY, "cds", "billing")))
    assert got.returned
    assert got.message.headers["mqkit-attempts"] == "2"


@pytest.mark.parametrize("mark", [None, "", "f" * 32, 5, b"x"], ids=repr)
def test_what_anybody_published_straight_to_the_queue_is_not(mark: Any) -> None:
    assert not came(replace(COPY, headers={**COPY.headers, MARK: mark})).returned
    assert not came(COPY).returned


def test_a_mark_goes_with_its_queue_its_body_and_its_bookkeeping_alone() -> None:
    message = marked(Outgoing(COPY, "cds", "billing"))
    assert is_marked(message, "cds.billing")
    assert not is_marked(message, "cds.shipping")
    assert not is_marked(replace(message, body=b"[]"), "cds.billing")
    for changed in ({"mqkit-attempts": "998"}, {"mqkit-first-failed": "2001"}):
        assert not is_marked(replace(message, headers={**message.headers, **changed}), "cds.billing")
    assert not came(message, exchange="cds").returned


def test_what_goes_to_the_topic_or_to_the_dead_letters_has_no_mark() -> None:
    assert marked(Outgoing(COPY, "cds")) is COPY
    assert marked(Outgoing(COPY, "cds", "billing", dead=True)) is COPY


@given(
    st.dictionaries(st.text(max_size=20), st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5),
    st.binary(max_size=20),
)
def test_every_copy_is_known_again_after_its_way(headers: dict[str, str], body: bytes) -> None:
    headers = {name: value for name, value in headers.items() if name not in wire.ROUTING and name.isascii()}
    assert came(marked(Outgoing(WireMessage(body, headers), "cds", "billing"))).returned
