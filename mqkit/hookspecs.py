"""What a plugin may add: eight hooks, all called once, when an app is made, started or stopped; none for a message."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from mqkit.backend import BackendSpec
from mqkit.events import Listener
from mqkit.topology import TopicNeed

if TYPE_CHECKING:
    from mqkit.codec import Codec
    from mqkit.middleware import Middleware

PROJECT = "mqkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mqkit_backends() -> Sequence[BackendSpec]:  # type: ignore[empty-body]
    """Backends, each with the URL schemes it answers to."""


@hookspec
def mqkit_codecs() -> "Sequence[Codec]":  # type: ignore[empty-body]
    """Codecs, each with its content type."""


@hookspec
def mqkit_middleware() -> "Sequence[Middleware]":  # type: ignore[empty-body]
    """Middleware for every handler of the app, outside of the app's own."""


@hookspec
def mqkit_listeners() -> Sequence[Listener]:  # type: ignore[empty-body]
    """Callables that get every event."""


@hookspec
def mqkit_topology() -> Iterable[TopicNeed]:  # type: ignore[empty-body]
    """Topics that must exist although no handler of the app names them."""


@hookspec
def mqkit_commands() -> "Sequence[tuple[str, Callable[..., Any]]]":  # type: ignore[empty-body]
    """Commands for the command line: name and function, as typer takes them."""


@hookspec
def mqkit_startup(app: object) -> None:
    """The app is connected and declared, and starts to work.

    May be async: AsyncApp awaits it, App refuses it by its plugin's name.
    """


@hookspec
def mqkit_shutdown(app: object) -> None:
    """The app has stopped working and still has its connection. May be async, as `mqkit_startup`."""
