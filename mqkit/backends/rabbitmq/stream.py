"""The stream of one connection, split into frames: those of messages go to their channel's owner, the rest to a driver.

Reading them here, in the transport's own callback, costs no task and no await for a frame; no property that a
stranger chose can end the connection, as it would inside of a client library; and a lost connection is known at once.
"""

import asyncio
from asyncio import AbstractEventLoop, Transport
from dataclasses import dataclass, field
from typing import Protocol, cast

from mqkit.backends.rabbitmq import frames, tls
from mqkit.backends.rabbitmq.frames import short
from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.errors import ConnectionLost

SIGN_OF_LIFE = 2.0
"""Seconds between the signs that tell the driver, which watches for silence, that frames arrive."""


class Traffic(Protocol):
    """What a channel's owner does with its messages. Called from the transport: must be quick and not raise."""

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """The broker took, or refused, what was published as `tag`."""
        ...

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """A message came back: nothing is there to receive it."""
        ...

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """A message arrived; `where` is the exchange and routing key that it was published with."""
        ...

    def cancelled(self) -> None:
        """The broker ended the consumer: its queue is gone."""
        ...

    def closed(self, code: int, text: str) -> None:
        """The broker closed the channel."""
        ...

    def lost(self, error: ConnectionLost) -> None:
        """The connection is gone."""
        ...


class _Nobody:
    """Whose channel is being closed: RabbitMQ gives back, or drops, what still comes."""

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """As Traffic's."""

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """As Traffic's."""

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's."""

    def cancelled(self) -> None:
        """As Traffic's."""

    def closed(self, code: int, text: str) -> None:
        """As Traffic's."""

    def lost(self, error: ConnectionLost) -> None:
        """As Traffic's."""


NOBODY: Traffic = _Nobody()


@dataclass(slots=True)
class _Content:
    """What is known of a message whose frames are still coming."""

    method: int
    data: bytes
    at: int
    header: bytes = b""
    missing: int = 0
    parts: list[bytes] = field(default_factory=list)


