"""Receiving for a group, and for a tail: one Consumer, which one thread calls, and the partitions that it has.

When records are due is told in tiers.py, what is finished in offsets.py, what is committed in partitions.py.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Event, Thread
from time import monotonic, time
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from mqkit.backend import Notify, Settlement, Settlements
from mqkit.backends.kafka.faults import NO_TOPIC, DriverLog, Trouble, as_ours, log, mapped
from mqkit.backends.kafka.offsets import LONGEST, Progress, decode, merged
from mqkit.backends.kafka.partitions import Lease, Partition, message_of
from mqkit.backends.kafka.tiers import Tier, due
from mqkit.errors import ClosedError, ConnectionLost, LeaseLost, MqkitError
from mqkit.message import Delivery, WireMessage

SLICE: Final = 0.01
"""Seconds of one wait in the driver: so long a wake may take. An idle receiver costs half a per cent of a core."""
KEEP: Final = 0.25
"""Seconds between two polls while nothing is wanted."""
OVERREAD: Final = 32
"""So many records are kept that came while nothing was wanted; then the partitions pause."""
PROBE: Final = 0.1
"""Seconds for an answer while no broker seems to be there, asked for every"""
PROBE_EVERY: Final = 0.5
"""seconds."""
RESERVING: Final = 1.0
"""Seconds that a delivery waits for such a commit, and then goes out uncounted."""
CLOSING: Final = 3.0
"""Seconds for the last commit, and for leaving."""
PATIENCE: Final = 10.0
"""Seconds for one answer of the broker."""


class KafkaReceiver:
    """`BlockingReceiver` on a confluent-kafka Consumer. It receives nothing before `join` or `follow`."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        group: str,
        *,
        tiers: Iterable[Tier],
        interval: float,
        trouble: Trouble,
        notify: Notify,
    ) -> None:
        self._topic = topic
        self._group = group
        self._tiers = {tier.name: tier for tier in tiers}
        self._interval = interval
        self._trouble = trouble
        self._notify = notify
        self._partitions: dict[tuple[str | None, int | None], Partition] = {}
        self._remembered: dict[tuple[str, int], Progress] = {}
        self._again: list[Lease] = []
        self._buffer: deque[Message] = deque()
        self._parked = False
        self._woken = Event()
        self._changed: set[Partition] = set()
        self._committing = 0
        self._commit_at = 0.0
        self._longest = LONGEST
        self._joined = False
        self._away = False
        self._probe_at = 0.0
        self._end: MqkitError | None = None
        self._closed = False
        callbacks = {"error_cb": trouble.hear, "on_commit": self._committed}
        with mapped("the Kafka consumer's settings"):
            self._consumer = Consumer({**config, **callbacks}, logger=DriverLog())

    def join(self) -> None:
        """Become a member of the group."""
        self._joined = True
        self._consumer.subscribe(
            list(self._tiers), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def follow(self, ends: Iterable[TopicPartition]) -> None:
        """Read from these positions on, and commit nothing."""
        places = list(ends)
        self._consumer.list_topics(timeout=PATIENCE)  # or else it looks for the leaders only a second later
        for place in places:
            self._partitions[place.topic, place.partition] = Partition(self._tiers[place.topic], place.partition, None)
        self._consumer.assign(places)

    # -- receiving

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As BlockingReceiver.receive."""
        if self._closed:
            raise ClosedError("this receiver is closed")
        deadline = monotonic() + timeout
        try:
            while True:
                found = self._gather(limit) if limit > 0 else self._keep()
                self._commit_if_due()
                if self._trouble.down:
                    self._probe()
                if self._end is not None and not found:
                    raise self._end
                rest = deadline - monotonic()
                if found or rest <= 0 or self._woken.is_set():
                    return found
                if limit > 0:
                    self._wait(min(rest, SLICE))
                else:
                    self._woken.wait(min(rest, KEEP))
        except KafkaException as failure:
            self._end = as_ours(failure.args[0], f"group {self._group} of {self._topic}")
            raise self._end from failure
        finally:
            self._woken.clear()

    def wake(self) -> None:
        """As BlockingReceiver.wake."""
        self._woken.set()

    def _probe(self) -> None:
        """Tell when no broker answers, and when one does again. The driver connects again by itself, and keeps our
        membership over short outages, which a new session would have to wait to get.
        """
        if monotonic() < self._probe_at:
            return
        try:
            self._consumer.list_topics(self._topic, PROBE)
        except KafkaException:
            self._probe_at = monotonic() + PROBE_EVERY
            if not self._away:
                self._away = True
                self._notify("disconnected", str(self._trouble.ours("no broker answers")))
            return
        self._trouble.forget()
        self._probe_at = 0.0
        if self._away:
            self._away = False
            self._notify("connected", f"Kafka at {self._trouble.servers} answers again")

    def _wait(self, timeout: float) -> None:
        next_due = min((part.waiting.next_due for part in self._partitions.values()), default=float("inf"))
        message = self._consumer.poll(max(0.001, min(timeout, next_due - time())))
        if message is not None:
            self._buffer.append(message)

    def _keep(self) -> list[Delivery]:
        message = self._consumer.poll(0)
        if message is not None:
            self._buffer.append(message)
        if len(self._buffer) >= OVERREAD and not self._parked:
            self._parked = True
            self._consumer.pause([part.place for part in self._partitions.values() if not part.paused])
        return []

    def _gather(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        while self._again and len(found) < limit:
            partition, offset, message = self._again.pop()
            found.append(self._hand_out(partition, offset, message))
        now = time()
        for part in self._partitions.values():
            if part.waiting:
                for offset, message in part.waiting.take(now, limit - len(found)):
                    found.append(self._hand_out(part, offset, message))
        buffer = self._buffer
        while buffer and len(found) < limit:
            self._admit(buffer.popleft(), now, found)
        if len(found) < limit:
            if self._parked:
                self._parked = False
                self._consumer.resume([part.place for part in self._partitions.values() if not part.paused])
            for record in self._consumer.consume(limit - len(found), 0):
                self._admit(record, now, found)
        self._regulate(now)
        if self._joined and found:
            self._reserve()
        return found

    def _admit(self, record: Message, now: float, found: list[Delivery]) -> None:
        error = record.error()
        if error is not None:
            self._heed(error)
            return
        part = self._partitions.get((record.topic(), record.partition()))
        if part is None:
            return  # it was revoked while its records lay in the queue
        offset = record.offset()
        assert offset is not None
        if offset < part.tracker.following:
            part = self._renewed(part)
        if not part.tracker.take(offset):
            self._changed.add(part)
            return
        message = message_of(record)
        if part.tier.step:
            when = due(record.timestamp()[1], part.tier.step, now)
            if when > now:
                part.waiting.add(when, offset, len(message.body), (offset, message))
                self._changed.add(part)
                return
        found.append(self._hand_out(part, offset, message))

    def _hand_out(self, part: Partition, offset: int, message: WireMessage) -> Delivery:
        self._changed.add(part)
        return part.hand_out(offset, message, self._topic, self._group)

    def _renewed(self, part: Partition) -> Partition:
        """Its log begins anew: it was cut off or deleted, and what was known is of another one."""
        log.warning("%s: its log begins anew, so nothing in it counts as finished", part)
        self._retire(part)
        new = self._partitions[part.tier.name, part.number] = Partition(part.tier, part.number, None)
        return new

    def _regulate(self, now: float) -> None:
        """Stop fetching where enough waits, go on where more is wanted."""
        for part in self._partitions.values():
            if part.waiting.full and not part.paused:
                part.paused = True
                self._consumer.pause([part.place])
            elif part.paused and part.waiting.wants_more(now):
                part.paused = False
                if not self._parked:
                    self._consumer.resume([part.place])

    def _heed(self, error: KafkaError) -> None:
        ours = as_ours(error, f"group {self._group} of {self._topic}")
        self._end = ConnectionLost(str(ours)) if error.code() in NO_TOPIC else ours

    # -- settling

    def settle(self, settlements: Settlements) -> None:
        """As BlockingReceiver.settle."""
        if self._closed:
            raise ClosedError("this receiver is closed")
        gone: list[str] = []
        released: list[Lease] = []
        for token, settlement in settlements:
            assert isinstance(token, Lease)
            part, offset, _ = token
            if not part.live:
                gone.append(f"{part}@{offset}")
                continue
            part.out -= 1
            self._changed.add(part)
            if settlement is Settlement.DONE:
                part.tracker.finish(offset)
            else:
                released.append(token)
        if released:
            self._again = sorted([*self._again, *released], key=lambda lease: -lease.offset)
        self._commit_if_due()
        if gone:
            some = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
            raise LeaseLost(
                f"the partition of {len(gone)} deliveries was taken away ({some}): they are delivered again"
            )

    def _commit_if_due(self) -> None:
        if self._joined and self._changed and not self._committing and monotonic() >= self._commit_at:
            self._commit(self._changed)

    def _commit(self, parts: Iterable[Partition], *, leaving: bool = False) -> None:
        """Send a commit; `_committed` hears of its end. It never waits: a broker that is away would hold us."""
        places = [part.to_commit(self._longest, leaving=leaving) for part in parts]
        self._changed.difference_update(list(parts))
        offsets = [place for place in places if place is not None]
        if offsets:
            self._committing += 1
            self._commit_at = monotonic() + self._interval
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _committed(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """As the driver's `on_commit`: what failed is committed again, when its time comes."""
        self._committing -= 1
        for place in places:
            failed = place.error or error
            if failed is None:
                continue
            log.debug("commit of %s: %s", place, failed)
            if failed.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                self._longest //= 2
            part = self._partitions.get((place.topic, place.partition))
            if part is not None:
                self._changed.add(part)

    def _reserve(self) -> None:
        """Tell how far records are handed out, before they are: a process may end with the first of them."""
        parts = [part for part in self._changed if part.must_reserve()]
        if parts:
            self._commit(parts)
            deadline = monotonic() + RESERVING
            while self._committing and monotonic() < deadline:
                record = self._consumer.poll(SLICE)
                if record is not None:
                    self._buffer.append(record)

    # -- what the group gives and takes, within poll

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if not places:
            return
        starts = []
        for place in consumer.committed(places, timeout=PATIENCE):
            if place.error is not None:
                raise KafkaException(place.error)
            part = self._partitions[place.topic, place.partition] = self._restored(consumer, place)
            low = part.tracker.following
            starts.append(TopicPartition(place.topic, place.partition, low if low >= 0 else OFFSET_BEGINNING))
        consumer.incremental_assign(starts)
        self._notify("rebalance", f"got {_listed(places)}")

    def _restored(self, consumer: Consumer, committed: TopicPartition) -> Partition:
        """A partition as its last owner left it; where that was us, with what we could not commit any more."""
        tier, number = self._tiers[committed.topic], committed.partition
        progress = None if committed.offset < 0 else decode(committed.offset, committed.metadata)
        mine = self._remembered.pop((committed.topic, number), None)
        if mine is not None:
            progress = mine if progress is None else merged(replace(progress, reserved=0), mine)
        elif progress is not None and progress.reserved > progress.low:  # an end out of order
            _, end = consumer.get_watermark_offsets(committed, timeout=PATIENCE)
            progress = replace(progress, reserved=min(progress.reserved, end))
        part = Partition(tier, number, progress)
        if progress is not None and progress.out:
            self._changed.add(part)
        return part

    def _revoked(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        parts = self._taken(places)
        if parts:
            self._commit(parts, leaving=True)
            self._notify("rebalance", f"gave {_listed(places)}")
            self._drop(parts)

    def _lost(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        if self._closed:
            return
        parts = self._taken(places)
        self._remembered |= {
            (part.tier.name, part.number): part.tracker.progress() for part in parts if part.tracker.position >= 0
        }
        self._drop(parts)
        self._notify("rebalance", f"lost {_listed(places)}")

    def _taken(self, places: Iterable[TopicPartition]) -> list[Partition]:
        found = (self._partitions.get((place.topic, place.partition)) for place in places)
        return [part for part in found if part is not None]

    def _drop(self, parts: Iterable[Partition]) -> None:
        for part in parts:
            self._partitions.pop((part.tier.name, part.number), None)
            self._retire(part)
        self._buffer = deque(
            record for record in self._buffer if (record.topic(), record.partition()) in self._partitions
        )

    def _retire(self, part: Partition) -> None:
        """Its deliveries are not ours any more."""
        part.live = False
        self._changed.discard(part)
        self._again = [lease for lease in self._again if lease.partition is not part]

    def close(self) -> None:
        """As BlockingReceiver.close."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._joined:
                self._commit(list(self._partitions.values()), leaving=True)
        except KafkaException as failure:
            log.debug("the last commit of a consumer: %s", failure)
        self._drop(list(self._partitions.values()))
        close_soon(self._consumer)
        del self._consumer


def close_soon(consumer: Consumer) -> None:
    """Close a consumer, which waits for its commits and leaves the group; or let go of it after a few seconds.

    While no broker answers that would take from ten seconds to minutes.
    """

    def close() -> None:
        try:
            consumer.close()
        except (KafkaException, RuntimeError) as failure:
            log.debug("closing a consumer: %s", failure)

    thread = Thread(target=close, name="mqkit-kafka-close", daemon=True)
    thread.start()
    thread.join(CLOSING)


def _listed(places: Sequence[TopicPartition]) -> str:
    names = sorted(f"{place.topic}[{place.partition}]" for place in places)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
