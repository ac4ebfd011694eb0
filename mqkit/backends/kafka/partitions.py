"""A partition while it is ours: what was taken from it, what waits, what is with handlers, and what to commit."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from confluent_kafka import Message, TopicPartition

from mqkit.backend import Recall
from mqkit.backends.kafka.faults import log
from mqkit.backends.kafka.offsets import LONGEST, Progress, Tracker, encode
from mqkit.backends.kafka.tiers import Tier, Waiting
from mqkit.backends.kafka.wire import from_record
from mqkit.message import Delivery, WireMessage

if TYPE_CHECKING:
    from mqkit.backends.kafka.member import Member

RESERVE = 128
"""Offsets that are reserved at first; twice as many each time that they did not suffice for a second."""
MOST_RESERVED = 1 << 17


class Lease:
    """The token of a delivery: valid once, as long as its partition belongs to a member, by the same assignment."""

    __slots__ = ("message", "offset", "out", "partition")

    def __init__(self, partition: "Partition", offset: int, message: WireMessage) -> None:
        self.partition = partition
        self.offset = offset
        self.message = message
        self.out = True
        """It was not settled yet."""

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"


class Partition:
    """One partition, from its assignment to its end."""

    __slots__ = (
        "_begun", "_chunk", "_handed", "_reserved", "committed", "full", "leaving", "member", "number", "out", "paused",
        "tier", "tracker", "waiting",
    )  # fmt: skip

    def __init__(
        self, tier: Tier, number: int, progress: Progress | None, log_id: str = "", *, paused: bool = False
    ) -> None:
        self.tier = tier
        self.number = number
        self.tracker = Tracker(progress, log_id)
        self.waiting: Waiting[tuple[int, WireMessage]] = Waiting()
        self.out = 0
        self.committed = -1
        """The offset of the last commit that the broker has; -1 if that is not known."""
        self.member: Member | None = None
        """Who has it; None when it was taken away."""
        self.leaving = False
        """It is to go to another member: nothing more is taken from it."""
        self.full = False
        """Enough of its records wait."""
        self.paused = paused
        """Whether the driver was told to fetch no more of it."""
        self._begun: set[int] = set()
        """Offsets that were begun here, and are not heard of yet."""
        self._handed = -1
        self._reserved = 0
        self._chunk = RESERVE

    def __str__(self) -> str:
        return f"{self.tier.name}[{self.number}]"

    @property
    def place(self) -> TopicPartition:
        """As the driver names it."""
        return TopicPartition(self.tier.name, self.number)

    def hand_out(self, offset: int, message: WireMessage, topic: str, group: str) -> Delivery:
        """The delivery of one of its records."""
        self.out += 1
        if offset > self._handed:  # noqa: PLR1730  max() costs three times as much, for every message
            self._handed = offset
        return Delivery(
            message,
            Lease(self, offset, message),
            topic,
            group,
            f"{self.tier.name}[{self.number}]@{offset}",
            self.tier.returned,
            self.tracker.lost(offset) if self.tracker.marks else 0,
            self.tracker.notes.get(offset, 0) if self.tracker.notes else 0,
            True,  # noqa: FBT003  positions cost less than names, for every message
        )

    def take_back(self, lease: Lease) -> bool:
        """A delivery of it was settled. False: it was settled before, and that was counted."""
        if not lease.out:
            return False
        lease.out = False
        self.out -= 1
        self.heard_of(lease.offset)
        return True

    def begin(self, offset: int) -> int | None:
        """As Tracker.begin."""
        self.heard_of(offset)
        before = self.tracker.begin(offset)
        if before is not None:
            self._begun.add(offset)
        return before

    def heard_of(self, offset: int) -> None:
        """If it was begun here: this process lives."""
        if offset in self._begun:
            self._begun.discard(offset)
            self.tracker.heard_of(offset)

    def must_reserve(self) -> bool:
        """Whether more was handed out than a commit has told, so that a lost process would not be counted."""
        return self._handed >= self._reserved

    def to_commit(self, longest: int = LONGEST, *, leaving: bool = False) -> TopicPartition | None:
        """What to commit, if there is anything; `leaving`: nothing stays with handlers."""
        if leaving or (self.leaving and not self.out):
            for offset in tuple(self._begun):
                self.heard_of(offset)
            progress = self.tracker.progress()
        else:
            if self._handed >= self._reserved:
                self._chunk = min(self._chunk * 2, MOST_RESERVED)
            # where a process was lost before, the next loss counts for no more than it must
            chunk = RESERVE if self.tracker.marks and self.tracker.lost(self._handed + 1) else self._chunk
            if self._handed >= 0 and self._reserved - self._handed <= chunk // 2:
                self._reserved = self._handed + chunk
            progress = self.tracker.progress(self.out, self._reserved)
        return None if progress.low < 0 else self.place_of(progress, longest)

    def place_of(self, progress: Progress, longest: int = LONGEST) -> TopicPartition:
        """The commit that says `progress`."""
        return TopicPartition(self.tier.name, self.number, progress.low, encode(progress, longest) or None)


def recalled(parts: Iterable[Partition], *, lost: bool) -> list[Recall]:
    """A recall of what is out of them, if anything is."""
    out = frozenset(part for part in parts if part.out)

    def covers(token: object) -> bool:
        return isinstance(token, Lease) and token.partition in out

    return [Recall(covers, lost)] if out else []


def message_of(record: Message) -> WireMessage:
    """The message that a record holds, without its headers where the driver cannot read their names."""
    try:
        headers = record.headers()
    except UnicodeDecodeError as error:
        log.warning(
            "%s[%s]@%s: its headers cannot be read: %s", record.topic(), record.partition(), record.offset(), error
        )
        headers = None
    return from_record(record.value(), record.key(), headers)  # type: ignore[arg-type]  # the driver gives pairs
