"""One Consumer and the partitions that it has: what is taken from them, what is committed, what the group takes away.

When records are due is told in tiers.py, what is finished in offsets.py, when that is committed in commits.py. All but
`closing` is called from the one thread of the receiver that this belongs to; the driver's callbacks run within it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from mqkit.backend import Notify, Recall
from mqkit.backends.kafka.commits import INSISTING, PROMPT, RESERVING, Commits
from mqkit.backends.kafka.faults import NO_TOPIC, DriverLog, Trouble, as_ours, log, mapped
from mqkit.backends.kafka.flow import Flow
from mqkit.backends.kafka.gaps import passed, tell_what_is_gone
from mqkit.backends.kafka.handover import Handover, Step
from mqkit.backends.kafka.logs import Logs
from mqkit.backends.kafka.offsets import Progress
from mqkit.backends.kafka.partitions import Lease, Partition, message_of, recalled
from mqkit.backends.kafka.places import PATIENCE, closing, committed, listed, missing, restored
from mqkit.backends.kafka.tiers import Tier, due
from mqkit.errors import ConnectionLost, MqkitError
from mqkit.message import WireMessage

SLICE: Final = 0.01
"""Seconds of one wait in the driver: so long a wake may take. An idle receiver costs about one per cent of a core."""
OVERREAD: Final = 32
"""So many records are kept that came while nothing was wanted; then the partitions pause."""
REACHING: Final = 1.0
"""Seconds between two looks at how far the driver has read."""

Take = Callable[[Partition, int, WireMessage], None]
"""What gets a record that is to be delivered: its partition, its offset, and what it holds."""


class Member:
    """A Consumer. It receives nothing before `join` or `follow`.

    Args:
        patience: seconds that a partition which the group asks back stays for the handlers that are at work on it.

    Raises:
        ConfigurationError: settings that the driver refuses.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        tiers: Iterable[Tier],
        *,
        interval: float,
        trouble: Trouble,
        notify: Notify,
        logs: Logs | None = None,
        patience: float = 0.0,
    ) -> None:
        self._logs = logs
        self._tiers = {tier.name: tier for tier in tiers}
        self._patience = patience
        self._trouble = trouble
        self._notify = notify
        self._name = str(config["group.id"])
        self.partitions: dict[tuple[str | None, int | None], Partition] = {}
        self._delayed: list[Partition] = []
        self._remembered: dict[tuple[str, int], Progress] = {}
        self._buffer: deque[Message] = deque()
        self.flow = Flow()
        self._handover: Handover | None = None
        self._recalls: list[Recall] = []
        self._joined = False
        self._leaving = False
        self._commits = Commits(self._name, interval, self.partitions)
        self._changed = self._commits.changed
        self._reach_at = 0.0
        self.end: MqkitError | None = None
        """Why this cannot go on."""
        callbacks = {"error_cb": trouble.hear, "on_commit": self._commits.ended}
        with mapped("the Kafka consumer's settings"):
            self._consumer = Consumer({**config, **callbacks}, logger=DriverLog())
        self._commits.consumer = self._consumer

    def join(self) -> None:
        """Become a member of the group."""
        self._joined = True
        self._consumer.subscribe(
            list(self._tiers), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def follow(self, places: Sequence[TopicPartition]) -> None:
        """Read from these positions on, too, and commit nothing."""
        self._consumer.list_topics(timeout=PATIENCE)  # or else it looks for the leaders only a second later
        for place in places:
            self._add(Partition(self._tiers[place.topic], place.partition, None, self._log_id(place.topic)))
        self._consumer.incremental_assign(list(places))

    def follow_all(self, partitions: Mapping[str, int]) -> None:
        """Where no group gives it partitions: read the added ones, too, of these topics with so many by now."""
        if not self._joined:
            places = [(name, number) for name, count in partitions.items() for number in range(count)]
            added = [TopicPartition(*place, 0) for place in places if place not in self.partitions]
            if added:
                self.follow(added)

    def missing(self, timeout: float) -> set[str] | None:
        """Which of its topics are not there; None if no broker answers in time."""
        return missing(self._consumer, {*self._tiers}, timeout)

    # -- taking records

    @property
    def next_due(self) -> float:
        """When a record that waits here is due, in seconds since the epoch; infinity if none waits."""
        return min((part.waiting.next_due for part in self._delayed), default=float("inf"))

    def keep(self, timeout: float = 0) -> None:
        """Take part in the group's life while no records are wanted."""
        self.poll(timeout)
        if len(self._buffer) >= OVERREAD and not self.flow.parked:
            self.flow.parked = True
            self._steer()

    def poll(self, timeout: float) -> None:
        """Until something came, or the time is over."""
        record = self._consumer.poll(timeout)
        if record is not None:
            self._buffer.append(record)

    def take(self, limit: int, now: float, take: Take) -> int:
        """Give up to `limit` records that are there and due to `take`; how many."""
        left = limit
        for part in self._delayed:
            if part.waiting and not part.leaving:
                for offset, message in part.waiting.take(now, left):
                    left -= 1
                    self._give(part, offset, message, take)
        while self._buffer and left:
            left -= self._admit(self._buffer.popleft(), now, take)
        if left:
            if self.flow.parked:
                self.flow.parked = False
                self._steer()
            for record in self._consumer.consume(left, 0):
                left -= self._admit(record, now, take)
        if self._delayed and self.flow.regulate(self._delayed, now):
            self._steer()
        if self._joined and left < limit:
            self._reserve()
        return limit - left

    def _admit(self, record: Message, now: float, take: Take) -> int:
        error = record.error()
        if error is not None:
            if error.code() in NO_TOPIC:  # a deletion may be told here first, by whatever the driver just tried
                self.end = self._trouble.deleted(record.topic() or f"of group {self._name}")
            else:
                self.end = as_ours(error, f"group {self._name}")
            return 0
        part = self.partitions.get((record.topic(), record.partition()))
        if part is None or part.leaving:
            return 0  # it was taken away, or asked back, while its records lay in the queue
        offset = record.offset()
        assert offset is not None
        if offset < part.tracker.following:
            part = self._begin_anew(part)
        elif offset > part.tracker.following:
            tell_what_is_gone(self._consumer, part, self._name)
        if not part.tracker.take(offset):
            self._changed.add(part)
            return 0
        message = message_of(record)
        if part.tier.step:
            when = due(record.timestamp()[1], part.tier.step, now)
            if when > now:
                part.waiting.add(when, offset, len(message.body), (offset, message))
                self._changed.add(part)
                return 0
        self._give(part, offset, message, take)
        return 1

    def _begin_anew(self, part: Partition) -> Partition:
        """The log was cut, or is another one, as will be known soon: nothing that comes now counts as finished."""
        log.warning("%s: its log begins anew, so nothing in it counts as finished", part)
        buffered = self._buffer  # what lies in it came after that
        self._drop([part])
        self._buffer = buffered
        if self._logs is not None:
            self._logs.hurry()
        return self._add(Partition(part.tier, part.number, None, self._log_id(part.tier.name), paused=part.paused))

    def _log_id(self, topic: str) -> str:
        return "" if self._logs is None else self._logs.ids.get(topic, "")

    def _give(self, part: Partition, offset: int, message: WireMessage, take: Take) -> None:
        self._changed.add(part)
        take(part, offset, message)

    def _steer(self) -> None:
        """Tell the driver what to fetch, where it was told otherwise."""
        pause, resume = self.flow.changes(self.partitions.values())
        if pause:
            self._consumer.pause(pause)
        if resume:
            self._consumer.resume(resume)

    # -- committing

    def settled(self, lease: Lease, *, finished: bool) -> bool:
        """A delivery of a partition that is ours came back. False: it came back before, which nothing undoes."""
        return self._commits.settled(lease, finished=finished)

    def finished(self) -> list[TopicPartition]:
        """Up to where all is finished, and known to the broker, in what mqkit alone writes, for this group alone."""
        parts = [part for part in self.partitions.values() if part.tier.returned]
        known = ((part, min(part.tracker.low, part.committed)) for part in parts)
        return [TopicPartition(part.tier.name, part.number, low) for part, low in known if low > 0]

    def commit_if_due(self) -> None:
        """Commit what changed, if there was no commit for a while."""
        if not self._joined:
            return
        now = monotonic()
        if now >= self._reach_at:
            self._reach_at = now + REACHING
            self._pass_gaps()
        self._commits.if_due()

    def _pass_gaps(self) -> None:
        waiting = {(record.topic(), record.partition()) for record in self._buffer}
        self._changed.update(
            passed(self._consumer, [p for place, p in self.partitions.items() if place not in waiting])
        )

    def confirm(self, parts: Iterable[Partition]) -> None:
        """Commit these; returns when the broker has it, when they are not ours any more, or with `end` set."""
        if not self._joined:
            return
        parts = set(parts)
        self._changed |= parts
        started, next_at = monotonic(), 0.0
        while True:
            now = monotonic()
            if not self._commits.pending:  # or else what is confirmed next may have been sent before
                unsaid = [part for part in parts & self._changed if part.member is self]
                if not unsaid or self.end is not None:
                    return
                if now >= next_at:
                    self._commits.send(unsaid)
                    next_at = now + INSISTING
            if now > started + PATIENCE:
                self.end = self._trouble.ours(f"group {self._name}: no commit was confirmed for {PATIENCE:g} s")
                return
            if now < started + PROMPT:
                self.poll(0.001)
            else:
                self.keep(0.001)

    def verify(self) -> None:
        """Find out whether what is with handlers is still ours: as `confirm`, of the partitions that it is from."""
        self.confirm([part for part in self.partitions.values() if part.out])

    def _reserve(self) -> None:
        """Tell how far records are handed out, before they are: a process may end with the first of them."""
        parts = [part for part in self._changed if part.must_reserve()]
        if parts:
            self._commits.send(parts)
            deadline = monotonic() + RESERVING
            while self._commits.pending and monotonic() < deadline:
                self.poll(0.001)  # it goes on waiting after it has served a callback

    # -- what the group gives and takes, within poll

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if not places or self._leaving:
            return
        try:
            consumer.incremental_assign([self._start(consumer, place) for place in committed(consumer, places)])
            consumer.resume(places)  # they begin as flow.py says
            self._steer()
        except KafkaException as failure:  # an exception must not leave a callback: the driver would mangle it
            self.end = ConnectionLost(f"group {self._name}: {failure.args[0]}")
        else:
            self._notify("rebalance", f"got {listed(places)}")

    def _start(self, consumer: Consumer, place: TopicPartition) -> TopicPartition:
        """Take up a partition where its last owner left it, or we did, with what we could not commit any more."""
        mine = self._remembered.pop((place.topic, place.partition), None)
        log_id = self._log_id(place.topic)
        progress = restored(consumer, place, mine, log_id)
        part = self._add(Partition(self._tiers[place.topic], place.partition, progress, log_id))
        part.committed = place.offset
        if progress is not None and progress.out:
            self._changed.add(part)
        low = part.tracker.following
        return TopicPartition(place.topic, place.partition, low if low >= 0 else OFFSET_BEGINNING)

    def _revoked(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Keep them for now: they go when `hand_over` says so to the driver."""
        parts = self._of(places)
        if not parts:
            return
        try:
            consumer.incremental_assign([])  # nothing: but who calls none of these has given them away on return
        except KafkaException as failure:
            self.end = ConnectionLost(f"group {self._name}: {failure.args[0]}")
            return
        for part in parts:
            part.leaving = True
        self._changed.update(parts)
        self._handover = Handover(places, parts, monotonic() + self._patience)
        self._recalls += recalled(parts, lost=False)

    @property
    def handing_over(self) -> bool:
        """Whether partitions wait to be given away."""
        return self._handover is not None

    def hand_over(self) -> None:
        """Give away what the group asked back, once nothing of it is with a handler and all is committed; or late."""
        handover = self._handover
        if handover is None:
            return
        unsaid = [part for part in handover.parts if part in self._changed]
        step = handover.step(monotonic(), committing=bool(self._commits.pending), unsaid=bool(unsaid))
        if step is Step.COMMIT:
            self._commits.send(handover.parts, leaving=True)
        elif step is Step.GO:
            self._handover = None
            self._drop(handover.parts)
            try:
                self._consumer.incremental_unassign(handover.places)
            except KafkaException as failure:
                self.end = ConnectionLost(f"group {self._name}: {failure.args[0]}")
            self._notify("rebalance", f"gave {listed(handover.places)}")

    def recalls(self) -> list[Recall]:
        """What was taken away since the last call."""
        recalls, self._recalls = self._recalls, []
        return recalls

    def _lost(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        self._handover = None  # the driver gives away all that it lost when this returns
        parts = self._of(places)
        if parts:
            known = {(part.tier.name, part.number): part.tracker.progress() for part in parts}
            self._remembered |= {place: progress for place, progress in known.items() if progress.low >= 0}
            self._drop(parts)
            self._notify("rebalance", f"lost {listed(places)}")

    def _of(self, places: Iterable[TopicPartition]) -> list[Partition]:
        found = (self.partitions.get((place.topic, place.partition)) for place in places)
        return [part for part in found if part is not None]

    def _add(self, part: Partition) -> Partition:
        part.member = self
        self.partitions[part.tier.name, part.number] = part
        self._delayed = [part for part in self.partitions.values() if part.tier.step]
        return part

    def _drop(self, parts: Iterable[Partition]) -> None:
        """Their deliveries are not ours any more."""
        parts = list(parts)
        self._recalls += recalled(parts, lost=True)
        for part in parts:
            del self.partitions[part.tier.name, part.number]
            part.member = None
            self._changed.discard(part)
        self._delayed = [part for part in self.partitions.values() if part.tier.step]
        known = self.partitions.keys()
        self._buffer = deque(record for record in self._buffer if (record.topic(), record.partition()) in known)

    # -- leaving

    def leave(self) -> None:
        """Begin to leave: nothing more is taken up, and all that is finished is to be committed."""
        self._leaving = True
        if self._joined:
            with suppress(KafkaException):
                self._pass_gaps()
            self._changed.update(self.partitions.values())

    def left(self) -> bool:
        """Go on with the last commit, for about a millisecond: whether nothing is missing any more."""
        if not self._joined:
            return True
        self._consumer.poll(0.001)  # what comes now is another's
        return self._commits.last(self.partitions.values())

    def closing(self) -> Thread:
        """Give all back and close, in a thread that ends when that is done; while no broker answers, in minutes."""
        self._drop(list(self.partitions.values()))
        consumer = self._consumer
        del self._consumer, self._commits.consumer
        return closing(consumer, self._handover.places if self._handover is not None else ())
