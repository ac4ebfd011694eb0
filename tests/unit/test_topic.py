"""Topics: names that every backend can use, and keys."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from mqkit.errors import ConfigurationError, EncodeError
from mqkit.topic import LONGEST, Topic, check_group_name, check_topic_name, schema_name


@dataclass
class Order:
    customer: Any


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize("name", ["a", "orders", "shop.orders", "A-1_b.c", "x" * LONGEST])
def test_names_that_every_backend_can_use(name: str) -> None:
    assert check_topic_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "é",
        "-a",
        "_a",
        "a/b",
        "a\n",
        "x" * (LONGEST + 1),
        "a.dlq",
        "retry",
        "a.delay.b",
        "*",
        "#",
    ],
)
def test_names_that_some_backend_could_not_use(name: str) -> None:
    with pytest.raises(ConfigurationError, match="topic name"):
        Topic(name)


@pytest.mark.parametrize("name", ["", "a.b", "dlq", "a b", "-a", "x" * (LONGEST + 1), "retry", "g\n"])
def test_group_names_have_no_dots(name: str) -> None:
    with pytest.raises(ConfigurationError, match="group name"):
        check_group_name(name)
    with pytest.raises(ConfigurationError, match="group name"):
        Topic("t", groups=[name])


def test_no_group_of_one_topic_is_named_like_one_of_another() -> None:
    """The last dot of a joined name is always the one before the group."""
    assert "." not in check_group_name("billing")


@pytest.mark.parametrize(
    ("key", "payload", "expected"),
    [
        (None, Order("ann"), None),
        ("customer", Order("ann"), "ann"),
        ("customer", Order(5), "5"),
        ("customer", Order(None), None),
        ("customer", {"customer": "ann"}, "ann"),
        (lambda order: order.customer[:1], Order("ann"), "a"),
        ("customer", Order(Colour.RED), "red"),
        ("customer", Order(Level.HIGH), "3"),
        ("customer", Order(b"k\xff"), "k\udcff"),
        ("customer", Order(UUID(int=10)), str(UUID(int=10))),
        ("customer", MappingProxyType({"customer": "ann"}), "ann"),
        (lambda order: Colour.RED, Order(""), "red"),
        (lambda order: None, Order("ann"), None),
    ],
)
def test_the_key_of_a_payload(key: Any, payload: Any, expected: str | None) -> None:
    assert Topic("t", Order, key=key).key_of(payload) == expected


@pytest.mark.parametrize(
    ("key", "payload"), [("missing", Order("a")), ("missing", {}), (lambda order: order.customer[0], Order(""))]
)
def test_a_key_that_cannot_be_had_is_the_publishers_error(key: Any, payload: Any) -> None:
    with pytest.raises(EncodeError, match="no key for Topic"):
        Topic("t", Order, key=key).key_of(payload)


def test_a_secret_is_no_key() -> None:
    with pytest.raises(EncodeError, match="it is a secret"):
        Topic("t", Order, key="customer").key_of(Order(SecretStr("x")))


def test_how_schemas_are_named() -> None:
    assert schema_name(None) == "any"
    assert schema_name(Order) == "Order"
    assert schema_name(dict[str, int]) == "dict[str, int]"
    assert repr(Topic("t", Order)) == "Topic('t', Order)"


def test_two_topics_of_one_name_are_two_keys() -> None:
    assert Topic("t") != Topic("t")
    assert len({Topic("t"), Topic("t")}) == 2
