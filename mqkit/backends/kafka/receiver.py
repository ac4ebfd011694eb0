"""Receiving for a group, and for a tail: gathers what its members of Kafka's groups have, on the one thread of its own.

The topic is read in one Kafka group and the tiers beside it in another: Kafka spreads partitions over the members of
a group by number, and would give one worker all of the topic's own and the next one all of the tiers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from time import monotonic, time
from typing import Final

from confluent_kafka import KafkaException, TopicPartition

from mqkit.backend import Notes, Notify, Recall, Settlement, Settlements
from mqkit.backends.kafka import LEASE
from mqkit.backends.kafka.faults import Trouble, as_ours
from mqkit.backends.kafka.logs import Logs
from mqkit.backends.kafka.member import SLICE, Member
from mqkit.backends.kafka.partitions import Lease, Partition
from mqkit.backends.kafka.trimming import Trimming
from mqkit.errors import ClosedError, LeaseLost, MqkitError
from mqkit.message import Delivery, WireMessage

KEEP: Final = 0.25
"""Seconds between two polls while nothing is wanted."""
PROBE: Final = 0.25
"""Seconds for an answer while no broker seems to be there, asked for every"""
PROBE_EVERY: Final = 0.5
"""seconds."""
STILL: Final = LEASE / 2
"""Seconds without a call after which it is looked at whether our memberships are over."""
CLOSING: Final = 3.0
"""Seconds for the last commits, and for leaving."""


class KafkaReceiver:
    """`BlockingReceiver` of what `members` have. What is due in the first of them goes first."""

    def __init__(
        self,
        topic: str,
        group: str,
        members: Sequence[Member],
        *,
        trouble: Trouble,
        notify: Notify,
        logs: Logs,
        trimming: Trimming,
    ) -> None:
        self._logs = logs
        self._looked = 0
        self._trimming = trimming
        self._topic = topic
        self._group = group
        self._members = members
        self._trouble = trouble
        self._notify = notify
        self._again: list[Lease] = []
        self._recalls: list[Recall] = []
        self._woken = Event()
        self._away = False
        self._called = monotonic()
        self._keep_at = 0.0
        self._probe_at = 0.0
        self._end: MqkitError | None = None
        self._closed = False

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As BlockingReceiver.receive."""
        self._check()
        deadline = monotonic() + timeout
        try:
            with self._mapped():
                if monotonic() - self._called > STILL:
                    for member in self._members:
                        member.verify()
                while True:
                    found = self._gather(limit) if limit > 0 else self._keep()
                    for member in self._members:
                        member.commit_if_due()
                        member.hand_over()
                        self._recalls += member.recalls()
                        self._end = self._end or member.end
                    if (gone := self._logs.gone()) is not None:
                        self._end = self._end or self._trouble.gone_with(gone)
                    elif self._looked != self._logs.looked:
                        self._looked = self._logs.looked
                        self._trimming.remove(self._finished())
                        for member in self._members:
                            member.follow_all(self._logs.partitions)
                    if self._trouble.down or self._trouble.gone:
                        self._probe()
                    if found or self._recalls:
                        return found
                    self._check()
                    rest = deadline - monotonic()
                    if rest <= 0 or self._woken.is_set():
                        return found
                    if limit > 0:
                        self._wait(min(rest, SLICE))
                    else:
                        self._woken.wait(min(rest, SLICE if self._handing_over else KEEP))
        finally:
            self._called = monotonic()
            self._woken.clear()

    def recalled(self) -> Sequence[Recall]:
        """As BlockingReceiver.recalled."""
        recalls, self._recalls = self._recalls, []
        return recalls

    @property
    def _handing_over(self) -> bool:
        return any(member.handing_over for member in self._members)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """What the driver raises ends the session."""
        try:
            yield
        except KafkaException as failure:
            self._end = as_ours(failure.args[0], f"group {self._group} of {self._topic}")
            raise self._end from failure

    def _gather(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        topic, group = self._topic, self._group

        def take(part: Partition, offset: int, message: WireMessage) -> None:
            found.append(part.hand_out(offset, message, topic, group))

        while self._again and len(found) < limit:
            lease = self._again.pop()
            if lease.partition.member is not None and not lease.partition.leaving:
                take(lease.partition, lease.offset, lease.message)
        now = time()
        for member in self._members:
            if len(found) < limit:
                member.take(limit - len(found), now, take)
        return found

    def _keep(self) -> list[Delivery]:
        """Each poll may bring a record that nobody wants: too many of them, and the partitions have to pause."""
        now = monotonic()
        if now >= self._keep_at or self._handing_over:
            self._keep_at = now + KEEP
            for member in self._members:
                member.keep()
        return []

    def _wait(self, timeout: float) -> None:
        """On the topic itself: what comes to the tiers is seen a slice later, and what is due there in time."""
        for member in self._members[:-1]:
            member.poll(0)  # the driver tells of errors in poll alone, and not in consume
        next_due = min(member.next_due for member in self._members)
        self._members[-1].poll(max(0.001, min(timeout, next_due - time())))

    def _probe(self) -> None:
        """Tell when no broker answers, and when one does again; end when a topic was deleted.

        The driver connects again by itself and, over a short outage, keeps the membership; a new session would have to
        wait until the broker has given up the old one.
        """
        if monotonic() < self._probe_at:
            return
        self._probe_at = monotonic() + PROBE_EVERY
        missing: set[str] = set()
        for member in self._members:
            found = member.missing(PROBE)
            if found is None:
                if not self._away:
                    self._away = True
                    self._notify("disconnected", str(self._trouble.ours("no broker answers")))
                return
            missing |= found
        if missing:
            self._end = self._trouble.deleted(min(missing))
        self._trouble.forget()
        if self._away:
            self._away = False
            self._notify("connected", f"Kafka at {self._trouble.servers} answers again")

    def settle(self, settlements: Settlements) -> None:
        """As BlockingReceiver.settle."""
        self._check()
        gone: list[Lease] = []
        again: list[Lease] = []
        released: list[Lease] = []
        for token, settlement in settlements:
            assert isinstance(token, Lease)
            member = token.partition.member
            if member is None:
                gone.append(token)
                continue
            if not member.settled(token, finished=settlement is Settlement.DONE):
                again.append(token)
            elif settlement is not Settlement.DONE:
                released.append(token)
        if released:
            self._again = sorted([*self._again, *released], key=lambda lease: -lease.offset)
        for member in self._members:
            member.commit_if_due()
            member.hand_over()
        check_again(again)
        _check_gone(gone)

    def note(self, notes: Notes) -> None:
        """As BlockingReceiver.note; waits for a commit, and meanwhile for a broker that is away."""
        self._check()
        noted: list[Lease] = []
        gone: list[Lease] = []
        for token, spent in notes:
            assert isinstance(token, Lease)
            part = token.partition
            ours = part.member in self._members and part.tracker.note(token.offset, spent)
            part.heard_of(token.offset)
            (noted if ours else gone).append(token)
        with self._mapped():
            for member in self._members:
                member.confirm({token.partition for token in noted if token.partition.member is member})
                self._end = self._end or member.end
        self._check()
        _check_gone([*gone, *(token for token in noted if token.partition.member is None)])

    def begin(self, token: object) -> int:
        """As BlockingReceiver.begin; waits for a commit, as note does."""
        self._check()
        assert isinstance(token, Lease)
        part = token.partition
        before = part.begin(token.offset) if part.member in self._members else None
        if before is not None:
            with self._mapped():
                for member in self._members:
                    if part.member is member:
                        member.confirm({part})
                        self._end = self._end or member.end
            self._check()
        if before is None or part.member is None:
            raise LeaseLost(f"the partition of {token} was taken away, or it is settled already")
        return before

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver is closed")
        if self._end is not None:
            raise self._end

    def wake(self) -> None:
        """As BlockingReceiver.wake."""
        self._woken.set()

    def close(self) -> None:
        """As BlockingReceiver.close."""
        if self._closed:
            return
        self._closed = True
        self._again.clear()
        deadline = monotonic() + CLOSING
        for member in self._members:
            member.leave()
        staying = list(self._members)
        while staying := [member for member in staying if not member.left()]:
            if self._end is not None or monotonic() >= deadline:
                break
        finished = [] if staying else self._trimming.wanted(self._finished())
        threads = [member.closing() for member in self._members]
        if finished and self._logs.same(max(0.0, deadline - monotonic())):
            self._trimming.remove(finished)
            self._trimming.finish(max(0.0, deadline - monotonic()))
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _finished(self) -> list[TopicPartition]:
        return [place for member in self._members for place in member.finished()]


def check_again(again: Sequence[Lease]) -> None:
    """Raises LeaseLost if any of these, which were settled now, had been settled before."""
    if again:
        raise LeaseLost(f"{len(again)} deliveries were settled already ({_some(again)}), which stands")


def _some(leases: Sequence[Lease]) -> str:
    return ", ".join(map(str, leases[:3])) + (", ..." if len(leases) > 3 else "")


def _check_gone(gone: Sequence[Lease]) -> None:
    if gone:
        raise LeaseLost(
            f"the partition of {len(gone)} deliveries was taken away ({_some(gone)}): they are delivered again"
        )
