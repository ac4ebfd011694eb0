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
        self._settle_at = self._tell_at = 0.0
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

    def ended(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """As the driver's `on_commit`: what failed is committed again, when its time comes."""
        self.pending -= 1
        for place in places:
            failed = place.error or error
            if failed is None:
                continue
            log.debug("commit of %s: %s", place, failed)
            if failed.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
                self._longest //= 2
            part = self._partitions.get((place.topic, place.partition))
            if part is not None:
                self.changed.add(part)
