"""What `subscribe` was used for: the decorator's types, and one record for each handler, before an app is open."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from mqkit.errors import ConfigurationError
from mqkit.handler import HandlerOptions, function_name, takes_message
from mqkit.message import Message
from mqkit.middleware import Around, Middleware
from mqkit.topic import Topic, check_group_name

if TYPE_CHECKING:
    from mqkit.settings import GroupPolicy

T = TypeVar("T")
R = TypeVar("R")
Result = TypeVar("Result")


class Subscribing(Protocol[T]):
    """What `subscribe` returns: a decorator that gives the function back unchanged."""

    @overload
    def __call__(self, function: Callable[[T], Result]) -> Callable[[T], Result]: ...
    @overload
    def __call__(self, function: Callable[[T, Message[T]], Result]) -> Callable[[T, Message[T]], Result]: ...


class Republishing(Protocol[T, R]):
    """What `subscribe(publish=...)` returns: the same, for functions that return what is published, or None."""

    @overload
    def __call__(self, function: Callable[[T], Awaitable[R | None]]) -> Callable[[T], Awaitable[R | None]]: ...
    @overload
    def __call__(
        self, function: Callable[[T, Message[T]], Awaitable[R | None]]
    ) -> Callable[[T, Message[T]], Awaitable[R | None]]: ...
    @overload
    def __call__(self, function: Callable[[T], R | None]) -> Callable[[T], R | None]: ...
    @overload
    def __call__(self, function: Callable[[T, Message[T]], R | None]) -> Callable[[T, Message[T]], R | None]: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """One use of `subscribe`."""

    topic: Topic[Any]
    group: str
    function: Callable[..., Any]
    options: HandlerOptions
    publish: Topic[Any] | None
    middleware: tuple[Middleware, ...]


class Registrations:
    """The handlers of an app, one for each topic and group.

    Args:
        policies: `topic.group` -> what configuration says of its options.
    """

    def __init__(self, policies: "Mapping[str, GroupPolicy]") -> None:
        self._policies = policies
        self._found: dict[tuple[str, str], Registration] = {}

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def decorator(
        self,
        topic: Topic[Any],
        group: str,
        options: HandlerOptions,
        publish: Topic[Any] | None,
        middleware: Sequence[Middleware],
    ) -> Callable[..., Any]:
        """Registers the decorated function, and gives it back unchanged.

        Raises:
            ConfigurationError: the group's name or a middleware is none; or, from the decorator: the function cannot
                be called with a payload, or the group has a handler for the topic already.
        """
        check_group_name(group)
        Around(middleware)
        policy = self._policies.get(f"{topic.name}.{group}")
        if policy is not None:
            options = policy.apply(options)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            takes_message(function)
            known = self._found.get((topic.name, group))
            if known is not None:
                raise ConfigurationError(
                    f"group {group!r} has a handler for topic {topic.name!r} already, "
                    f"{function_name(known.function)}; give {function_name(function)} a group of its own"
                )
            self._found[topic.name, group] = Registration(topic, group, function, options, publish, tuple(middleware))
            return function

        return register
