"""pika as the client library: handshake, heartbeats, and what is rare on its channels; on a stream of ours.

As pika's own adapters do, this one fulfils what `pika.connection.Connection` leaves open. The rest that it needs of
pika's inside is in HOOKS.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pika
from pika import spec
from pika.channel import Channel
from pika.connection import Connection as StateMachine
from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AMQPError, AuthenticationError, ChannelClosedByBroker, StreamLostError

from mqkit.backends.rabbitmq import channels, frames
from mqkit.backends.rabbitmq.channels import ChannelClosed, Declared, DriverError
from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.stream import Frames
from mqkit.errors import ConfigurationError

channels.quieten("pika")

HOOKS: tuple[tuple[type, frozenset[str]], ...] = (
    (
        StateMachine,
        frozenset(
            {
                "_adapter_add_callback_threadsafe",
                "_adapter_call_later",
                "_adapter_connect_stream",
                "_adapter_disconnect_stream",
                "_adapter_emit_data",
                "_adapter_remove_timeout",
                "_on_data_available",
                "_on_stream_connected",
                "_on_stream_terminated",
            }
        ),
    ),
    (Channel, frozenset({"_rpc"})),
)
"""Methods of pika that are not public, and that mqkit calls or fulfils."""
REFUSALS: Mapping[int, type[ChannelClosed]] = {
    403: channels.AccessRefused,
    404: channels.NotFound,
    405: channels.Locked,
    406: channels.PreconditionFailed,
}
"""By RabbitMQ's codes."""


def told(error: BaseException) -> DriverError:
    """What pika says, as a driver's error."""
    said: DriverError
    if isinstance(error, ChannelClosedByBroker):
        said = REFUSALS.get(error.reply_code, ChannelClosed)(error.reply_text)
    elif isinstance(error, AuthenticationError):
        said = channels.NotAuthenticated(str(error))
    else:
        said = DriverError(str(error) or type(error).__name__)
    said.__cause__ = error
    return said


