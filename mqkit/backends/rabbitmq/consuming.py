"""Receiving a group's messages, or a tail: deliveries of one channel land in a deque, and are read when asked for.

Closing gives back by nack what is out, which RabbitMQ, since 4.3, does not count as a failure. Not so in a group that
is ordered by key, which has one member at a time (turn.py), others standing by: what is given back one by one changes
places with what is just being delivered, but all that was out when a channel closed returns in its order at once. So
there what is released is held until nothing is with a handler, and then goes back with its channel.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from mqkit.backend import Notes, Notify, Sender, Settlement, Settlements, Subscription, nothing_recalled
from mqkit.backends.rabbitmq import frames
from mqkit.backends.rabbitmq.acknowledgements import acknowledgements
from mqkit.backends.rabbitmq.arrivals import Arrived, delivery
from mqkit.backends.rabbitmq.beginning import Beginning
from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound
from mqkit.backends.rabbitmq.flow import Flow
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.backends.rabbitmq.noting import Noting
from mqkit.backends.rabbitmq.sessions import acted_upon, declare_tail
from mqkit.backends.rabbitmq.turn import Turn
from mqkit.backends.rabbitmq.writing import Writing
from mqkit.errors import ClosedError, ConfigurationError, ConnectionLost, LeaseLost
from mqkit.message import Delivery
from mqkit.topology import group_name

EPOCHS = count(1)
"""One for each channel there ever was in this process."""


class RabbitReceiver:
    """The Receiver."""

    def __init__(
        self, link: Link, subscription: Subscription, notify: Notify, open_sender: Callable[[], Awaitable[Sender]]
    ) -> None:
        self.subscription = subscription
        self._open_sender = open_sender
        self._link = link
        self._notify = notify
        self._loop = asyncio.get_running_loop()
        self._queue = ""
        self._channel: Channel | None = None
        self._consumer: str | None = None
        self._turn: Turn | None = None
        self._notes: Noting | None = None
        self._writing: Writing | None = None
        self._beginning: Beginning | None = None
        self._suspects: dict[int, Delivery] = {}
        """By tag: of which `begin` may be asked, in a group without order."""
        self._epoch = 0
        self._asked = 0.0
        self._arrived: deque[Arrived] = deque()
        self._out: dict[int, int] = {}
        """Tags that are neither settled nor given back, ascending, and how many bytes each has."""
        self._flow = Flow(link, subscription, self._end)
        self._held: set[int] = set()
        """Tags that go back when all that was handed out is settled: in an ordered group only."""
        self._going: set[int] = set()
        """Tags whose settlement is on its way to the loop's thread."""
        self._told = False
        """Whether anything was settled on this channel."""
        self._ended: ConnectionLost | None = None
        self._closed = False
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self.on_news: Callable[[], None] = lambda: None
        """Called on the loop's thread when something arrived, or the session ended."""

    # --- beginning

    async def open(self) -> None:
        """Begin to consume, or to stand by.

        Raises:
            ConfigurationError: the queue does not exist.
        """
        subscription = self.subscription
        if subscription.source == "tail":
            self._queue = await declare_tail(self._link, await self._open_channel(), subscription)
        else:
            self._queue = group_name(subscription.topic, subscription.group)
            if subscription.ordering == "key":
                self._turn = Turn(self._link, subscription, self._open_sender, self._go_on, self._end)
                self._notes = Noting(self._link, subscription, self._open_sender, self._end)
                self._writing = Writing(self._notes.write, self._wake)
                await self._notes.look()
            else:
                self._beginning = Beginning(self._link, subscription, self._queue, self._open_sender, self._end)
        await self._consume()

    async def _open_channel(self) -> Channel:
        self._channel = await self._link.channel(traffic=self)
        self._told = False
        self._epoch = next(EPOCHS)
        return self._channel

    async def _consume(self) -> None:
        """Begin to consume, if it is our turn."""
        self._asked = self._loop.time()
        try:
            if self._turn is not None and not await self._turn.take():
                return
            if self._notes is not None and not await self._notes.read():
                return
            channel = self._channel or await self._open_channel()
            async with self._link.calling():
                consumer = await self._flow.begin(
                    channel, self._queue, empty=self._turn is not None and self._turn.empty
                )
        except NotFound as error:
            raise ConfigurationError(
                f"there is no queue {self._queue!r}: declare group {self.subscription.group!r} of topic "
                f"{self.subscription.topic!r} first (mqkit topology apply, or run with declare=True)"
            ) from error
        except ChannelClosed as error:
            raise ConnectionLost(f"RabbitMQ refused to consume from {self._queue!r}: {error}") from error
        self._consumer = consumer
        if self._turn is not None:
            self._notify("rebalance", f"works on {self._queue} from now on")

    # --- what the connection brings

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's."""
        size = self._out[tag] = len(header) + len(body)
        self._flow.arrived(size, redelivered=redelivered)
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

    def _go_on(self) -> None:
        self.on_news()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the Receiver

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        deadline = self._loop.time() + timeout
        while True:
            self._check()
            if self._arrived and limit > 0 and not self._held:
                break
            left = deadline - self._loop.time()
            if self._woken or left <= 0:
                break
            if self._consumer is None:
                left = min(left, self._asked + (self._turn.pause if self._turn else 0.0) - self._loop.time())
                if left <= 0:
                    try:
                        await self._consume()
                    except ConfigurationError as error:  # it was there when this session began: the next one finds out
                        self._end(ConnectionLost(str(error)))
                    continue
            if not self._held:
                self._flow.want(limit)
            await self._wait(left)
        self._woken = False
        return self._take(limit)

    recalled = staticmethod(nothing_recalled)  # a channel loses all that it has out, or nothing

    def at_hand(self, limit: int) -> Sequence[Delivery]:
        """What `receive` would return or raise without waiting; from any thread, but not of an ordered group."""
        self._check()
        if not self._arrived:
            self._flow.want(limit)
        return self._take(limit)

    def _take(self, limit: int) -> list[Delivery]:
        arrived, subscription, notes = self._arrived, self.subscription, self._notes
        number = 0 if self._held else min(limit, len(arrived))
        records = [arrived.popleft() for _ in range(number)]
        found = [delivery(record, subscription, self._queue, self._epoch) for record in records]
        if notes is None:
            self._suspects |= {record[0]: one for one, record in zip(found, records, strict=True) if one.redelivered}
            return found
        return [notes.handed_out(one, redelivered=record[4]) for one, record in zip(found, records, strict=True)]

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver was closed")
        if self._ended is not None:
            raise ConnectionLost(str(self._ended)) from self._ended

    async def _wait(self, seconds: float) -> None:
        self._waiter = self._loop.create_future()
        expiry = self._loop.call_later(seconds, self._go_on)
        try:
            await self._waiter
        finally:
            self._waiter = None
            expiry.cancel()

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        asked = self._ours(settlements)
        beginner = self._notes or self._beginning
        if beginner is not None and beginner.begun:
            await beginner.alive([(self._epoch, tag) for tag, one in asked.items() if one is Settlement.RELEASE])
        if self._turn is None:
            self._tell(asked)
        else:
            async with self._flow.still:
                self._tell(await self._hold(asked))
        self._link.stream.flush()
        if not self.writable:
            await self._link.stream.wait_writable()
            self._check()
        self._raise_if(len(settlements) - len(asked))

    def settle_soon(self, settlements: Settlements, post: Callable[[Callable[[], object]], None]) -> None:
        """As settle, but what the broker is told is only on its way: by `post`, to the thread of the loop.

        That is as much as any acknowledgement can promise: RabbitMQ does not confirm them. From any thread, but not of
        an ordered group.
        """
        asked = self._ours(settlements)
        self._going |= asked.keys()
        post(partial(self._settle_now, asked))
        self._raise_if(len(settlements) - len(asked))

    def _settle_now(self, asked: dict[int, Settlement]) -> None:
        if self._ended is None and asked.keys() <= self._out.keys():
            self._tell(asked)
            self._link.stream.flush()
        self._going -= asked.keys()

    @property
    def begun(self) -> bool:
        """Whether anything is begun, so that more than acknowledging has to be done for it."""
        return bool(self._beginning and self._beginning.begun)

    @property
    def over(self) -> bool:
        """Whether this session has ended."""
        return self._closed or self._ended is not None

    @property
    def writable(self) -> bool:
        """Whether the broker takes what it is told, so that nobody has to wait."""
        return self._link.stream.writable

    def _ours(self, settlements: Settlements) -> dict[int, Settlement]:
        """What is asked for deliveries of this session, by tag."""
        self._check()
        return {tag: settlement for token, settlement in settlements if (tag := self._tag(token)) is not None}

    def _tag(self, token: object) -> int | None:
        """Of a delivery that belongs to this session."""
        epoch, tag = token if isinstance(token, tuple) and len(token) == 2 else (None, None)
        ours = epoch == self._epoch and tag in self._out and tag not in self._held and tag not in self._going
        return tag if ours else None

    def _raise_if(self, stale: int) -> None:
        if stale:
            raise LeaseLost(f"{stale} deliveries of {self._queue!r} belong to this session no more")

    async def note(self, notes: Notes) -> Sequence[object]:
        """As Receiver.note: while publishers are blocked a note takes its time."""
        self._check()
        if self._notes is None or self._writing is None:
            raise ConfigurationError(f'notes are kept of a group with ordering="key", not of {self._queue!r}')
        ours = [(token, spent) for token, spent in notes if self._tag(token) is not None]
        on_their_way = self._writing.ask(ours)
        if len(ours) < len(notes):
            await self._writing.end()
        self._check()
        self._raise_if(len(notes) - len(ours))
        return on_their_way

    async def begin(self, token: object) -> int:
        """As Receiver.begin."""
        self._check()
        tag, before = self._tag(token), 0
        self._raise_if(tag is None)
        if self._notes is not None:
            before = await self._notes.begin(token)
        elif self._beginning is not None and tag in self._suspects:
            before = await self._beginning.begin(self._suspects[tag])
        self._check()
        self._raise_if(self._tag(token) is None)
        return before

    async def _hold(self, settled: Mapping[int, Settlement]) -> Mapping[int, Settlement]:
        """Those that can be told now; when nothing is with a handler any more, what is held goes back."""
        done = {tag: settlement for tag, settlement in settled.items() if settlement is Settlement.DONE}
        self._held |= settled.keys() - done.keys()
        not_handed_out = {record[0] for record in self._arrived}
        if self._held and not self._out.keys() - self._held - done.keys() - not_handed_out:
            self._tell(done)
            await self._let_go()
            return {}
        return done

    async def _let_go(self) -> None:
        """Give back all that is out by closing the channel; `receive` opens another."""
        if self._channel is not None and self._turn is not None and self._told and self._ended is None:
            await acted_upon(self._link, self._channel, self._queue)
        if self._ended is None:
            await self._flow.complete()
        self._flow.end()
        channel, self._channel, self._consumer = self._channel, None, None
        self._arrived.clear()
        self._held.clear()
        self._out.clear()
        self._suspects.clear()
        self._asked = 0.0
        if self._notes is not None:
            self._notes.given_back()
        if channel is not None:
            self._link.stream.flush()
            await self._link.drop(channel)

    def _tell(self, settled: Mapping[int, Settlement]) -> None:
        if not settled:
            return
        assert self._channel is not None
        self._told = True
        number = self._channel.number
        for one in acknowledgements(self._out, settled):
            frame = frames.ack if one.settlement is Settlement.DONE else frames.give_back
            self._link.stream.write(frame(number, one.tag, multiple=one.multiple))
        for tag in settled:
            self._suspects.pop(tag, None)
        self._flow.gone(sum(map(self._out.pop, settled)), len(settled))
        keeper = self._beginning if self.begun else self._notes  # in an ordered group all that is told here is done
        if keeper is not None:
            keeper.done([(self._epoch, tag) for tag in settled])

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
        if self._writing is not None:
            await self._writing.end()
        if self._beginning is not None:
            await self._beginning.close()
        elif self._notes is not None and self._notes.begun and self._ended is None:
            await self._notes.alive(self._notes.begun)
        async with self._flow.pause():
            if self._channel is not None and self._turn is None and self._ended is None:
                self._flow.end()
                with suppress(Exception):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._channel.cancel(self._consumer or "")
                self._tell(dict.fromkeys(self._out, Settlement.RELEASE))
            await self._let_go()
        if self._notes is not None:
            await self._notes.close()
        if self._turn is not None:
            await self._turn.leave()
