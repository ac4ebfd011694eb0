"""Which partitions the driver fetches, of those that are ours, and what it has to be told for that. Pure.

The driver remembers what it was told to pause even while a partition is with another member. So each partition begins
as one that is fetched, which whoever takes it up has to make true, and what was said of it is kept with it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

    from mqkit.backends.kafka.partitions import Partition


class Flow:
    """All are fetched, but while nothing is wanted, and tiers of which enough waits."""

    def __init__(self) -> None:
        self.parked = False
        """Nothing is wanted."""

    def regulate(self, delayed: "Iterable[Partition]", now: float) -> bool:
        """Look how much waits; whether there are changes by that."""
        changed = [part for part in delayed if (part.waiting.wants_more(now) if part.full else part.waiting.full(now))]
        for part in changed:
            part.full = not part.full
        return bool(changed)

    def changes(self, parts: "Iterable[Partition]") -> "tuple[list[TopicPartition], list[TopicPartition]]":
        """What the driver is to pause, and to resume; it counts as told."""
        pause: list[TopicPartition] = []
        resume: list[TopicPartition] = []
        for part in parts:
            if part.paused != (self.parked or part.full):
                part.paused = not part.paused
                (pause if part.paused else resume).append(part.place)
        return pause, resume
