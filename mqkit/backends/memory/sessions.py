"""Sending to and receiving from a memory broker. Each receiver waits on a queue of its own, so that `wake` needs no
lock and may come from a signal handler.
"""

import time
from collections.abc import Sequence
from itertools import count
from queue import Empty, SimpleQueue
from typing import Final

from mqkit.backend import Notes, Settlement, Settlements, Subscription, nothing_recalled
from mqkit.backends.memory.broker import MemoryBroker, Topic
from mqkit.backends.memory.lane import Entry, Lane
from mqkit.errors import ClosedError, ConnectionLost, LeaseLost, MessageTooLarge, MqkitError, PublishError, Unroutable
from mqkit.message import Delivery, Outgoing, WireMessage

KEYS: Final = 8
"""With ordering by key, one key gets this part of the prefetch at most."""


class MemorySender:
    """As BlockingSender."""

    def __init__(self, home: MemoryBroker, limit: int | None) -> None:
        self._home = home
        self._limit = limit
        self._closed = False
        self.lost = False
        home.join(self)

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:  # noqa: ARG002 - nothing here takes time
        """As Sender.send."""
        if self._closed:
            raise ClosedError("this sender is closed")
        rejected: dict[int, MqkitError] = {}
        touched: dict[Lane, None] = {}
        with self._home.reached() as topics:
            if self.lost:
                raise ConnectionLost(f"memory broker {self._home.name!r} was interrupted")
            for index, outgoing in enumerate(batch):
                size = len(outgoing.message.body)
                if self._limit is not None and size > self._limit and outgoing.group is None:  # it took what is copied
                    rejected[index] = MessageTooLarge(size, self._limit, "this memory broker")
                    continue
                try:
                    lanes = _lanes(topics, outgoing)
                except Unroutable as error:
                    rejected[index] = error
                    continue
                message = outgoing.message
                if message.headers:  # the publisher may go on with its dict
                    message = WireMessage(
                        message.body,
                        dict(message.headers),
                        message.key,
                        message.content_type,
                        message.id,
                        message.properties,
                    )
                position = self._home.number()
                due = self._home.now() + outgoing.delay if outgoing.delay > 0 and not outgoing.dead else None
                for lane in lanes:
                    lane.add(Entry(position, message, outgoing.group is not None), due)
                    touched[lane] = None
            for lane in touched:
                lane.nudge()
        if rejected:
            raise PublishError(rejected)

    def nudge(self) -> None:
        """Nothing waits here."""

    def leave(self) -> None:
        """Nothing is held here."""

    def close(self) -> None:
        """As Sender.close."""
        self._closed = True
        self._home.part(self)


def _lanes(topics: dict[str, Topic], outgoing: Outgoing) -> Sequence[Lane]:
    """Where a message goes. Raises Unroutable."""
    topic = topics.get(outgoing.topic)
    if topic is None:
        raise Unroutable(f"there is no topic {outgoing.topic!r}: declare it, with its groups, before publishing to it")
    if outgoing.group is None:
        if not topic.groups:
            raise Unroutable(f"topic {outgoing.topic!r} has no group: nothing would ever receive the message")
        return (*(group.live for group in topic.groups.values()), *topic.tails)
    group = topic.groups.get(outgoing.group)
    if group is None:
        raise Unroutable(f"topic {outgoing.topic!r} has no group {outgoing.group!r}")
    return (group.dead if outgoing.dead else group.live,)


