"""What of a member's partitions is to be committed, when, and which commits are on their way."""

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mqkit.backends.kafka.faults import log
from mqkit.backends.kafka.offsets import LONGEST
from mqkit.backends.kafka.partitions import Lease, Partition

TELLING: Final = 1.0
"""Seconds between commits that only tell what is with handlers."""
RESERVING: Final = 1.0
"""Seconds that a delivery waits for a commit of how far deliveries go, and then goes out uncounted."""
PROMPT: Final = 0.1
"""Seconds in which a commit is confirmed, mostly. What comes meanwhile is kept: a pause would cost 0.2 s."""
INSISTING: Final = 0.05
"""Seconds between two commits of the same, while somebody waits for it, or leaves."""


class Commits:
    """The commits of one consumer.

    Args:
        name: of Kafka's group.
        interval: seconds between commits of what was settled.
        partitions: those that are ours, by topic and number.
    """

    consumer: Consumer

    def __init__(
        self, name: str, interval: float, partitions: Mapping[tuple[str | None, int | None], Partition]
    ) -> None:
        self._name = name
        self._interval = interval
        self._partitions = partitions
        self.changed: set[Partition] = set()
        """Those of which something is not committed."""
        self.pending = 0
        """How many commits are on their way."""
        self._settled = False
        self._settle_at = self._tell_at = self._again_at = 0.0
        self._longest = LONGEST

    def settled(self, lease: Lease, *, finished: bool) -> bool:
        """A delivery of a partition that is ours came back. False: it came back before, which nothing undoes."""
        part = lease.partition
        if not part.take_back(lease):
            return False
        self.changed.add(part)
        self._settled = True
        if finished:
            part.tracker.finish(lease.offset)
        return True

    def if_due(self) -> None:
        """Commit what changed, if there was no commit for a while."""
        if not self.changed or self.pending:
            return
        now = monotonic()
        if self._settled and now >= self._settle_at:
            self._settle_at = now + self._interval
        elif now < self._tell_at:
            return
        self._tell_at = now + TELLING
        self.send(self.changed)

    def send(self, parts: Iterable[Partition], *, leaving: bool = False) -> None:
        """Send a commit; `ended` hears of its end. It never waits: a broker that is away would hold us.

        Args:
            leaving: we give these partitions away, whatever is with handlers.
        """
        parts = list(parts)
        places = [part.to_commit(self._longest, leaving=leaving) for part in parts]
        self.changed.difference_update(parts)
        self._settled = self._settled and bool(self.changed)
        offsets = [place for place in places if place is not None]
        if offsets:
            try:
                self.consumer.commit(offsets=offsets, asynchronous=True)
                self.pending += 1
            except KafkaException as failure:
                self.changed.update(parts)
                log.debug("commit of group %s: %s", self._name, failure)

    def last(self, parts: Iterable[Partition]) -> bool:
        """Commit these for the last time; to be called until it is True: the broker has what is finished in them.

        A group that is just dividing its partitions anew refuses commits for a moment.
        """
        unsaid = [part for part in parts if part in self.changed]
        if unsaid and not self.pending and (now := monotonic()) >= self._again_at:
            self._again_at = now + INSISTING
            self.send(unsaid, leaving=True)
            unsaid = [part for part in unsaid if part in self.changed]
        return not (unsaid or self.pending)

    def ended(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """As the driver's `on_commit`: what failed is committed again, when its time comes."""
        self.pending -= 1
        for place in places:
            failed = place.error or error
            part = self._partitions.get((place.topic, place.partition))
            if failed is None:
                if part is not None:
                    part.committed = place.offset
                continue
            log.debug("commit of %s: %s", place, failed)
            if failed.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                self._longest //= 2
            if part is not None:
                self.changed.add(part)
