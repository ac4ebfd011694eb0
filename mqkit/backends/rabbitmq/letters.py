"""Receiving a group's dead letters, however many there are: all may be out at once, and few lie here unread.

A consumer of AMQP has at most 65,535 messages out, and what it may have is sent to it at once. So letters come in
windows: each is a consumer of its own, on the one channel, with as many letters as fit into some bytes; the next is
asked for when all of the last were handed out. At the end all goes back in its order: consumers are cancelled first,
or else they would get again what is given back.
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from mqkit.backend import Notes, Settlement, Settlements, Subscription, nothing_recalled
from mqkit.backends.rabbitmq import frames
from mqkit.backends.rabbitmq.acknowledgements import Acknowledgement, acknowledgements
from mqkit.backends.rabbitmq.arrivals import Arrived, delivery
from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound
from mqkit.backends.rabbitmq.consuming import EPOCHS
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.errors import ClosedError, ConfigurationError, ConnectionLost, LeaseLost
from mqkit.message import Delivery
from mqkit.topology import dead_name

LARGEST = 8192
"""Letters of a window, at most."""
GROWTH = 4
"""So many times as large as the last may a window be: who wants few letters gets few."""
SILENCE = 0.05
"""Seconds without an arrival after which the queue is asked whether there are more."""
TOGETHER = 16
"""Windows that are given back before RabbitMQ gets time for them: a channel that is closed forgets what waits in it
for a quorum queue, once that are more than 32 commands (see consuming.py)."""


class Windows:
    """How many letters may be out, and how many come next. Pure."""

    def __init__(self, first: int, most_bytes: int) -> None:
        self._next = max(1, first)
        self._bytes = most_bytes
        self._largest = 1
        self.granted = 0
        """Of all windows together."""

    def arrived(self, size: int) -> None:
        """A letter of so many bytes."""
        self._largest = max(self._largest, size)

    def widen(self) -> int:
        """The size of one more window."""
        size = min(self._next, LARGEST, max(1, self._bytes // self._largest))
        self.granted += size
        self._next = size * GROWTH
        self._largest = 1
        return size


class DeadReceiver:
    """The Receiver of dead letters."""

    def __init__(self, link: Link, subscription: Subscription) -> None:
        self.subscription = subscription
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._queue = dead_name(subscription.topic, subscription.group)
        self._windows = Windows(subscription.prefetch, subscription.prefetch_bytes)
        self._channel: Channel | None = None
        self._epoch = next(EPOCHS)
        self._consumers: list[str] = []
        self._ends: list[int] = []
        """The last tag of each window but the last."""
        self._last = 0
        self._arrived: deque[Arrived] = deque()
        self._out: dict[int, None] = {}
        """Tags that are not settled, ascending."""
        self._ended: ConnectionLost | None = None
        self._closed = False
        self._woken = False
        self._waiter: asyncio.Future[bool] | None = None

    async def open(self) -> None:
        """Begin to read.

        Raises:
            ConfigurationError: the queue does not exist.
        """
        self._channel = await self._link.channel(traffic=self)
        try:
            await self._widen()
        except NotFound as error:
            raise ConfigurationError(
                f"there is no queue {self._queue!r}: declare group {self.subscription.group!r} of topic "
                f"{self.subscription.topic!r} first (mqkit topology apply, or run with declare=True)"
            ) from error
        except ChannelClosed as error:
            raise ConnectionLost(f"RabbitMQ refused to consume from {self._queue!r}: {error}") from error

    async def _widen(self) -> None:
        assert self._channel is not None
        if self._consumers:
            self._ends.append(self._last)
        async with self._link.calling():
            self._consumers.append(await self._link.consume(self._channel, self._queue, self._windows.widen()))

    # --- what the connection brings

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's."""
        self._last = tag
        self._out[tag] = None
        self._windows.arrived(len(header) + len(body))
        self._arrived.append((tag, where, header, body, redelivered))
        self._go_on()

    def cancelled(self) -> None:
        """As Traffic's."""
        self._end(ConnectionLost(f"RabbitMQ ended the consumer: the queue {self._queue!r} was deleted or moved"))

    def closed(self, code: int, text: str) -> None:
        """As Traffic's."""
        self._end(ConnectionLost(f"RabbitMQ closed the channel of {self._queue!r}: {code} {text}"))

    def lost(self, error: ConnectionLost) -> None:
        """As Traffic's."""
        self._end(error)

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """As Traffic's: nothing is published here."""

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """As Traffic's: nothing is published here."""

    def _end(self, error: ConnectionLost) -> None:
        if self._ended is None:
            self._ended = error
        self._go_on()

    def _go_on(self, *, news: bool = True) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(news)

    # --- the Receiver

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive; nothing, in a moment, when all were given."""
        deadline = self._loop.time() + timeout
        while True:
            self._check()
            if self._arrived and limit > 0:
                break
            left = deadline - self._loop.time()
            if self._woken or left <= 0:
                break
            try:
                if limit > 0 and len(self._out) >= self._windows.granted:
                    await self._widen()
                if not await self._wait(left if limit <= 0 else min(left, SILENCE)) and limit > 0 and await self._all():
                    break
            except ChannelClosed as error:
                self._end(ConnectionLost(f"RabbitMQ closed the channel of {self._queue!r}: {error}"))
        self._woken = False
        number = min(limit, len(self._arrived))
        arrived = (self._arrived.popleft() for _ in range(number))
        return [delivery(one, self.subscription, self._queue, self._epoch) for one in arrived]

    async def _wait(self, seconds: float) -> bool:
        """Whether something happened."""
        self._waiter = self._loop.create_future()
        expiry = self._loop.call_later(seconds, partial(self._go_on, news=False))
        try:
            return await self._waiter
        finally:
            self._waiter = None
            expiry.cancel()

    async def _all(self) -> bool:
        """Whether all letters are out. What was under way at the first answer is here before the second.

        Zero and zero is also what RabbitMQ says when it cannot tell: with us there is one consumer at least.
        """
        channel = self._channel
        assert channel is not None
        async with self._link.calling():
            for _ in range(2):
                found = await channel.queue_declare(self._queue, passive=True)
                if found.messages or not found.consumers or self._arrived:
                    return False
        return not self._arrived

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver was closed")
        if self._ended is not None:
            raise ConnectionLost(str(self._ended)) from self._ended

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        self._check()
        ours = {tag: settlement for token, settlement in settlements if (tag := self._tag(token)) is not None}
        self._tell(ours)
        if not self._link.stream.writable:
            await self._link.stream.wait_writable()
            self._check()
        if stale := len(settlements) - len(ours):
            raise LeaseLost(f"{stale} deliveries of {self._queue!r} belong to this session no more")

    def _tag(self, token: object) -> int | None:
        epoch, tag = token if isinstance(token, tuple) and len(token) == 2 else (None, None)
        return tag if epoch == self._epoch and tag in self._out else None

    def _tell(self, settled: dict[int, Settlement]) -> None:
        assert self._channel is not None
        oldest = list(islice(self._out, len(settled)))
        if settled.keys() == set(oldest):
            told = acknowledgements(oldest, settled)
        else:  # not by way of all that are out, which may be a million
            told = [Acknowledgement(tag, settlement, multiple=False) for tag, settlement in settled.items()]
        for one in told:
            frame = frames.ack if one.settlement is Settlement.DONE else frames.give_back
            self._link.stream.write(frame(self._channel.number, one.tag, multiple=one.multiple))
        for tag in settled:
            del self._out[tag]
        self._link.stream.flush()

    recalled = staticmethod(nothing_recalled)  # a channel loses all that it has out, or nothing

    async def note(self, notes: Notes) -> None:
        """As Receiver.note.

        Raises:
            ConfigurationError: always: no attempts are spent on what is dead.
        """
        del notes
        raise ConfigurationError(f'notes are kept of a group with ordering="key", not of {self._queue!r}')

    async def begin(self, token: object) -> int:
        """As Receiver.begin: no handler is called with a dead letter."""
        del token
        self._check()
        return 0

    def wake(self) -> None:
        """As Receiver.wake."""
        with suppress(RuntimeError):  # the loop is closed, and nobody receives
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = True
        self._go_on()

    async def close(self) -> None:
        """As Receiver.close."""
        if self._closed:
            return
        self._closed = True
        self._go_on()
        channel = self._channel
        if channel is None:
            return
        if self._ended is None:
            with suppress(Exception):
                await self._give_back(channel)
        self._arrived.clear()
        self._link.stream.flush()
        await self._link.drop(channel)

    async def _give_back(self, channel: Channel) -> None:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            for consumer in self._consumers:
                await channel.cancel(consumer)
        for number, last in enumerate(self._last_of_each(), 1):
            self._link.stream.write(frames.give_back(channel.number, last, multiple=True))
            if number % TOGETHER == 0:
                async with self._link.calling(CLOSE_TIMEOUT):
                    await channel.queue_declare(self._queue, passive=True)
        self._out.clear()

    def _last_of_each(self) -> list[int]:
        """Of each window that has any, the last tag that is out."""
        ends, found = [*self._ends, self._last], [0]
        for tag in self._out:
            if tag > ends[0]:
                del ends[: bisect_left(ends, tag)]
                found.append(tag)
            found[-1] = tag
        return [tag for tag in found if tag]
