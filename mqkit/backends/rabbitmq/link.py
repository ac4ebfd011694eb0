"""One connection to RabbitMQ. A driver does handshake, heartbeats and what is rare; `stream.Frames` what is not.

Opens, calls and closes, and says in mqkit's errors what went wrong; never reconnects.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from mqkit.backends.rabbitmq.channels import (
    AccessRefused,
    Channel,
    ChannelClosed,
    Connect,
    Connection,
    DriverError,
    NotAuthenticated,
)
from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.stream import Frames, Traffic
from mqkit.errors import AuthenticationFailed, BackendError, ConnectionLost

CLOSE_TIMEOUT = 3.0
"""Seconds for a good-bye; after that the socket is dropped."""
PREFETCH_MAX = 65_535
"""What AMQP can say. Unlimited, 0, is 2,000 to a quorum queue."""
ACCESS_REFUSED, NOT_ALLOWED = 403, 530


def _text(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.args[-1])
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.args[-1]) if error.args else type(error).__name__


def _not_opened(error: BaseException, url: RabbitUrl, stream: Frames) -> BackendError:
    code, text = stream.refusal or (0, _text(error))
    if isinstance(error, NotAuthenticated):
        return AuthenticationFailed(f"RabbitMQ at {url.where} does not offer the authentication {url.auth!r}")
    if code == ACCESS_REFUSED:
        return AuthenticationFailed(f"RabbitMQ at {url.where} refused the user {url.user!r}: {text}")
    if code == NOT_ALLOWED:
        return AuthenticationFailed(f"RabbitMQ at {url.where} does not open the virtual host {url.vhost!r}: {text}")
    if isinstance(error, ssl.SSLError):
        return ConnectionLost(f"no TLS connection to RabbitMQ at {url.where}: {text}")
    return ConnectionLost(f"no connection to RabbitMQ at {url.where}: {text}")


class Numbers:
    """Which numbers are free for channels. The one that was freed longest ago comes first."""

    def __init__(self, highest: int) -> None:
        self._highest = highest
        self._fresh = 0
        self._freed: deque[int] = deque()

    def take(self) -> int | None:
        """One that is free; None if there is none."""
        if self._fresh < self._highest:
            self._fresh += 1
            return self._fresh
        return self._freed.popleft() if self._freed else None

    def free(self, number: int) -> None:
        """It may be taken again."""
        self._freed.append(number)


class Link:
    """One connection, opened with `Link.open`."""

    def __init__(self, url: RabbitUrl, connection: Connection, stream: Frames) -> None:
        self.url = url
        self.stream = stream
        self.before_consuming: Callable[[str, Channel], Awaitable[None]] | None = None
        """What has to be done before a queue is consumed from on a channel."""
        self._connection = connection
        self._numbers = Numbers(connection.channel_max)
        self._open: dict[int, Channel] = {}
        """By number. Who drops a channel must not touch the next of that number."""
        stream.established = True

    @classmethod
    async def open(cls, url: RabbitUrl, connect: Connect, timeout: float) -> "Link":
        """A new connection, made by a driver's `connect`.

        Raises:
            ConnectionLost: not there within `timeout` seconds; names host, port and reason.
            AuthenticationFailed: it does not let us in.
        """
        stream = Frames(asyncio.get_running_loop(), url.where)
        try:
            async with asyncio.timeout(timeout):
                connection = await connect(url, stream)
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ at {url.where} did not answer within {timeout:g} s") from error
        except (DriverError, OSError, EOFError) as error:
            raise _not_opened(error, url, stream) from error
        return cls(url, connection, stream)

    @property
    def lost(self) -> ConnectionLost | None:
        """Why this connection is no more."""
        return self.stream.ended

    @property
    def product(self) -> str:
        """What the broker says that it is."""
        return self._connection.product

    @property
    def frame_max(self) -> int:
        """Bytes of a frame, at most."""
        return self._connection.frame_max

    def raise_if_lost(self) -> None:
        """Raise ConnectionLost if this connection is no more."""
        if self.lost is not None:
            raise ConnectionLost(str(self.lost)) from self.lost

    @asynccontextmanager
    async def calling(self, timeout: float | None = None) -> AsyncGenerator[None]:
        """Around calls of the driver: what it raises becomes mqkit's.

        ChannelClosed passes, but a refusal for lack of permission: only the caller knows what it means.
        """
        limit = self.url.connection_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError as error:
            raise ConnectionLost(f"RabbitMQ at {self.url.where} did not answer within {limit:g} s") from error
        except AccessRefused as error:
            raise AuthenticationFailed(str(error)) from error
        except (ChannelClosed, BackendError):
            raise
        except Exception as error:
            self.raise_if_lost()
            if isinstance(error, DriverError):
                raise BackendError(f"RabbitMQ at {self.url.where}: {error}", retryable=True) from error
            raise

    async def channel(self, *, confirms: bool = False, traffic: Traffic | None = None) -> Channel:
        """A new channel, whose messages are `traffic`'s business."""
        self.raise_if_lost()
        number = self._numbers.take()
        if number is None:
            raise BackendError(
                f"RabbitMQ at {self.url.where} allows {self._connection.channel_max:,} channels on a connection, and "
                f"so many are open: raise channel_max in rabbitmq.conf, or subscribe in more than one process",
                retryable=True,
            )
        async with self.calling():  # where this fails the number is given up: RabbitMQ may have it open
            channel = await self._connection.channel(number, confirms=confirms)
        self.raise_if_lost()
        self._open[number] = channel
        if traffic is not None:
            self.stream.route(number, traffic)
        return channel

    async def consume(self, channel: Channel, queue: str, prefetch: int, tag: str = "") -> str:
        """Begin to; what is delivered is the channel's traffic. The consumer's tag."""
        if self.before_consuming is not None:
            await self.before_consuming(queue, channel)
        return await channel.consume(queue, min(prefetch, PREFETCH_MAX), tag)

    async def drop(self, channel: Channel) -> None:
        """Close `channel`; idempotent, never raises. Its number is free when both sides have closed it."""
        number = channel.number
        if self._open.get(number) is not channel:
            return
        del self._open[number]
        self.stream.silence(number)
        if self.lost is None and not channel.is_closed:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await channel.close()
        if channel.is_closed:
            self.stream.forget(number)
            self._numbers.free(number)

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
        self.stream.abort()
        await self._connection.ended()
