"""What the author of a backend supplies, so that the conformance suite can run on it: one small class.

class MyHarness(Harness):
    name = "mybroker"
    abilities = frozenset({"interrupt"})

    @contextmanager
    def interrupt(self) -> Iterator[None]: ...
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar
from urllib.parse import urlencode

from mqkit.backend import Backend, Capabilities, Subscription
from mqkit.message import NO_HEADERS, Headers, Outgoing, WireMessage
from mqkit.testing.colours import backend_of, with_backend

ABILITIES = {
    "interrupt": "the broker goes away and comes back",
    "disconnect": "the broker closes all connections",
    "destroy": "a group is deleted at the broker while it is worked on",
    "cancel": "a handler that takes too long can be ended",
}
"""What a harness, and the app's colour, may be able to do, beside what the backend is capable of."""


def with_options(url: str, **options: object) -> str:
    """`url` with these added to its query."""
    base, _, query = url.partition("?")
    return f"{base}?{'&'.join(filter(None, (query, urlencode(options))))}"


class Harness:
    """One broker, for one test.

    Args:
        url: of the broker, with whatever options make it quick to test.
    """

    name: ClassVar[str]
    """Of the backend, as the head of a column."""
    listed: ClassVar[bool] = True
    """Whether the table of promises has a column of it."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """Which of ABILITIES there are."""
    huge: ClassVar[int] = 20 * 1024 * 1024
    """Bytes of a body that is larger than an app takes by default, if the broker carries it."""
    large_topic_options: ClassVar[tuple[object, ...]] = ()
    """Options of a topic that shall carry it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def capabilities(self) -> Capabilities:
        """What the backend says that it gives."""
        return backend_of(self.url, "AsyncApp").capabilities

    @property
    def largest(self) -> int:
        """Bytes of the largest body that this broker takes as it is set up here; asked only if there is a limit."""
        return self.capabilities.max_message_bytes or 0

    def lacking(self, needs: frozenset[str]) -> frozenset[str]:
        """Which of these capabilities and abilities are not there."""
        return self.capabilities.lacking(needs - self.abilities)

    # ---- faults

    def interrupt(self) -> AbstractContextManager[None]:
        """Within the block nothing can be sent to or received from the broker; when it ends, both work again."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """The broker closes every connection, and takes new ones."""
        raise NotImplementedError

    def destroy(self, topic: str, group: str) -> None:
        """Delete what holds the group's messages, behind the back of those who work on it."""
        raise NotImplementedError

    # ---- a stranger who knows nothing of mqkit

    def raw_publish(
        self,
        topic: str,
        body: bytes,
        *,
        headers: Headers = NO_HEADERS,
        key: bytes | None = None,
        content_type: str | None = None,
    ) -> None:
        """Publish as a plain client would: these bytes, these headers and nothing else. Returns when it is safe.

        Here by the backend's own sender; with the broker's own client where there is one.
        """

        async def send(backend: Backend) -> None:
            sender = await backend.open_sender()
            try:
                await sender.send([Outgoing(WireMessage(body, headers, key, content_type), topic)], 30.0)
            finally:
                await sender.close()

        with_backend(self.url, "AsyncApp", send)

    def raw_receive(self, topic: str, group: str, number: int) -> Sequence[WireMessage]:
        """The first `number` messages of the group as a plain client reads them; nobody else works on it."""

        async def receive(backend: Backend) -> list[WireMessage]:
            receiver = await backend.open_receiver(Subscription(topic=topic, group=group), lambda *_: None)
            found: list[WireMessage] = []
            try:
                while len(found) < number:
                    deliveries = await receiver.receive(number - len(found), 30.0)
                    assert deliveries, f"{len(found)} of {number} messages came within 30 s"
                    found += [delivery.message for delivery in deliveries]
            finally:
                await receiver.close()
            return found

        return with_backend(self.url, "AsyncApp", receive)

    # ---- afterwards

    def cleanup(self, topics: Sequence[str]) -> None:
        """Remove what a test left of these topics, their groups included."""

    def close(self) -> None:
        """Let go of what the harness itself holds."""
