"""A broker for a command: connected, and nothing declared."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mqkit.async_app import AsyncApp
from mqkit.backend import Backend
from mqkit.bridge import for_event_loop
from mqkit.errors import ConfigurationError
from mqkit.registry import masked
from mqkit.topology import TopicNeed, Topology


@dataclass(frozen=True, slots=True)
class Connection:
    """A backend that answered."""

    backend: Backend
    description: str
    url: str
    """Without its password."""


@asynccontextmanager
async def connected(app: AsyncApp) -> AsyncGenerator[Connection]:
    """Connect to the broker of `app`, and declare nothing.

    Raises:
        ConfigurationError: no backend answers to the URL, or its driver is missing.
        ConnectionLost, AuthenticationFailed: the broker does not answer, or does not let us in.
    """
    backend = for_event_loop(*app.engine.plugins.backends.open(app.settings.url, "asynchronous"))
    try:
        description = await backend.connect(app.settings.connect_timeout)
        yield Connection(backend, description, masked(app.settings.url))
    finally:
        await backend.close()


async def require_topic(backend: Backend, url: str, topic: str, advice: str = "") -> None:
    """Make sure that a topic exists.

    Raises:
        ConfigurationError: it does not; lists those that are known.
    """
    findings = await backend.examine(Topology((TopicNeed(topic),)))
    if any(finding.state == "missing" for finding in findings):
        raise ConfigurationError(f"there is no topic {topic!r} at {url}: {await _known(backend)}{advice}")


async def _known(backend: Backend) -> str:
    try:
        return known_topics(sorted({name for name, _ in await backend.groups()}))
    except ConfigurationError:  # the broker does not tell
        return "which there are cannot be seen"


def known_topics(names: list[str]) -> str:
    """Which topics there are, as part of a sentence."""
    if not names:
        return "no topic is known there yet"
    return f"known are {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
