"""Nothing in the public API is Any, but for the places that are listed here with their reasons.

Walks all that `import mqkit` gives: functions, methods, overloads, properties, fields, and the types of ours that these
name. A class without its arguments (a bare `list`) counts as Any, and so does a parameter without a type.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

import mqkit
from mqkit.settings import Settings

ANY_TOPIC = "a topic of whatever payload: Topic is invariant, so Topic[object] would take none of a user's topics"
NO_SCHEMA = "a topic without a schema has payloads of any type"
HANDLERS = "a middleware stands around handlers of every topic"
FOUND = "what a user's function looks like is told by the decorator's type; a registration is for tools"
RIGHT: dict[str, str] = {
    "App.inspect(topic)": ANY_TOPIC,
    "App.dead_letters(topic)": ANY_TOPIC,
    "AsyncApp.inspect(topic)": ANY_TOPIC,
    "AsyncApp.dead_letters(topic)": ANY_TOPIC,
    "Middleware": HANDLERS,
    "AppOptions.middleware": HANDLERS,
    "SubscribeOptions.middleware": HANDLERS,
    "Registration.middleware": HANDLERS,
    "Registration.function": FOUND,
    "Registration.topic": ANY_TOPIC,
    "Registration.publish": ANY_TOPIC,
    "Topic.__init__(self)": NO_SCHEMA,
    "Topic.__init__(key)": NO_SCHEMA,
}
OURS = "mqkit."
LATE: dict[str, object] = {
    "Settings": Settings,
    "Sequence": Sequence,
    "Mapping": Mapping,
    "datetime": datetime,
    "Decimal": Decimal,
}
LATE |= {"HeaderValue": object}
"""What types in quotes name; HeaderValue names itself."""
NOT_OURS = {"hookimpl"}
"""pluggy's."""
INSIDE = {"App.engine", "AsyncApp.engine", "AsyncApp.backend"} | {
    f"{name}.__init__"
    for name in ("AsyncConsumer", "AsyncDeadLetters", "Consumer", "DeadLetters", "FromThread", "Pulled")
}
"""Attributes for tools, and what only an app makes: what these name is not a user's matter."""


def holds_any(hint: Any) -> bool:
    """Whether there is Any in a type, or a generic class without its arguments."""
    if hint is Any:
        return True
    if isinstance(hint, list):
        return any(map(holds_any, hint))
    if typing.get_origin(hint) is typing.Literal:
        return False
    if arguments := typing.get_args(hint):
        return any(map(holds_any, arguments))
    return isinstance(hint, type) and (hint in (list, dict, tuple, set, frozenset) or _takes_arguments(hint))


def _takes_arguments(kind: type) -> bool:
    return bool(getattr(kind, "__parameters__", ())) and kind.__module__ == "typing"


def of_function(place: str, function: Callable[..., object]) -> Iterator[tuple[str, Any]]:
    """Each parameter's type and the result's; Any where there is none."""
    hints = typing.get_type_hints(function, localns=LATE)
    for number, name in enumerate(inspect.signature(function).parameters):
        of_method = number == 0 and name in ("self", "cls")
        if name in hints or not of_method:
            yield f"{place}({name})", hints.get(name, Any)
    if not place.endswith("__init__") or "return" in hints:
        yield place, hints.get("return", Any)


def of_class(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    for field, hint in typing.get_type_hints(kind, localns=LATE).items():
        if not field.startswith("_"):
            yield f"{name}.{field}", hint
    for member, value in vars(kind).items():
        if member.startswith("_") and member not in ("__init__", "__call__", "__enter__", "__aenter__"):
            continue
        found = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        made = member == "__init__" and (is_dataclass(kind) or getattr(kind, "_is_protocol", False))
        if isinstance(found, types.FunctionType) and not made:
            # asked for by name: of a protocol's overloads there is no function behind them
            named: Any = SimpleNamespace(__module__=kind.__module__, __qualname__=f"{kind.__qualname__}.{member}")
            for each in typing.get_overloads(named) or [found]:
                yield from of_function(f"{name}.{member}", each)


def named_by(hint: Any) -> Iterator[type]:
    """Our own classes in a type."""
    for argument in typing.get_args(hint):
        yield from named_by(argument)
    if isinstance(hint, list):
        for each in hint:
            yield from named_by(each)
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and origin.__module__.startswith(OURS):
        yield origin


def public() -> dict[str, list[Any]]:
    """Place -> its types: several where a function is overloaded."""
    places: dict[str, list[Any]] = {}
    classes: dict[str, type] = {}
    for name in mqkit.__all__:
        value = getattr(mqkit, name)
        if isinstance(value, type):
            classes[name] = value
        elif name not in NOT_OURS:
            places[name] = [value]  # an alias
    todo = list(classes.items())
    while todo:
        name, kind = todo.pop()
        for place, hint in of_class(name, kind):
            places.setdefault(place, []).append(hint)
            if place.partition("(")[0] in INSIDE:
                continue
            for found in named_by(hint):
                if found.__name__ not in classes:
                    classes[found.__name__] = found
                    todo.append((found.__name__, found))
    return places


def test_nothing_is_any_but_what_must_be() -> None:
    found = {place for place, hints in public().items() if any(map(holds_any, hints))}
    assert found == RIGHT.keys()


def test_the_walk_reaches_what_a_user_touches() -> None:
    places = public()
    for place in (
        "App.publish(payload)",
        "App.subscribe(options)",
        "App.settings",
        "AppOptions.middleware",
        "SubscribeOptions.retry",
        "PlainSubscribing.__call__(function)",
        "PlainRepublishing.__call__",
        "DeadLetters.replay(choose)",
        "DeadLetter.headers",
        "Message.payload",
        "Event.kind",
        "Retry.on",
        "SchemaError.__init__(fields)",
        "Listener",
    ):
        assert place in places, place
    assert len(places["App.subscribe"]) == 2, "both overloads, and not what is behind them"
    assert len(places["Republishing.__call__"]) == 4
    assert len(places) > 200


@pytest.mark.parametrize(
    "hint",
    [Any, list[Any], Callable[..., Any], Callable[[Any], None], dict[str, tuple[Any, ...]], list, dict, int | Any,
     mqkit.Topic[Any]],
)  # fmt: skip
def test_any_is_found_wherever_it_hides(hint: Any) -> None:
    assert holds_any(hint)


@pytest.mark.parametrize("hint", [None, int, object, list[int], Callable[[int], None], typing.Literal["a"], "T"])
def test_what_is_known_is_not_any(hint: Any) -> None:
    assert not holds_any(hint)


def test_a_parameter_without_a_type_counts_as_any() -> None:
    def function(known: int, unknown) -> None: ...  # type: ignore[no-untyped-def] # that is the test

    assert [place for place, hint in of_function("f", function) if holds_any(hint)] == ["f(unknown)"]