class MemoryReceiver:
    """As BlockingReceiver. A token is the receiver's number, which is never used again, and the message's position."""

    _numbers = count(1)

    def __init__(
        self, home: MemoryBroker, subscription: Subscription, lane: Lane, tails: dict[Lane, None] | None = None
    ) -> None:
        self._home = home
        self._subscription = subscription
        self._lane = lane
        self._tails = tails
        self._number = next(self._numbers)
        self._ordered = subscription.ordering == "key" and subscription.source != "dead"
        self._most = max(1, subscription.prefetch // KEYS)
        self._held: dict[object, Entry] = {}
        self._begun: set[object] = set()
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        self._closed = False
        self.lost = False
        lane.watchers[self.nudge] = None
        home.join(self)

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        deadline = time.monotonic() + timeout
        wanted = self._subscription
        room = limit if wanted.source == "dead" else min(limit, wanted.prefetch + wanted.aside - len(self._held))
        while True:
            while not self._signal.empty():
                self._signal.get_nowait()
            self._check()
            with self._home.reached():
                self._check()
                woken, self._woken = self._woken, False
                now = self._home.now()
                taken = self._deliveries(self._lane.take(room, now, self if self._ordered else None, self._most))
                due = self._lane.waiting[0][0] - now if room > 0 and self._lane.waiting else timeout
            if taken:
                return taken
            left = deadline - time.monotonic()
            if woken or left <= 0 or (self._subscription.source == "dead" and room > 0):
                return ()
            try:
                self._signal.get(timeout=max(0.0, min(left, due)))
            except Empty:
                continue

    recalled = staticmethod(nothing_recalled)  # what is out stays out until its session ends

    def _deliveries(self, taken: list[Entry]) -> list[Delivery]:
        topic, group, number, held = self._subscription.topic, self._subscription.group, self._number, self._held
        deliveries = []
        for entry in taken:
            position = entry.position
            token = (number, position)
            held[token] = entry
            deliveries.append(
                Delivery(
                    entry.message,
                    token,
                    topic,
                    group,
                    f"{topic}#{position}",
                    entry.returned,
                    entry.times,
                    entry.spent,
                    True,  # noqa: FBT003 - unique
                )
            )
        return deliveries

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        lost = 0
        released = False
        self._check()
        with self._home.reached():
            self._check()
            for token, settlement in settlements:
                entry = self._held.pop(token, None)
                if entry is None:
                    lost += 1
                    continue
                released = released or settlement is Settlement.RELEASE
                self._heard_of(token, entry)
                self._lane.give(entry, settlement, ordered=self._ordered)
            if released or self._ordered:
                self._lane.nudge()
        _check_lost(lost, len(settlements))

    def note(self, notes: Notes) -> None:
        """As Receiver.note."""
        lost = 0
        self._check()
        with self._home.reached():
            self._check()
            for token, spent in notes:
                entry = self._held.get(token)
                if entry is None:
                    lost += 1
                else:
                    entry.spent = spent
                    self._heard_of(token, entry)
        _check_lost(lost, len(notes))

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        self._check()
        with self._home.reached():
            self._check()
            entry = self._held.get(token)
            if entry is None:
                raise LeaseLost("this delivery does not belong to this session (any more)")
            self._heard_of(token, entry)
            self._begun.add(token)
            entry.begun += 1
            return entry.begun - 1

    def _heard_of(self, token: object, entry: Entry) -> None:
        if token in self._begun:
            self._begun.discard(token)
            entry.begun -= 1

    def wake(self) -> None:
        """As Receiver.wake."""
        self._woken = True
        self._signal.put(None)

    def nudge(self) -> None:
        """Look again."""
        if self._signal.empty():
            self._signal.put(None)

    def leave(self) -> None:
        """Give back what is held. The broker's lock is held."""
        for token, entry in self._held.items():
            if self._closed:
                self._heard_of(token, entry)
            else:
                entry.times += 1
            self._lane.give(entry, Settlement.RELEASE, ordered=self._ordered)
        self._held.clear()
        self._lane.watchers.pop(self.nudge, None)
        self._lane.nudge()
        self.nudge()
        if self._tails is not None:
            self._tails.pop(self._lane, None)

    def close(self) -> None:
        """As Receiver.close."""
        self._closed = True
        self._home.part(self)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver is closed")
        if self.lost:
            raise ConnectionLost(f"memory broker {self._home.name!r} was interrupted")


def _check_lost(lost: int, asked: int) -> None:
    if lost:
        raise LeaseLost(f"{lost} of {asked} deliveries do not belong to this session (any more)")
