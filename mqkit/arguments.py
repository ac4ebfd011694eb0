"""What untyped callers give where something else is needed, told in a sentence before anything is done."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mqkit.errors import EncodeError, FieldError, MessageError, SchemaError
from mqkit.topic import Topic

T = TypeVar("T")


def topic_of(given: Topic[T], use: str, kind: type[Exception] = TypeError) -> Topic[T]:
    """What was given as a topic.

    Args:
        use: what it was given to, for the error.
        kind: of the error.

    Raises:
        TypeError, or what `kind` says: it is none; the text says what to write.
    """
    if not isinstance(given, Topic):
        shown = f"the text {given!r}" if isinstance(given, str) else type(given).__name__
        raise kind(f"{use} takes a Topic, not {shown}: write orders = Topic('orders', Order), and {use} it")
    return given


def name_of(topic: Topic[Any] | str) -> str:
    """Of a topic that may be named alone. Raises TypeError."""
    return topic if isinstance(topic, str) else topic_of(topic, "this").name


def many(payloads: Iterable[T]) -> Iterable[T]:
    """Payloads that were given as many.

    Raises:
        TypeError: it is one.
    """
    given: object = payloads
    one = isinstance(given, (str, bytes, bytearray, Mapping)) or hasattr(type(given), "model_fields")
    if one or not isinstance(given, Iterable):
        raise TypeError(
            f"publish_many takes many payloads, not one {type(given).__name__}: write [payload], or publish"
        )
    return payloads


def whole(value: object, option: str, kind: type[Exception] = TypeError) -> None:
    """Make sure that an option is a whole number, of any kind. Raises TypeError, or what `kind` says."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise kind(f"{option} is a whole number, not {type(value).__name__} {value!r}")


def number(value: object, option: str) -> None:
    """Make sure that an option is a number, of any kind. Raises TypeError."""
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{option} is a number, not {type(value).__name__} {value!r}")


def several(given: object, option: str, kind: type[Exception] = TypeError) -> None:
    """Make sure that a list of objects was given. Raises TypeError, or what `kind` says: it is one, or text."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise kind(f"{option} is a list of them, not {type(given).__name__}: write {option}=[...]")


def in_batch(position: int, error: MessageError) -> MessageError:
    """`error` of one payload among many."""
    if isinstance(error, SchemaError):
        fields = [FieldError(f"{position}.{f.path}" if f.path else str(position), f.problem) for f in error.fields]
        return SchemaError(error.schema, fields)
    return EncodeError(f"payload {position}: {error}") if isinstance(error, EncodeError) else error
