"""What travels: facts."""

import dataclasses
import pickle
from typing import Any

import pytest

from mqkit.message import Delivery, Message, Outgoing, WireMessage

FACTS: list[Any] = [
    Message(payload=1, id="a", topic="t", group="g"),
    WireMessage(b""),
    Delivery(WireMessage(b""), 1, "t", "g"),
    Outgoing(WireMessage(b""), "t"),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_facts_are_slotted(fact: Any) -> None:
    assert not hasattr(fact, "__dict__")
    assert fact == dataclasses.replace(fact)


def test_what_a_handler_gets_is_frozen() -> None:
    message = FACTS[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.payload = None


def test_default_headers_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        WireMessage(b"").headers["a"] = "b"  # type: ignore[index] # that is the point


def test_labels_are_each_messages_own() -> None:
    assert Outgoing(WireMessage(b""), "t").labels is not Outgoing(WireMessage(b""), "t").labels


def test_a_message_with_headers_of_its_own_can_be_sent_to_another_process() -> None:
    message = Message(payload=1, id="a", topic="t", group="g", headers={"a": "b"})
    assert pickle.loads(pickle.dumps(message)) == message
