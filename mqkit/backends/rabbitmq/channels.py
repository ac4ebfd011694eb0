"""What a client library does for mqkit, whichever it is: opens a connection, and calls what is rare on its channels.

Shapes, and what RabbitMQ refuses on a channel; the drivers (aiormq_driver, pika_driver) fulfil them.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.stream import Frames

NUMBERS = 65_535
"""Channels of a connection, as AMQP has it; a broker may allow fewer."""


def quieten(library: str) -> None:
    """It logs as errors what it raises too, and what it raises is mqkit's to tell. Who has set a level gets it all."""
    log = logging.getLogger(library)
    if log.level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)


class DriverError(Exception):
    """The client library gave up. Its own exception is the cause."""


class NotAuthenticated(DriverError):
    """The client library and RabbitMQ found no way to log in."""


class ChannelClosed(DriverError):
    """RabbitMQ closed the channel: it refused what was asked."""


class AccessRefused(ChannelClosed):
    """The user has no permission for it."""


class NotFound(ChannelClosed):
    """It does not exist."""


class Locked(ChannelClosed):
    """Another connection owns it."""


class PreconditionFailed(ChannelClosed):
    """It is there with other settings."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What RabbitMQ says of a queue that is there."""

    queue: str
    messages: int
    consumers: int


class Channel(Protocol):
    """One channel. Each call raises ChannelClosed if RabbitMQ refuses it, after which the channel is no more."""

    @property
    def number(self) -> int:
        """Which of its connection's."""
        ...

    @property
    def is_closed(self) -> bool:
        """It is no more."""
        ...

    async def exchange_declare(
        self,
        exchange: str,
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """Make it; with `passive` only look whether it is there."""
        ...

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """From one exchange to another."""
        ...

    async def queue_declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> Declared:
        """Make it; with `passive` only look whether it is there."""
        ...

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """From an exchange to a queue."""
        ...

    async def queue_delete(self, queue: str) -> None:
        """With all that is in it."""
        ...

    async def consume(self, queue: str, prefetch: int, tag: str = "") -> str:
        """Begin to, with at most `prefetch` messages out; the consumer's tag, of the broker's choice if not given."""
        ...

    async def cancel(self, consumer: str) -> None:
        """Consume no more. What is out stays out."""
        ...

    async def close(self) -> None:
        """Nothing else: no consumer is cancelled before, so that what is out goes back in its order, at once."""
        ...


class Connection(Protocol):
    """One connection."""

    @property
    def product(self) -> str:
        """What the broker says that it is."""
        ...

    @property
    def frame_max(self) -> int:
        """Bytes of a frame, at most."""
        ...

    @property
    def channel_max(self) -> int:
        """The highest number of a channel."""
        ...

    async def channel(self, number: int, *, confirms: bool) -> Channel:
        """A new channel of that number, which is free; with `confirms` the broker confirms what is published there."""
        ...

    @property
    def is_closed(self) -> bool:
        """Nothing of it is left."""
        ...

    async def close(self) -> None:
        """Say good-bye."""
        ...

    async def ended(self) -> None:
        """Return when nothing of it is left."""
        ...


Connect: TypeAlias = Callable[[RabbitUrl, Frames], Awaitable[Connection]]
"""Opens a connection over the stream: dials, and shakes hands. Raises DriverError or OSError."""


def product(properties: Mapping[str, object]) -> str:
    """What the broker's `properties` say that it is: `RabbitMQ 4.3.6`."""
    return " ".join(str(properties[name]) for name in ("product", "version") if name in properties)
