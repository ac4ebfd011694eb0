"""How a group stands, by what it committed and how far the logs go. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from mqkit.backend import Counts
from mqkit.backends.kafka.offsets import Progress
from mqkit.backends.kafka.ranges import Ranges
from mqkit.backends.kafka.tiers import tiers
from mqkit.topology import dead_name

Place: TypeAlias = tuple[str, int]
"""A topic and the number of a partition."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a partition holds: from `start`, to before `end`."""

    start: int
    end: int


def left(log: Log, progress: Progress | None) -> int:
    """How many records of a partition a group has not finished."""
    if progress is None:
        return log.end - log.start
    untaken = log.end - max(log.start, min(progress.position, log.end))
    return untaken + sum(log.start <= offset < log.end for offset in progress.unfinished)


def settled_among(log: Log, progress: Progress | None, settled: Ranges | None) -> int:
    """How many of those that are left by `progress` are settled nevertheless."""
    if settled is None:
        return 0
    if progress is None:
        return settled.count(log.start, log.end)
    beyond = settled.count(max(log.start, progress.position), log.end)
    return beyond + sum(log.start <= offset < log.end and offset in settled for offset in progress.unfinished)


def counts(
    topic: str,
    group: str,
    logs: Mapping[Place, Log],
    progress: Mapping[Place, Progress],
    *,
    members: bool,
    settled: Mapping[int, Ranges] = MappingProxyType({}),
) -> Counts:
    """How the group stands.

    Args:
        members: False: nothing is with one.
        settled: by partition, which dead letters are settled whatever `progress` says.
    """
    steps = {topic: 0.0} | {tier.name: tier.step for tier in tiers(topic, group)}
    ready = in_flight = waiting = 0
    for place, log in _of(steps, logs):
        known = progress.get(place)
        rest = left(log, known)
        out = min(known.out, rest) if known is not None and members else 0
        in_flight += out
        if steps[place[0]]:
            waiting += rest - out
        else:
            ready += rest - out
    dead = sum(
        left(log, progress.get(place)) - settled_among(log, progress.get(place), settled.get(place[1]))
        for place, log in _of({dead_name(topic, group)}, logs)
    )
    lag = sum(left(log, progress.get(place)) for place, log in _of({topic}, logs))
    return Counts(ready, in_flight, waiting, dead, lag)


def _of(names: Iterable[str], logs: Mapping[Place, Log]) -> list[tuple[Place, Log]]:
    wanted = set(names)
    return [(place, log) for place, log in logs.items() if place[0] in wanted]
