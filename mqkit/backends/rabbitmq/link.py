"""One connection to RabbitMQ. aiormq does handshake, heartbeats and what is rare; `stream.Frames` what is not.

Opens, calls and closes, and says in mqkit's errors what went wrong; never reconnects.
"""

import asyncio
import logging
import os
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiormq
from aiormq import TransportFactory
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
)
from yarl import URL

from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.stream import Frames, Traffic
from mqkit.errors import AuthenticationFailed, BackendError, ConnectionLost, map_errors

driver_log = logging.getLogger("aiormq")
if driver_log.level == logging.NOTSET:  # it logs as errors what it raises too, and what it raises is mqkit's to tell
    driver_log.setLevel(logging.CRITICAL)

CLOSE_TIMEOUT = 3.0
"""Seconds for a good-bye; after that the socket is dropped."""
READ_LIMIT = 2**16
ACCESS_REFUSED, NOT_ALLOWED = 403, 530


class Transports(TransportFactory):
    """Makes the transport that aiormq runs on, reading with Frames."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.frames: Frames | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[StreamReader, StreamWriter]:
        """As aiormq asks for it."""
        assert url.host is not None
        assert url.port is not None
        loop = asyncio.get_running_loop()
        provider = kwargs.pop("ssl_context_provider")
        context: ssl.SSLContext | None = await provider.get_context() if url.scheme == "amqps" else None
        reader = StreamReader(limit=READ_LIMIT, loop=loop)
        protocol = self.frames = Frames(reader, loop, self.where)
        transport, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context)
        return reader, StreamWriter(transport, protocol, reader, loop)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.args[-1]) if error.args else type(error).__name__


def _not_opened(error: BaseException, url: RabbitUrl, stream: Frames | None) -> BackendError:
    code, text = stream.refusal if stream is not None and stream.refusal is not None else (0, _text(error))
    if code == ACCESS_REFUSED or isinstance(error, AuthenticationError):
        return AuthenticationFailed(f"RabbitMQ at {url.where} refused the user {url.user!r}: {text}")
    if code == NOT_ALLOWED:
        return AuthenticationFailed(f"RabbitMQ at {url.where} does not open the virtual host {url.vhost!r}: {text}")
    if isinstance(error, ssl.SSLError):
        return ConnectionLost(f"no TLS connection to RabbitMQ at {url.where}: {text}")
    return ConnectionLost(f"no connection to RabbitMQ at {url.where}: {text}")


class Link:
    """One connection, opened with `Link.open`."""

    def __init__(self, url: RabbitUrl, connection: aiormq.Connection, stream: Frames) -> None:
        self.url = url
        self.stream = stream
        self.claims: set[str] = set()
        """Queues that this connection owns, see turn.py."""
        self._connection = connection
        stream.established = True

    @classmethod
    async def open(cls, url: RabbitUrl, timeout: float) -> "Link":
        """A new connection.

        Raises:
            ConnectionLost: not there within `timeout` seconds; names host, port and reason.
            AuthenticationFailed: it does not let us in.
        """
        transports = Transports(url.where)
        connection = aiormq.Connection(URL(url.amqp, encoded=True), transport_factory=transports)
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ at {url.where} did not answer within {timeout:g} s") from error
        except (AMQPError, OSError, EOFError) as error:
            raise _not_opened(error, url, transports.frames) from error
        assert transports.frames is not None
        return cls(url, connection, transports.frames)

    @property
    def lost(self) -> ConnectionLost | None:
        """Why this connection is no more."""
        return self.stream.ended

    @property
    def product(self) -> str:
        """What the broker says that it is."""
        properties = self._connection.server_properties
        return " ".join(str(properties[name]) for name in ("product", "version") if name in properties)

    @property
    def frame_max(self) -> int:
        """Bytes of a frame's payload, at most."""
        return self._connection.connection_tune.frame_max or 131_072

    def raise_if_lost(self) -> None:
        """Raise ConnectionLost if this connection is no more."""
        if self.lost is not None:
            raise ConnectionLost(str(self.lost)) from self.lost

    @asynccontextmanager
    async def calling(self, timeout: float | None = None) -> AsyncGenerator[None]:
        """Around calls of aiormq: what it raises becomes mqkit's.

        Channel errors pass, but a refusal for lack of permission: only the caller knows what they mean.
        """
        limit = self.url.connection_timeout if timeout is None else timeout
        try:
            with map_errors({ChannelAccessRefused: lambda error: AuthenticationFailed(_text(error))}):
                async with asyncio.timeout(limit):
                    yield
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ at {self.url.where} did not answer within {limit:g} s") from error
        except (aiormq.exceptions.ChannelClosed, BackendError):
            raise
        except Exception:
            self.raise_if_lost()
            raise

    async def channel(self, *, confirms: bool = False, traffic: Traffic | None = None) -> AbstractChannel:
        """A new channel, whose messages are `traffic`'s business."""
        self.raise_if_lost()
        async with self.calling():
            channel = await self._connection.channel(publisher_confirms=confirms)
        self.raise_if_lost()
        if traffic is not None:
            self.stream.traffic[channel.number] = traffic
        return channel

    async def drop(self, channel: AbstractChannel) -> None:
        """Close `channel`; never raises."""
        self.stream.traffic.pop(channel.number, None)
        if self.lost is None and not channel.is_closed:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await channel.close()

    async def close(self) -> None:
        """Say good-bye; idempotent, never raises, ends in a few seconds."""
        self.stream.flush()
        for attempt in (self._connection.close, self._abort):
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await attempt()
            if self._connection.is_closed:
                return

    async def _abort(self) -> None:
        if self.stream.transport is not None:
            self.stream.transport.abort()
        await asyncio.wait([self._connection.closing])
