"""Keeping notes at the broker (notes.py says which): a queue beside the group's, read by the member that has the turn.

It holds all notes, unacknowledged, on a channel of its own, so that they are back when it is gone, and publishes new
ones over the connection of senders: an alarm may stop that one, and must not stop acknowledgements.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from mqkit.backend import Notes as Asked
from mqkit.backend import Sender, Settlement, Subscription
from mqkit.backends.rabbitmq import frames, wire
from mqkit.backends.rabbitmq.acknowledgements import acknowledgements
from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, PREFETCH_MAX, Link
from mqkit.backends.rabbitmq.notes import Note, Notes
from mqkit.backends.rabbitmq.places import notes_group
from mqkit.errors import BackendError, ConfigurationError, ConnectionLost, PublishError
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import group_name

WRITE_TIMEOUT = 5.0
"""Seconds for a note to be confirmed: while an alarm is on, it is not."""
OVERDUE = 2.0
"""Seconds without a note after which they are counted again, longer each time: some may have expired meanwhile."""


class Noting:
    """The notes of one session of an ordered group, and their channel. `ended` is told when that is lost."""

    def __init__(
        self,
        link: Link,
        subscription: Subscription,
        open_sender: Callable[[], Awaitable[Sender]],
        ended: Callable[[ConnectionLost], None],
    ) -> None:
        self._link = link
        self._topic = subscription.topic
        self._group = notes_group(subscription.group)
        self._queue = group_name(self._topic, self._group)
        self._open_sender = open_sender
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._notes = Notes()
        self._channel: Channel | None = None
        self._consumer = ""
        self._lying: dict[int, None] = {}
        """Tags of the notes that lie with us, ascending."""
        self._sender: Sender | None = None
        self._counted = self._arrived = 0
        self._since = 0.0
        self._overdue = OVERDUE
        self._complete = False
        self._arrival = asyncio.Event()

    # --- reading

    async def look(self) -> None:
        """Make sure that there is a queue for notes.

        Raises:
            ConfigurationError: there is none.
        """
        channel = await self._link.channel()
        async with self._calling(channel):
            await channel.queue_declare(self._queue, passive=True)
        await self._link.drop(channel)

    async def read(self) -> bool:
        """Whether all notes that there are lie with us; to be asked, again and again, by whoever has the turn.

        Raises:
            ConfigurationError: the queue does not exist.
            ConnectionLost: the session ended.
        """
        if self._complete:
            return True
        if self._channel is None and not await self._begin():
            return False
        channel = self._channel
        assert channel is not None
        for _ in range(2):  # what was under way to us at the first answer is here before the second
            if not await self._all_on_their_way():
                return False
        self._complete = self._arrived >= min(self._counted, PREFETCH_MAX)
        if not self._complete and self._loop.time() > self._since + self._overdue:
            self._overdue *= 2  # the broker, or we, may only be slow
            await self._stop(channel)
        return self._complete

    @property
    def reading(self) -> bool:
        """Whether they are coming; else another session has them."""
        return self._channel is not None

    async def _begin(self) -> bool:
        """Consume, unless a predecessor still does: a queue that forgets one has taken its notes back."""
        channel = await self._link.channel(traffic=self)
        async with self._calling(channel):
            found = await channel.queue_declare(self._queue, passive=True)
            if found.consumers:
                await self._stop(channel)
                return False
            self._channel = channel
            self._counted, self._arrived = found.messages, 0
            self._since = self._loop.time()
            self._consumer = await self._link.consume(channel, self._queue, PREFETCH_MAX)
        return True

    async def _all_on_their_way(self) -> bool:
        """Whether no note is left, and no predecessor.

        Zero and zero is also what RabbitMQ says when it cannot tell: with us there is one consumer at least.
        """
        channel = self._channel
        assert channel is not None
        async with self._calling(channel):
            found = await channel.queue_declare(self._queue, passive=True)
        if found.consumers > 1:  # a worker whose mqkit takes turns in another way: two that hold on would wait for ever
            await self._stop(channel)
            return False
        return found.consumers == 1 and (not found.messages or self._arrived >= PREFETCH_MAX)

    @asynccontextmanager
    async def _calling(self, channel: Channel) -> AsyncGenerator[None]:
        try:
            async with self._link.calling():
                yield
        except BaseException as error:
            await self._stop(channel)
            match error:
                case NotFound():
                    raise ConfigurationError(
                        f"there is no queue {self._queue!r}: declare the topic {self._topic!r} again (mqkit topology "
                        "apply, or run with declare=True)"
                    ) from error
                case ChannelClosed():
                    raise ConnectionLost(f"RabbitMQ refused to consume from {self._queue!r}: {error}") from error
                case _:
                    raise

    async def _stop(self, channel: Channel) -> None:
        """Give back what was read."""
        self._channel, self._notes = None, Notes()
        self._lying.clear()
        await self._link.drop(channel)

    # --- what the connection brings

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's."""
        del where, body, redelivered
        self._arrived += 1
        self._since = self._loop.time()
        self._lying[tag] = None
        self._acknowledge(self._notes.arrived(tag, wire.decode(header).headers))
        self._arrival.set()

    def cancelled(self) -> None:
        """As Traffic's."""
        self._ended(ConnectionLost(f"RabbitMQ ended the consumer: the queue {self._queue!r} was deleted or moved"))

    def closed(self, code: int, text: str) -> None:
        """As Traffic's."""
        self._ended(ConnectionLost(f"RabbitMQ closed the channel of {self._queue!r}: {code} {text}"))

    def lost(self, error: ConnectionLost) -> None:
        """As Traffic's."""
        self._arrival.set()
        self._ended(error)

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """As Traffic's: nothing is published here."""

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """As Traffic's: nothing is published here."""

    def _acknowledge(self, tags: Iterable[int]) -> None:
        assert self._channel is not None
        settled = dict.fromkeys(tags, Settlement.DONE)
        for one in acknowledgements(self._lying, settled):
            self._link.stream.write(frames.ack(self._channel.number, one.tag, multiple=one.multiple))
        for tag in settled:
            del self._lying[tag]

    # --- the session's deliveries

    def handed_out(self, delivery: Delivery, *, redelivered: bool) -> Delivery:
        """`delivery` with what is noted of it."""
        return self._notes.handed_out(delivery, redelivered=redelivered)

    def done(self, tokens: Iterable[object]) -> None:
        """These were acknowledged, as the last thing that was written to the connection."""
        self._acknowledge(self._notes.done(tokens))

    def given_back(self) -> None:
        """All that was out is delivered again."""
        self._notes.given_back()

    def write(self, asked: Asked) -> Coroutine[Any, Any, None]:
        """What returns when these notes are safe. What is settled from now on takes them with it.

        Raises:
            ConnectionLost: they may be safe or not.
            BackendError: some are not, and the session goes on: RabbitMQ blocks publishers, or its queue is full.
        """
        return self._publish([self._notes.write(token, spent) for token, spent in asked])

    async def begin(self, token: object) -> int:
        """Keep that a delivery is about to be handled; how often it was before. Raises as write does."""
        note = self._notes.begin(token)
        await self._publish([note])
        return note.begun - 1

    async def alive(self, tokens: Iterable[object]) -> None:
        """Keep that whoever began these lives, and is about to give them back. Never raises."""
        with suppress(BackendError):  # then it counts as if nobody had been heard of
            await self._publish(self._notes.heard_of(tokens))

    @property
    def begun(self) -> frozenset[object]:
        """Deliveries that were begun here, and are not heard of yet."""
        return self._notes.begun

    async def _publish(self, written: Sequence[Note]) -> None:
        if not written:
            return
        try:
            if self._sender is None:
                self._sender = await self._open_sender()
            await self._sender.send([self._outgoing(note) for note in written], WRITE_TIMEOUT)
        except PublishError as error:
            for position in error.rejected:
                self._notes.refused(written[position])
            raise BackendError(f"attempts could not be noted in {self._queue!r}: {error}", retryable=True) from error

    def _outgoing(self, note: Note) -> Outgoing:
        message = WireMessage(b"", note.headers, id=f"{note.series}.{note.number}")
        return Outgoing(message, self._topic, self._group)

    async def close(self) -> None:
        """Give all notes back; those that are done with and still under way are waited for. Never raises."""
        channel = self._channel
        if channel is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    while self._notes.owed and self._link.lost is None and not channel.is_closed:
                        self._arrival.clear()
                        await self._arrival.wait()
            await self._acted_upon(channel)
            await self._link.drop(channel)
        if self._sender is not None:
            await self._sender.close()

    async def _acted_upon(self, channel: Channel) -> None:
        """Return when RabbitMQ has removed all notes that were acknowledged.

        A channel keeps acknowledgements back while more than 32 of its commands wait for a quorum queue, and forgets
        them when it is closed (rabbit_fifo_client, 4.0 to 4.3); when it ends a consumer it sends them first, and
        answers after that was done. Another consumer takes its place before: a queue without one looks as if it had all
        its notes back, which it has only when the channel is closed.
        """
        self._link.stream.flush()
        with suppress(ChannelClosed, BackendError):
            async with self._link.calling(CLOSE_TIMEOUT):
                await self._link.consume(channel, self._queue, 1)
                await channel.cancel(self._consumer)
