"""Where messages go and wait: the topics beside a topic, and the records that wait for their time. Pure.

Kafka delays nothing. A tier is a topic whose records all wait the same number of seconds, so that they come due about
in the order in which they lie; whoever consumes it holds the few that it has fetched until then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Generic, TypeVar

from mqkit.message import Outgoing
from mqkit.topology import STEPS, dead_name, delay_name, group_name, retry_name, step

T = TypeVar("T")

HELD = 256
"""At most so many records of one tier wait in memory,"""
HELD_SOON = 4096
"""at most so many of which the last is due within"""
AHEAD = 0.25
"""seconds, since a fetch takes up to `fetch.wait.max.ms`, and"""
HELD_BYTES = 1 << 20
"""in any case at most about so many bytes (one record may be larger)."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One topic that a group reads."""

    name: str
    step: float = 0.0
    """Seconds that each of its records waits."""
    returned: bool = False
    """Only mqkit writes there, for this group alone."""


def delay_tiers(topic: str) -> tuple[Tier, ...]:
    """Where messages for all groups of a topic wait."""
    return tuple(Tier(delay_name(topic, delay), delay) for delay in STEPS)


def retry_tiers(topic: str, group: str) -> tuple[Tier, ...]:
    """Where messages for one group wait. The one of zero seconds is its way back without a delay."""
    return tuple(Tier(retry_name(topic, group, delay), delay, returned=True) for delay in (0.0, *STEPS))


def tiers(topic: str, group: str) -> tuple[Tier, ...]:
    """All beside a topic that one of its groups reads."""
    return (*delay_tiers(topic), *retry_tiers(topic, group))


def tiers_group_name(topic: str, group: str) -> str:
    """The consumer group in which a group reads its tiers."""
    return f"{group_name(topic, group)}.retry"


def settled_name(topic: str, group: str) -> str:
    """The topic that tells which of a group's dead letters are settled although older ones are not."""
    return f"{dead_name(topic, group)}.settled"


def destination(outgoing: Outgoing) -> str:
    """The topic that a message goes to."""
    topic, group = outgoing.topic, outgoing.group
    if group is None:
        return delay_name(topic, step(outgoing.delay)) if outgoing.delay > 0 else topic
    if outgoing.dead:
        return dead_name(topic, group)
    return retry_name(topic, group, step(outgoing.delay) if outgoing.delay > 0 else 0.0)


def due(timestamp: int, delay: float, now: float) -> float:
    """When a record is due, in seconds since the epoch.

    `timestamp` is the record's, in whole milliseconds, cut off: when the broker stored it, or, in a topic that was made
    by an earlier version, when its writer thought to send it. It lies in the past: a clock that runs ahead of ours must
    not hold it for longer than its step.
    """
    return min((timestamp + 1) / 1000, now) + delay


class Waiting(Generic[T]):
    """The records of one tier partition that were fetched before their time."""

    __slots__ = ("_bytes", "_heap", "_latest")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, T]] = []
        self._bytes = 0
        self._latest = 0.0  # no record that is held is due later

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, offset: int, size: int, record: T) -> None:
        """Hold a record until `when`."""
        heappush(self._heap, (when, offset, size, record))
        self._bytes += size
        self._latest = max(self._latest, when)

    def take(self, now: float, limit: int) -> Iterable[T]:
        """Up to `limit` records that are due, the earliest first; they are no longer held."""
        taken: list[T] = []
        while len(taken) < limit and self._heap and self._heap[0][0] <= now:
            _, _, size, record = heappop(self._heap)
            self._bytes -= size
            taken.append(record)
        return taken

    @property
    def next_due(self) -> float:
        """When the next one is due; infinity if none is held."""
        return self._heap[0][0] if self._heap else float("inf")

    def full(self, now: float) -> bool:
        """No more may be fetched."""
        most = HELD_SOON if self._latest - AHEAD <= now else HELD
        return len(self._heap) >= most or self._bytes >= HELD_BYTES

    def wants_more(self, now: float) -> bool:
        """Whether more should be fetched after it was full: most are gone, or all will be soon."""
        return not self.full(now) and (len(self._heap) <= HELD // 4 or self._latest - AHEAD <= now)