class Frames(asyncio.Protocol):
    """Splits the stream into frames, and gives each to whom it concerns: a Traffic, or the driver."""

    def __init__(self, loop: AbstractEventLoop, where: str, driver: asyncio.Protocol | None = None) -> None:
        self.loop = loop
        self.where = where
        self.driver = driver or asyncio.Protocol()
        """Hears of all that happens to the stream, and of the frames that are not messages."""
        self.transport: Transport | None = None
        self.traffic: dict[int, Traffic] = {}
        self.established = False
        """The handshake is over, which is the driver's alone."""
        self.ended: ConnectionLost | None = None
        self.refusal: tuple[int, str] | None = None
        """Code and text with which the broker closed the connection."""
        self.blocked: str | None = None
        """Why the broker takes no messages at present."""
        self.paused = False
        self._contents: dict[int, _Content] = {}
        self._rest = b""
        self._sign = loop.time()
        self._out: list[bytes] = []
        self._writable: asyncio.Event = asyncio.Event()
        self._writable.set()

    async def dial(self, url: RabbitUrl, driver: asyncio.Protocol) -> Transport:
        """Connect, for `driver`, which then shakes hands.

        Raises:
            ConfigurationError: about TLS.
            OSError: nobody answers, or not as expected.
        """
        self.driver = driver
        context = await self.loop.run_in_executor(None, tls.context, url)
        transport, _ = await self.loop.create_connection(lambda: self, url.host, url.port, ssl=context)
        return transport

    # --- reading

    def data_received(self, data: bytes) -> None:
        """As asyncio's."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        traffic, head = self.traffic, frames.HEAD.unpack_from
        if data.startswith(b"AMQP"):  # the broker speaks another version: the driver says so
            self.driver.data_received(data)
            return
        while end - at >= frames.OVERHEAD:
            kind, number, size = head(data, at)
            following = at + size + frames.OVERHEAD
            if following > end:
                break
            owner = traffic.get(number)
            if owner is None:
                if number == 0 and kind == frames.METHOD:
                    self._connection_method(data, at, following)
                else:
                    self.driver.data_received(data[at:following])
            elif kind == frames.METHOD:
                following = self._whole(owner, number, data, at, following) or following
            elif number in self._contents:
                self._content(owner, number, kind, data[at + 7 : following - 1])
            else:
                self.driver.data_received(data[at:following])
            at = following
        self._rest = data[at:]
        now = self.loop.time()
        if self.established and now - self._sign > SIGN_OF_LIFE:
            self._sign = now
            self.driver.data_received(frames.HEARTBEAT)

    def _connection_method(self, data: bytes, at: int, following: int) -> None:
        method = frames.UINT32.unpack_from(data, at + 7)[0]
        if method == frames.CONNECTION_BLOCKED:
            self.blocked = short(data, at + 11)[0] or "no reason given"
            self._writable.clear()
        elif method == frames.CONNECTION_UNBLOCKED:
            self.blocked = None
            self._settle_writable()
        elif method == frames.CONNECTION_CLOSE:
            self.refusal = frames.reason(data, at + 11)
            if self.established and self.transport is not None:
                # a driver would log this twice, with a traceback, and end in its own time
                self.transport.write(frames.CONNECTION_CLOSE_OK)
                self.transport.close()
                return
        self.driver.data_received(data[at:following])

    def _whole(self, owner: Traffic, number: int, data: bytes, at: int, following: int) -> int:
        """Take a method's frame; if it is a delivery and all that belongs to it lies behind it, that too: its end."""
        if frames.UINT32.unpack_from(data, at + 7)[0] == frames.BASIC_DELIVER:
            found = frames.content(data, following, number)
            if found is not None:
                header, body, end = found
                self._deliver(owner, data, at + 11, header, body)
                return end
        self._method(owner, number, data, at, following)
        return 0

    def _method(self, owner: Traffic, number: int, data: bytes, at: int, following: int) -> None:
        method = frames.UINT32.unpack_from(data, at + 7)[0]
        if method in {frames.BASIC_DELIVER, frames.BASIC_RETURN}:
            self._contents[number] = _Content(method, data, at + 11)
            return
        if method in {frames.BASIC_ACK, frames.BASIC_NACK}:
            tag, flags = frames.TAGGED.unpack_from(data, at + 11)
            owner.confirmed(tag, multiple=bool(flags & frames.MULTIPLE), accepted=method == frames.BASIC_ACK)
            return
        if method == frames.CHANNEL_CLOSE:
            self._contents.pop(number, None)
            owner.closed(*frames.reason(data, at + 11))
        elif method == frames.BASIC_CANCEL:
            owner.cancelled()
        self.driver.data_received(data[at:following])

    def _content(self, owner: Traffic, number: int, kind: int, payload: bytes) -> None:
        content = self._contents[number]
        if kind == frames.HEADER:
            content.header = payload
            content.missing = frames.CONTENT.unpack_from(payload)[2]
        else:
            content.missing -= len(payload)
            content.parts.append(payload)
        if content.missing:
            return
        body = content.parts[0] if len(content.parts) == 1 else b"".join(content.parts)
        del self._contents[number]
        data, at = content.data, content.at
        if content.method == frames.BASIC_DELIVER:
            self._deliver(owner, data, at, content.header, body)
        else:
            text, at = short(data, at + 2)
            exchange, at = short(data, at)
            owner.returned(text, exchange, short(data, at)[0], content.header)

    def _deliver(self, owner: Traffic, data: bytes, at: int, header: bytes, body: bytes) -> None:
        at += 1 + data[at]  # the consumer's tag
        tag, redelivered = frames.TAGGED.unpack_from(data, at)
        exchange, at = short(data, at + 9)
        routing_key = short(data, at)[0]
        owner.delivered(tag, (exchange, routing_key), header, body, redelivered=bool(redelivered))

    # --- who hears what

    def route(self, number: int, traffic: Traffic) -> None:
        """What comes on channel `number` is the business of `traffic` from now on."""
        self._contents.pop(number, None)
        self.traffic[number] = traffic

    def silence(self, number: int) -> None:
        """Channel `number` is being closed: messages that still come are nobody's; the driver hears the rest."""
        if number in self.traffic:
            self.traffic[number] = NOBODY

    def forget(self, number: int) -> None:
        """Channel `number` is closed, on both sides."""
        self.traffic.pop(number, None)
        self._contents.pop(number, None)

    # --- writing

    def write(self, *data: bytes) -> None:
        """Whole frames, sent together with all others of this turn of the loop."""
        if not self._out:
            self.loop.call_soon(self.flush)
        self._out += data

    def flush(self) -> None:
        """Send what was written."""
        if self._out and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    @property
    def writable(self) -> bool:
        """Whether the broker takes messages at present: neither blocked nor behind."""
        return self._writable.is_set()

    async def wait_writable(self) -> None:
        """Return when it is, or when the connection is gone."""
        await self._writable.wait()

    def pause_writing(self) -> None:
        """As asyncio's."""
        self.driver.pause_writing()
        self.paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """As asyncio's."""
        self.driver.resume_writing()
        self.paused = False
        self._settle_writable()

    def _settle_writable(self) -> None:
        if self.ended is not None or not (self.paused or self.blocked):
            self._writable.set()

    # --- beginning and end

    def abort(self) -> None:
        """Drop the connection, with all that is not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio's."""
        self.transport = cast("Transport", transport)
        self.driver.connection_made(transport)

    def eof_received(self) -> bool:
        """As asyncio's: half a connection is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's."""
        why = "{} {}".format(*self.refusal) if self.refusal else str(exc or "the connection was closed")
        self.ended = ConnectionLost(f"lost the connection to RabbitMQ at {self.where}: {why}")
        self.ended.__cause__ = exc
        self._settle_writable()
        for owner in list(self.traffic.values()):
            owner.lost(self.ended)
        self.traffic.clear()
        self._contents.clear()
        self._out.clear()
        self.driver.connection_lost(exc)
