"""What a function is that shall be a handler, and what it takes: checked when it subscribes, before any message.

A function that could not work is refused by its name: one that would never run (a generator), one that lacks
something (a method without its object), one that expects what it will not get (another class than the topic's
schema). What cannot be told from outside is let through.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from inspect import Parameter
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from mqkit.callables import function_name, not_over, yields
from mqkit.errors import ConfigurationError
from mqkit.message import Message
from mqkit.topic import Topic, schema_name

JSON = "application/json"
UNCHECKED = (dict, list, str, int, float, bool, NoneType, bytes)
"""What the payload of a topic without a schema can be: JSON, or bytes as they are."""


def takes_message(function: Callable[..., Any], topic: Topic[Any] | None = None) -> bool:
    """Whether `function` wants the `Message` beside the payload.

    Args:
        function: what shall be called with the payload.
        topic: whose payloads it gets; None leaves annotations unread.

    Raises:
        ConfigurationError: it cannot be a handler; the text names it, and says why and what to do.
    """
    name = function_name(function)
    _check_kind(name, function)
    positional = _parameters(name, function)
    hints = _hints(function)
    first, *others = positional
    required = [p for p in positional if p.default is Parameter.empty]
    second = others[0] if others else None
    says_message = second is not None and _is_message(hints.get(second.name))
    if topic is not None:
        _check_payload(name, first, hints.get(first.name), topic)
        if second is not None and says_message:
            _check_message(name, second, hints.get(second.name), topic)
        elif second is not None and second in required:
            _check_second(name, function, second, hints.get(second.name))
    return says_message or len(required) == 2


def unusable_result(result: object) -> str:
    """What is wrong with what a handler returned: work that is not done, alone or among several; empty if nothing."""
    said = not_over(result)
    if not said and isinstance(result, (list, tuple)):
        said = next(filter(None, map(not_over, {type(each): each for each in result}.values())), "")
        said = said and f"{said}, inside of a {type(result).__name__}"
    if "await" in said:
        return f"{said}: write `return await ...`"
    return said and f"{said}: a handler does its work before it returns"


# ---- what it is


def _check_kind(name: str, function: Callable[..., Any]) -> None:
    if inspect.isclass(function):
        raise ConfigurationError(f"handler {name} is a class: subscribe a function, or a method of an object")
    if not callable(function):
        raise ConfigurationError(f"handler {name} cannot be called: subscribe a function")
    if yields(function):
        raise ConfigurationError(
            f"handler {name} contains `yield`, so that calling it runs nothing of it: do the work and return; "
            "to publish several messages, call app.publish in it"
        )


# ---- what it takes


def _parameters(name: str, function: Callable[..., Any]) -> list[Parameter]:
    """Its positional parameters, at least one."""
    try:
        parameters = list(_signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"handler {name}: its parameters cannot be read: {error}") from error
    positional = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    if positional and positional[0].name in ("self", "cls") and isinstance(inspect.unwrap(function), FunctionType):
        raise ConfigurationError(
            f"handler {name} is a method without its {positional[0].name}: subscribe it from an object, as in "
            "app.subscribe(topic, group=...)(till.bill)"
        )
    required = [p for p in positional if p.default is Parameter.empty]
    named = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    if not positional or len(required) > 2 or named:
        plain = name.rpartition(".")[2]
        takes = ", ".join([p.name for p in required] + [f"*, {each}" for each in named]) or "nothing that is required"
        wrapped = inspect.unwrap(function) is not function
        advice = "; if its decorator brings the rest, let it say what its wrapper takes: def wrapper(payload)"
        raise ConfigurationError(
            f"handler {name} takes {takes}: it is called as {plain}(payload) or {plain}(payload, message)"
            + (advice if wrapped else "")
        )
    return positional


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """How `function` itself is called; if it is a wrapper that takes anything, how what it wraps is."""
    own = inspect.signature(function, follow_wrapped=False)
    if any(p.kind is Parameter.VAR_POSITIONAL for p in own.parameters.values()) and not any(
        p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for p in own.parameters.values()
    ):
        return inspect.signature(function)
    return own


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Its annotations, as far as they can be read: names that only a type checker knows are left out."""
    while isinstance(function, partial):
        function = function.func
    target: Any = inspect.unwrap(function)
    if not inspect.isroutine(target):
        target = type(target).__call__
    target = getattr(target, "__func__", target)
    with suppress(Exception):  # an annotation may be any expression
        return get_type_hints(target, include_extras=True)
    found: dict[str, Any] = {}
    namespace = getattr(target, "__globals__", {})
    for name, hint in getattr(target, "__annotations__", {}).items():
        with suppress(Exception):
            found[name] = eval(hint, namespace) if isinstance(hint, str) else hint  # noqa: S307 - as get_type_hints does
    return {name: NoneType if hint is None else hint for name, hint in found.items()}


def _is_message(hint: object) -> bool:
    """Whether an annotation names the Message, alone or as one of several."""
    hint = _bare(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_is_message(each) for each in get_args(hint))
    return hint is Message or get_origin(hint) is Message