class PikaChannel:
    """The Channel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._channel: Any = None
        self._waiting: asyncio.Future[Any] | None = None

    async def open(self, connection: StateMachine, number: int, *, confirms: bool) -> "PikaChannel":
        """On `connection`."""

        def ask(callback: Callable[[object], None]) -> None:
            self._channel = connection.channel(number, on_open_callback=callback)
            self._channel.add_on_close_callback(self._closed)

        await self._answer(ask)
        if confirms:
            await self._call("confirm_delivery", _ignore)
        return self

    def _closed(self, channel: object, reason: Exception) -> None:
        del channel
        if self._waiting is not None:
            _resolve(self._waiting, told(reason))

    async def _call(self, method: str, *args: object, **kwargs: object) -> Any:
        """What RabbitMQ answers to a method of pika's channel."""
        return await self._answer(partial(getattr(self._channel, method), *args, **kwargs))

    async def _answer(self, ask: Callable[..., None]) -> Any:
        """What `ask` has called back. One call at a time, as the house has it."""
        waiting = self._waiting = self._loop.create_future()
        try:
            ask(callback=partial(_resolve, waiting))
        except AMQPError as error:
            raise told(error)  # noqa: B904 - it names its cause
        answer = await waiting
        return getattr(answer, "method", answer)

    @property
    def number(self) -> int:
        """As Channel.number."""
        number: int = self._channel.channel_number
        return number

    @property
    def is_closed(self) -> bool:
        """As Channel.is_closed: by both sides, so that its number is free."""
        return bool(self._channel.is_closed)

    async def exchange_declare(
        self,
        exchange: str,
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> None:
        """As Channel.exchange_declare."""
        await self._call(
            "exchange_declare", exchange, kind, passive=passive, durable=durable, arguments=dict(arguments or {})
        )

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        """As Channel.exchange_bind."""
        await self._call("exchange_bind", destination, source, routing_key)

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
        """As Channel.queue_declare."""
        found = await self._call(
            "queue_declare",
            queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=dict(arguments or {}),
        )
        return Declared(found.queue, found.message_count, found.consumer_count)

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """As Channel.queue_bind."""
        await self._call("queue_bind", queue, exchange, routing_key)

    async def queue_delete(self, queue: str) -> None:
        """As Channel.queue_delete."""
        await self._call("queue_delete", queue)

    async def consume(self, queue: str, prefetch: int, tag: str = "") -> str:
        """As Channel.consume. By pika's inside: it would cancel before closing what it knows to be a consumer."""
        await self._call("basic_qos", prefetch_count=prefetch)
        method = spec.Basic.Consume(queue=queue, consumer_tag=tag)
        given: str = (await self._call("_rpc", method, acceptable_replies=[spec.Basic.ConsumeOk])).consumer_tag
        return given

    async def cancel(self, consumer: str) -> None:
        """As Channel.cancel."""
        await self._call("_rpc", spec.Basic.Cancel(consumer_tag=consumer), acceptable_replies=[spec.Basic.CancelOk])

    async def close(self) -> None:
        """As Channel.close."""
        closed = self._loop.create_future()
        self._channel.add_on_close_callback(lambda *_: _resolve(closed, None))
        self._channel.close()
        await closed


def _resolve(waiting: asyncio.Future[Any], answer: object) -> None:
    """Unless who waits has given up."""
    if waiting.done():
        return
    if isinstance(answer, DriverError):
        waiting.set_exception(answer)
        waiting.exception()  # read: it may give up before it looks
    else:
        waiting.set_result(answer)


def _ignore(*_: object) -> None:
    """What pika would call, if it saw messages."""


class Adapter(StateMachine, asyncio.Protocol):  # type: ignore[misc]  # pika has no types
    """pika's state of a connection, fed by a stream."""

    def __init__(self, parameters: pika.ConnectionParameters, stream: Frames) -> None:
        self.stream = stream
        self.opening: asyncio.Future[None] = stream.loop.create_future()
        self.over: asyncio.Future[None] = stream.loop.create_future()
        super().__init__(parameters, self._opened_up, self._given_up, _ignore, internal_connection_workflow=False)

    def _opened_up(self, _: object) -> None:
        _resolve(self.opening, None)

    def _given_up(self, _: object, error: BaseException) -> None:
        _resolve(self.opening, told(error))

    # --- as asyncio's Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        del transport
        self._on_stream_connected()  # pyright: ignore[reportAttributeAccessIssue]  # one of HOOKS

    def data_received(self, data: bytes) -> None:
        """What is not a message."""
        self._on_data_available(data)  # pyright: ignore[reportAttributeAccessIssue]  # one of HOOKS

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        told_before = getattr(self, "_error", None)  # why pika itself has ended it
        error = None if told_before else StreamLostError(str(exc or "the connection was closed"))
        self._on_stream_terminated(error)  # pyright: ignore[reportAttributeAccessIssue]  # one of HOOKS
        self.over.set_result(None)

    # --- as pika's adapters

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError  # dialling comes before

    def _adapter_disconnect_stream(self) -> None:
        self.stream.flush()
        self.stream.abort()

    def _adapter_emit_data(self, data: bytes) -> None:
        self.stream.write(data)

    def _adapter_call_later(self, delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self.stream.loop.call_later(delay, callback)

    def _adapter_remove_timeout(self, timeout_id: asyncio.TimerHandle) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[[], object]) -> None:
        self.stream.loop.call_soon_threadsafe(callback)


class PikaConnection:
    """The Connection."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.product = channels.product(adapter.server_properties or {})
        self.frame_max: int = adapter.params.frame_max or frames.LARGEST
        self.channel_max: int = adapter.params.channel_max or channels.NUMBERS

    async def channel(self, number: int, *, confirms: bool) -> PikaChannel:
        """As Connection.channel."""
        return await PikaChannel(self._adapter.stream.loop).open(self._adapter, number, confirms=confirms)

    @property
    def is_closed(self) -> bool:
        """As Connection.is_closed."""
        return self._adapter.over.done()

    async def close(self) -> None:
        """As Connection.close."""
        try:
            self._adapter.close()
        except AMQPError as error:
            raise told(error)  # noqa: B904 - it names its cause
        await self.ended()

    async def ended(self) -> None:
        """As Connection.ended."""
        await asyncio.shield(self._adapter.over)


async def connect(url: RabbitUrl, stream: Frames) -> PikaConnection:
    """As Connect.

    Raises:
        ConfigurationError: this pika is not like those that mqkit knows.
    """
    missing = [f"{where.__name__}.{name}" for where, names in HOOKS for name in names if not hasattr(where, name)]
    if missing:
        raise ConfigurationError(
            f"mqkit does not know pika {pika.__version__}, which has no {missing[0]}: use pika 1.4"
        )
    plain = PlainCredentials(url.user, url.password)
    parameters = pika.ConnectionParameters(
        virtual_host=url.vhost,
        credentials=plain if url.auth == "plain" else ExternalCredentials(),
        heartbeat=url.heartbeat,
        client_properties={"connection_name": url.name} if url.name else None,
    )
    adapter = Adapter(parameters, stream)
    await stream.dial(url, adapter)
    try:
        await adapter.opening
    except BaseException:
        stream.abort()
        await adapter.over
        raise
    return PikaConnection(adapter)
