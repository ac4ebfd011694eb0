"""Partitions that the group asks back: when they go, and what is done before. Pure.

A member that gives a partition away while a handler is at work makes its next owner do the same once more, beside it.
So the partitions stay until nothing of them is with a handler, or their time is over; what was finished is committed,
and confirmed, before they go.
"""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

    from mqkit.backends.kafka.partitions import Partition

CONFIRMING: Final = 5.0
"""Seconds for the last commit to be confirmed."""
AGAIN: Final = 0.05
"""Seconds between two tries of it."""
UNORDERED: Final = 20.0
"""Seconds for handlers of a group without order: meanwhile the driver fetches nothing for this member at all."""
PART: Final = 0.8
"""Of the time after which the broker puts out a member that does not answer: so long an ordered group waits."""
POLL_INTERVAL: Final = 300_000
"""`max.poll.interval.ms`, unless the user says otherwise: it is what the broker is told as that time."""


class Step(Enum):
    """What to do now."""

    WAIT = "wait"
    COMMIT = "commit"
    GO = "go"


class Handover:
    """Partitions on their way out.

    Args:
        places: as the driver named them.
        parts: those of them that are ours.
        until: when they go in any case, on the monotonic clock.
    """

    def __init__(self, places: list["TopicPartition"], parts: Sequence["Partition"], until: float) -> None:
        self.places = places
        self.parts = parts
        self._until = until
        self._last: float | None = None
        self._next = 0.0

    def step(self, now: float, *, committing: bool, unsaid: bool) -> Step:
        """What to do at `now`.

        Args:
            committing: a commit is on its way.
            unsaid: something of these partitions is not committed.
        """
        if self._last is None:
            if now < self._until and any(part.out for part in self.parts):
                return Step.WAIT
            self._last = now + CONFIRMING
        elif not (committing or unsaid) or now >= self._last:
            return Step.GO
        elif committing or now < self._next:
            return Step.WAIT
        self._next = now + AGAIN
        return Step.COMMIT


def patience(ordering: Literal["key", "none"], poll_interval: str | None = None) -> float:
    """Seconds that partitions stay for handlers that are at work: where order is promised, as long as can be.

    Args:
        poll_interval: the user's `max.poll.interval.ms`, if he set it.
    """
    longest = PART * float(poll_interval or POLL_INTERVAL) / 1000
    return longest if ordering == "key" else min(longest, UNORDERED)