def _check_payload(name: str, first: Parameter, hint: object, topic: Topic[Any]) -> None:
    if hint is None:
        return
    if _is_message(hint):
        raise ConfigurationError(
            f"handler {name}: its first parameter {first.name!r} is annotated as the Message, and it gets the payload: "
            "write (payload, message)"
        )
    if topic.content_type not in (None, JSON) or not contradicts(hint, topic.schema):
        return  # only the codec of another content type knows what it makes
    expected = schema_name(hint)
    given, advice = (
        schema_name(topic.schema),
        f"annotate it as {schema_name(topic.schema)}, or give the topic that schema",
    )
    if topic.schema is None:
        given, advice = "not checked: it has no schema", f"write Topic({topic.name!r}, {expected})"
    raise ConfigurationError(
        f"handler {name}: its parameter {first.name!r} is annotated as {expected}, but the payloads of topic "
        f"{topic.name!r} are {given}; {advice}"
    )


def _check_message(name: str, second: Parameter, hint: object, topic: Topic[Any]) -> None:
    """A Message of something says what its payload is."""
    for each in get_args(hint) if get_origin(_bare(hint)) in (Union, UnionType) else (hint,):
        for payload in get_args(_bare(each)) if get_origin(_bare(each)) is Message else ():
            if topic.content_type in (None, JSON) and contradicts(payload, topic.schema):
                raise ConfigurationError(
                    f"handler {name}: its parameter {second.name!r} is annotated as a Message of "
                    f"{schema_name(payload)}, but the payloads of topic {topic.name!r} are {schema_name(topic.schema)}"
                )


def _check_second(name: str, function: Callable[..., Any], second: Parameter, hint: object) -> None:
    """A second parameter that is required gets the Message: whoever wants something else there is told."""
    wrapped = inspect.unwrap(function) is not function
    if hint is not None and _bare(hint) not in (Any, object) and not isinstance(_bare(hint), TypeVar):
        raise ConfigurationError(
            f"handler {name}: its second parameter {second.name!r} is annotated as {schema_name(hint)}, and it gets "
            "the Message: annotate it so, or give it a default to be left alone"
        )
    if wrapped and hint is None and "mes" not in second.name and "msg" not in second.name:
        raise ConfigurationError(
            f"handler {name} is wrapped by a decorator, and takes {second.name!r} beside the payload: if that is the "
            "Message, annotate it as Message; if the decorator brings it, let it say what its wrapper takes: "
            "def wrapper(payload)"
        )


# ---- whether an annotation can be true


def contradicts(hint: object, schema: object) -> bool:
    """Whether no payload of `schema` (None: any JSON) can be what the annotation `hint` says. False if unsure."""
    hint = _bare(hint)
    schema = _bare(schema)
    if schema is None:
        return _is_never_unchecked(hint)
    if isinstance(hint, TypeVar):
        return hint.__bound__ is not None and contradicts(hint.__bound__, schema)
    if schema in (Any, object) or hint in (Any, object, schema):
        return False
    if get_origin(schema) in (Union, UnionType):
        return all(contradicts(hint, each) for each in get_args(schema))
    if get_origin(hint) in (Union, UnionType):
        return all(contradicts(each, schema) for each in get_args(hint))
    wanted, given = _class_of(hint), _class_of(schema)
    if wanted is None or given is None:
        return False
    if not (_is_subclass(given, wanted) or _is_subclass(wanted, given)):
        return not (wanted in (float, complex) and given in (int, float, bool))
    inner, outer = get_args(schema), get_args(hint)
    if wanted is given and len(inner) == len(outer) and given in (list, set, frozenset, dict):
        return any(contradicts(ours, theirs) for ours, theirs in zip(outer, inner, strict=True))
    return False


def _is_never_unchecked(hint: object) -> bool:
    if hint in (Any, object):  # since Python 3.11 Any is a class
        return False
    if get_origin(hint) in (Union, UnionType):
        return all(_is_never_unchecked(_bare(each)) for each in get_args(hint))
    kind = _class_of(hint)
    return kind is not None and not any(_is_subclass(each, kind) for each in UNCHECKED)


def _class_of(hint: object) -> type | None:
    """The class that an annotation stands for; None if it stands for something else."""
    if get_origin(hint) is Literal:
        kinds = {type(value) for value in get_args(hint)}
        return kinds.pop() if len(kinds) == 1 else None
    kind = get_origin(hint) or hint
    if hint is None:
        return NoneType
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return None
    return dict if hasattr(kind, "__total__") else kind  # a TypedDict is a dict when it comes


def _is_subclass(kind: type, other: type) -> bool:
    try:
        return issubclass(kind, other)
    except TypeError:
        return True  # it does not tell


def _bare(hint: object) -> object:
    """An annotation without what stands around it: Annotated, NewType, a named alias."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__  # type: ignore[attr-defined] # of Python 3.12, or of typing_extensions
        else:
            return hint
