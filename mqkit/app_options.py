"""What an app takes beside its URL."""

from collections.abc import Sequence
from typing import TypedDict

from mqkit.durations import Duration, seconds
from mqkit.events import Listener
from mqkit.middleware import Middleware


class AppOptions(TypedDict, total=False):
    """What an app takes beside its URL."""

    service: str | None
    """Who publishes: the CloudEvents `source`, and part of every dead letter."""
    version: str | None
    """Of the service."""
    declare: bool | None
    """Whether to create what is missing at the broker."""
    publish_timeout: Duration | None
    """Seconds within which every publish ends."""
    grace: Duration | None
    """Seconds that running handlers get at the end."""
    plugins: Sequence[object]
    """Plugin objects or modules beside those that are installed."""
    middleware: Sequence[Middleware]
    """Around every handler of this app, outermost first."""
    listeners: Sequence[Listener]
    """Callables that get every event."""


def arguments(url: str | None, options: AppOptions) -> dict[str, object]:
    """Those that are settings, too: what an app was given goes before all other sources; None: it was not.

    Raises:
        TypeError: there is no such option.
    """
    if unknown := options.keys() - AppOptions.__annotations__.keys():
        known = ", ".join(AppOptions.__annotations__)
        raise TypeError(f"an app has no option {min(unknown)!r}; it has url, {known}")
    return {
        "url": url,
        "service": options.get("service"),
        "version": options.get("version"),
        "declare": options.get("declare"),
        "publish_timeout": _seconds(options.get("publish_timeout"), "publish_timeout"),
        "grace": _seconds(options.get("grace"), "grace"),
    }


def _seconds(value: Duration | None, option: str) -> float | None:
    return None if value is None else seconds(value, option=option)
