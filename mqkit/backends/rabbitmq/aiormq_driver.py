"""aiormq as the client library: handshake, heartbeats, and what is rare on its channels."""

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import aiormq
from aiormq import TransportFactory
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from yarl import URL

from mqkit.backends.rabbitmq import channels, frames
from mqkit.backends.rabbitmq.channels import Declared, DriverError
from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.pulse import PULSE
from mqkit.backends.rabbitmq.stream import Frames

channels.quieten("aiormq")

READ_LIMIT = 2**16
REFUSALS: Mapping[type[AMQPError], type[DriverError]] = {
    ChannelAccessRefused: channels.AccessRefused,
    ChannelNotFoundEntity: channels.NotFound,
    ChannelLockedResource: channels.Locked,
    ChannelPreconditionFailed: channels.PreconditionFailed,
    aiormq.exceptions.ChannelClosed: channels.ChannelClosed,
    AuthenticationError: channels.NotAuthenticated,
    AMQPError: DriverError,
}


@contextmanager
def told() -> Generator[None]:
    """What aiormq raises becomes a driver's."""
    try:
        yield
    except (AMQPError, aiormq.exceptions.ChannelInvalidStateError) as error:
        nearest = next((REFUSALS[kind] for kind in type(error).__mro__ if kind in REFUSALS), DriverError)
        raise nearest(str(error.args[-1]) if error.args else type(error).__name__) from error


class Reading(StreamReaderProtocol):
    """Where aiormq reads from."""

    def __init__(self, stream: Frames, reader: StreamReader) -> None:
        super().__init__(reader, loop=stream.loop)
        self._stream = stream
        self._reader = reader

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        del exc
        if self._stream.established:
            self._reader.feed_data(frames.CONNECTION_CLOSE_OK)  # so that aiormq's reader ends in peace
        super().connection_lost(None)


class Transports(TransportFactory):
    """Makes the transport that aiormq runs on, reading with Frames."""

    def __init__(self, url: RabbitUrl, stream: Frames) -> None:
        self._url = url
        self._stream = stream

    async def create(self, url: URL, **kwargs: Any) -> tuple[StreamReader, StreamWriter]:
        """As aiormq asks for it."""
        del url, kwargs
        loop = self._stream.loop
        reader = StreamReader(limit=READ_LIMIT, loop=loop)
        protocol = Reading(self._stream, reader)
        transport = await self._stream.dial(self._url, protocol)
        return reader, StreamWriter(transport, protocol, reader, loop)


class AiormqChannel:
    """The Channel."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self.number = channel.number

    @property
    def is_closed(self) -> bool:
        """As Channel.is_closed."""
        return self._channel.is_closed

    async def exchange_declare(
        self,
        exchange: str,
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """As Channel.exchange_declare."""
        with told():
            await self._channel.exchange_declare(
                exchange, exchange_type=kind, passive=passive, durable=durable, arguments=dict(arguments or {})
            )

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """As Channel.exchange_bind."""
        with told():
            await self._channel.exchange_bind(destination=destination, source=source, routing_key=routing_key)

    async def queue_declare(
        self,
        queue: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Declared:
        """As Channel.queue_declare."""
        with told():
            found = await self._channel.queue_declare(
                queue,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=dict(arguments or {}),
            )
        return Declared(found.queue or "", found.message_count or 0, found.consumer_count or 0)

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """As Channel.queue_bind."""
        with told():
            await self._channel.queue_bind(queue, exchange, routing_key)

    async def queue_delete(self, queue: str) -> None:
        """As Channel.queue_delete."""
        with told():
            await self._channel.queue_delete(queue)

    async def consume(self, queue: str, prefetch: int, tag: str = "") -> str:
        """As Channel.consume."""
        with told():
            await self._channel.basic_qos(prefetch_count=prefetch)
            return (await self._channel.basic_consume(queue, _ignore, consumer_tag=tag or None)).consumer_tag or ""

    async def cancel(self, consumer: str) -> None:
        """As Channel.cancel."""
        with told():
            await self._channel.basic_cancel(consumer)

    async def close(self) -> None:
        """As Channel.close."""
        with told():
            await self._channel.close()


async def _ignore(message: DeliveredMessage) -> None:
    """What aiormq would call, if it saw deliveries."""


class AiormqConnection:
    """The Connection."""

    def __init__(self, connection: aiormq.Connection) -> None:
        self._connection = connection
        self.product = channels.product(connection.server_properties)
        self.frame_max = connection.connection_tune.frame_max or frames.LARGEST
        self.channel_max = connection.connection_tune.channel_max or channels.NUMBERS

    async def channel(self, number: int, *, confirms: bool) -> AiormqChannel:
        """As Connection.channel. aiormq's own choice of a number can be one that RabbitMQ still holds for closing."""
        with told():
            return AiormqChannel(await self._connection.channel(number, publisher_confirms=confirms))

    @property
    def is_closed(self) -> bool:
        """As Connection.is_closed."""
        return self._connection.is_closed

    async def close(self) -> None:
        """As Connection.close."""
        await self._connection.close()

    async def ended(self) -> None:
        """As Connection.ended."""
        await asyncio.wait([self._connection.closing])


async def connect(url: RabbitUrl, stream: Frames) -> AiormqConnection:
    """As Connect."""
    connection = aiormq.Connection(URL(url.amqp, encoded=True), transport_factory=Transports(url, stream))
    with told():
        await connection.connect()
    PULSE.keep(stream, connection.connection_tune.heartbeat or 0)
    return AiormqConnection(connection)
