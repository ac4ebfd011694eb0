"""A topic: a named stream of messages of one schema. Plain data, to be shared between services."""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, Generic, TypeVar, overload

from mqkit.callables import not_a_plain_call, not_over
from mqkit.errors import ConfigurationError, EncodeError

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)*")
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
RESERVED = frozenset({"dlq", "retry", "delay"})
LONGEST = 120
"""Characters: topic, group and mqkit's suffixes together stay below Kafka's 249 and AMQP's 255."""


def check_topic_name(name: str) -> str:
    """`name`, if every backend can use it as a topic's name.

    Raises:
        ConfigurationError: it cannot be used; the text says why.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"a topic's name is text, not {type(name).__name__} {name!r}")
    if len(name) > LONGEST or not NAME.fullmatch(name):
        raise ConfigurationError(
            f"topic name {name!r}: use up to {LONGEST} letters, digits, '-' and '_', in parts joined by single dots"
        )
    if taken := sorted(RESERVED.intersection(name.split("."))):
        raise ConfigurationError(f"topic name {name!r}: the part {taken[0]!r} is kept for mqkit's own queues")
    return name


def check_group_name(name: str) -> str:
    """`name`, if every backend can use it as a group's name.

    Raises:
        ConfigurationError: it cannot be used; the text says why.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"a group's name is text, not {type(name).__name__} {name!r}")
    if len(name) > LONGEST or not GROUP_NAME.fullmatch(name) or name in RESERVED:
        raise ConfigurationError(
            f"group name {name!r}: use up to {LONGEST} letters, digits, '-' and '_' (no dots; "
            f"not {', '.join(sorted(RESERVED))})"
        )
    return name


class Topic(Generic[T]):
    """A named stream of messages of one schema.

    Args:
        name: letters, digits, `-` and `_`, in parts joined by dots.
        schema: what a payload is: a pydantic model, a dataclass, a TypedDict, `dict[str, int]`, `bytes` for raw
            bodies: whatever pydantic can validate. Where it takes None, that is published as a null record on Kafka (a
            tombstone: in a compacted topic it removes what has its key), and as JSON's `null` elsewhere.
        key: which part of a payload messages are ordered by: the name of a field, or a function.
        groups: the groups that exist from the start, so that nothing published before their first worker is lost.
        content_type: how payloads are written; found by the schema when not given.
        options: what one broker alone knows, such as `KafkaTopic(partitions=12)`; each backend picks its own.
        round_trip: whether what is published must read back, by the same schema, as what was given; publishing raises
            EncodeError where it would not (a secret written as asterisks, fields of a subclass left out). False: it is
            published as the schema writes it.

    Raises:
        ConfigurationError: a name that some backend could not use.
    """

    __slots__ = ("content_type", "groups", "key", "name", "options", "round_trip", "schema")

    @overload
    def __init__(
        self,
        name: str,
        schema: type[T],
        *,
        key: str | None = None,
        groups: Iterable[str] = (),
        content_type: str | None = None,
        options: Iterable[object] = (),
        round_trip: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        schema: type[T],
        *,
        key: Callable[[T], str | None],
        groups: Iterable[str] = (),
        content_type: str | None = None,
        options: Iterable[object] = (),
        round_trip: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Topic[Any]",
        name: str,
        schema: object = None,
        *,
        key: str | None = None,
        groups: Iterable[str] = (),
        content_type: str | None = None,
        options: Iterable[object] = (),
        round_trip: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "Topic[Any]",
        name: str,
        schema: UnionType | None = None,  # object would take classes too, and their topics would be of Any
        *,
        key: Callable[[Any], str | None],
        groups: Iterable[str] = (),
        content_type: str | None = None,
        options: Iterable[object] = (),
        round_trip: bool = True,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        schema: object = None,
        *,
        key: str | Callable[[Any], str | None] | None = None,
        groups: Iterable[str] = (),
        content_type: str | None = None,
        options: Iterable[object] = (),
        round_trip: bool = True,
    ) -> None:
        self.name = check_topic_name(name)
        self.schema = schema
        self.key = key
        if isinstance(groups, str):
            raise ConfigurationError(f"groups is a list of names, not one name: groups=[{groups!r}]")
        for option, given in (("groups", groups), ("options", options)):
            if isinstance(given, str) or not isinstance(given, Iterable):
                of = "names" if option == "groups" else "option objects"
                raise ConfigurationError(f"{option} is a list of {of}, not {type(given).__name__} {given!r}")
        if not (content_type is None or isinstance(content_type, str)):
            raise ConfigurationError(f"a content type is text, not {type(content_type).__name__} {content_type!r}")
        if not (key is None or isinstance(key, str) or callable(key)):
            raise ConfigurationError(f"key is the name of a field or a function, not {type(key).__name__} {key!r}")
        if callable(key) and (wrong := not_a_plain_call(key, "the payload")):
            raise ConfigurationError(f"the key of topic {name!r} cannot be had by {key!r}: {wrong}")
        self.groups = tuple(check_group_name(group) for group in groups)
        self.content_type = content_type
        self.options = tuple(options)
        self.round_trip = round_trip

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {schema_name(self.schema)})"

    def key_of(self, payload: T) -> str | None:
        """The key of `payload`; None where the topic has no key or this payload has none.

        Raises:
            EncodeError: the field is missing, or the function failed.
        """
        key = self.key
        if key is None:
            return None
        try:
            if callable(key):
                found: object = key(payload)
            else:
                found = payload[key] if _is_mapping(type(payload)) else getattr(payload, key)  # type: ignore[index, arg-type] # told by it
        except Exception as error:
            raise EncodeError(f"no key for {self!r}: {type(error).__name__}: {error}") from error
        return found if type(found) is str else _key_text(found, self)


@lru_cache(1024)
def _is_mapping(kind: type) -> bool:
    """Remembered: the answer takes longer than all else that is done for a key."""
    return issubclass(kind, Mapping)


def _key_text(found: object, topic: Topic[Any]) -> str | None:
    """The key as text: an Enum's value, bytes as they are.

    Raises:
        EncodeError: it is a secret, and a key can be seen by all; or its text is not the same for equal payloads.
    """
    if isinstance(found, Enum):
        found = found.value
    if found is None or isinstance(found, str):
        return found
    if isinstance(found, (bytes, bytearray)):
        return found.decode("utf-8", "surrogateescape")
    if hasattr(found, "get_secret_value"):
        raise EncodeError(f"no key for {topic!r}: it is a secret, and keys are not; choose another field")
    if wrong := not_over(found):
        raise EncodeError(f"no key for {topic!r}: it is {wrong}; a key is text, or what `str` makes text of")
    if type(found).__str__ is object.__str__ and type(found).__repr__ is object.__repr__:
        raise EncodeError(
            f"no key for {topic!r}: the text of a {type(found).__name__} is where it lies in memory, which is another "
            "one for each payload; choose what is in it"
        )
    if isinstance(found, (set, frozenset)):
        raise EncodeError(f"no key for {topic!r}: a set has no order, so its text differs from process to process")
    return str(found)


def schema_name(schema: object) -> str:
    """The name of a schema as it travels in the envelope and stands in errors."""
    if schema is None:
        return "any"
    return schema.__qualname__ if isinstance(schema, type) else str(schema)
