"""What `subscribe` was used for: its options, the decorator's types, and one record for each handler."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, overload

from mqkit.callables import function_name, is_async
from mqkit.durations import Duration, seconds
from mqkit.errors import ConfigurationError
from mqkit.handler import LOST_WORKERS, PREFETCH, PREFETCH_BYTES, HandlerOptions
from mqkit.message import Message
from mqkit.middleware import Around, Middleware
from mqkit.retry import Retry
from mqkit.signature import takes_message
from mqkit.topic import Topic, check_group_name

if TYPE_CHECKING:
    from mqkit.settings import GroupPolicy

T = TypeVar("T")
R = TypeVar("R")
Result = TypeVar("Result")


class SubscribeOptions(TypedDict, total=False):
    """How a group works at a topic."""

    retry: Retry | None
    """How often and how patiently a failing message is tried; `Retry()` if not given."""
    ordering: Literal["key", "none"]
    """"key": messages of one key in the order of publication, one at a time, retries included. "none" if not given."""
    concurrency: int
    """At most so many handlers at once in this process; 10 if not given."""
    prefetch: int
    """At most so many more messages wait in this process; 250 if not given."""
    prefetch_bytes: int
    """At most about so many bytes of bodies are in this process, running and waiting, whatever `prefetch` says; one
    message may be larger. 64 MiB if not given."""
    timeout: Duration | None
    """Seconds after which a call counts as failed; a plain function goes on in its thread, and is told of as stuck."""
    grace: Duration | None
    """Seconds that running handlers get at the end; the app's setting if not given."""
    lost_workers: int
    """A message that was with two workers when they were lost (killed, crashed, silent for too long) may be the cause,
    so it is handled alone from then on; after so many more it is a dead letter, for the reason `worker-lost`. Each
    counts as an attempt of `retry`, too. 3 if not given."""
    middleware: Sequence[Middleware]
    """Around this handler, inside the app's."""


class PlainSubscribing(Protocol[T]):
    """What `App.subscribe` returns: a decorator that gives the function back unchanged. Its result is not used."""

    @overload
    def __call__(self, function: Callable[[T], None]) -> Callable[[T], None]: ...
    @overload
    def __call__(self, function: Callable[[T, Message[T]], None]) -> Callable[[T, Message[T]], None]: ...


class PlainRepublishing(Protocol[T, R]):
    """What `App.subscribe(publish=...)` returns: the same, for functions that return what is published, or None."""

    @overload
    def __call__(self, function: Callable[[T], R | None]) -> Callable[[T], R | None]: ...
    @overload
    def __call__(self, function: Callable[[T, Message[T]], R | None]) -> Callable[[T, Message[T]], R | None]: ...


class Subscribing(Protocol[T]):
    """What `AsyncApp.subscribe` returns: a decorator that gives the function back unchanged."""

    @overload
    def __call__(self, function: Callable[[T], Result]) -> Callable[[T], Result]: ...
    @overload
    def __call__(self, function: Callable[[T, Message[T]], Result]) -> Callable[[T, Message[T]], Result]: ...


class Republishing(Protocol[T, R]):
    """What `AsyncApp.subscribe(publish=...)` returns: the same, for functions that return what to publish, or None."""

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
        plain: whether async functions are refused.
    """

    def __init__(self, policies: "Mapping[str, GroupPolicy]", *, plain: bool = False) -> None:
        self._policies = policies
        self._plain = plain
        self._found: dict[tuple[str, str], Registration] = {}

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def decorator(
        self,
        topic: Topic[Any],
        group: str,
        given: SubscribeOptions,
        publish: Topic[Any] | None,
        middleware: Sequence[Middleware],
    ) -> Callable[..., Any]:
        """Registers the decorated function, and gives it back unchanged.

        Raises:
            ConfigurationError: an option, the group's name or a middleware makes no sense; or, from the decorator: the
                function cannot be a handler of this topic, or the group has a handler for it already.
        """
        Around(middleware, plain=self._plain)
        options = self._options(topic, group, given)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            if self._plain and is_async(function):
                raise ConfigurationError(
                    f"handler {function_name(function)} is async, and App runs plain functions in threads: "
                    "write it with def, or use AsyncApp"
                )
            takes_message(function, topic)
            known = self._found.get((topic.name, group))
            if known is not None:
                raise ConfigurationError(
                    f"group {group!r} has a handler for topic {topic.name!r} already, "
                    f"{function_name(known.function)}; give {function_name(function)} a group of its own"
                )
            self._found[topic.name, group] = Registration(topic, group, function, options, publish, tuple(middleware))
            return function

        return register

    def made(
        self, topic: Topic[Any], group: str, function: Callable[..., Any], given: SubscribeOptions
    ) -> Registration:
        """One that is not among these: for a consumer, which may come and go. Raises ConfigurationError."""
        return Registration(topic, group, function, self._options(topic, group, given), None, ())

    def _options(self, topic: Topic[Any], group: str, given: SubscribeOptions) -> HandlerOptions:
        check_group_name(group)
        options = handler_options(given)
        policy = self._policies.get(f"{topic.name}.{group}")
        return options if policy is None else policy.apply(options)


def handler_options(options: SubscribeOptions) -> HandlerOptions:
    """What `subscribe` was given, as data.

    Raises:
        ConfigurationError: an option makes no sense.
        TypeError: there is no such option.
    """
    if unknown := options.keys() - SubscribeOptions.__annotations__.keys():
        known = ", ".join(SubscribeOptions.__annotations__)
        raise TypeError(f"subscribe has no option {min(unknown)!r}; it has group, publish, {known}")
    return HandlerOptions(
        retry=Retry() if (retry := options.get("retry")) is None else retry,
        ordering=options.get("ordering", "none"),
        concurrency=options.get("concurrency", 10),
        prefetch=options.get("prefetch", PREFETCH),
        prefetch_bytes=options.get("prefetch_bytes", PREFETCH_BYTES),
        timeout=_seconds(options.get("timeout"), "timeout"),
        grace=_seconds(options.get("grace"), "grace"),
        lost_workers=options.get("lost_workers", LOST_WORKERS),
    )


def _seconds(value: Duration | None, option: str) -> float | None:
    return None if value is None else seconds(value, option=option)
