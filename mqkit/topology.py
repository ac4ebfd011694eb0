"""What must exist at a broker, as data: names, delay steps, and what differs between wanted and found. Pure.

The names and steps are the same on every broker, so that a delay, a dead letter or a dashboard reads the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

STEPS: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0, 3600.0)
"""Seconds. Brokers without delays of any length get one queue or topic for each of these; longer and odd delays go
by several steps. Few enough to be declared, watched and counted for every group."""
TOLERANCE = 0.5
SHARE = 0.05
"""A delay may be rounded up by so many seconds, or by this share of it, to save steps. D2 allows 1 s,
or a tenth, on the whole way."""


def step(delay: float) -> float:
    """The step that a message with `delay` seconds still to wait takes next.

    The smallest step that covers the rest with hardly too much (TOLERANCE, SHARE), or else the longest that fits in,
    after which the rest is asked for again.
    """
    longest = STEPS[0]
    for candidate in STEPS:
        if delay <= candidate:
            return candidate if candidate - delay <= max(TOLERANCE, SHARE * delay) else longest
        longest = candidate
    return longest


def left_over(delay: float, *, exact: bool) -> float:
    """Seconds that a message with `delay` seconds to wait has still to wait when the broker hands it out.

    `exact`: the broker waits for the whole of it.
    """
    return 0.0 if exact or delay <= 0 else max(0.0, delay - step(delay))


def group_name(topic: str, group: str) -> str:
    """Of the queue, consumer group or set of deliveries that is a group of a topic."""
    return f"{topic}.{group}"


def dead_name(topic: str, group: str) -> str:
    """Of the place for a group's dead letters."""
    return f"{topic}.{group}.dlq"


def retry_name(topic: str, group: str, delay: float) -> str:
    """Of the place where messages wait one step of `delay` seconds for their group."""
    return f"{topic}.{group}.retry.{delay * 1000:.0f}ms"


def delay_name(topic: str, delay: float) -> str:
    """Of the place where messages wait one step of `delay` seconds for all groups of a topic."""
    return f"{topic}.delay.{delay * 1000:.0f}ms"


@dataclass(frozen=True, slots=True)
class TopicNeed:
    """A topic that must exist, its groups, and the option objects for single backends."""

    name: str
    groups: frozenset[str] = frozenset()
    options: tuple[object, ...] = ()
    steps: frozenset[float] | None = None
    """If given, nothing but the places where messages of these groups wait such a step, in seconds."""


@dataclass(frozen=True, slots=True)
class Topology:
    """All that an app needs at its broker."""

    topics: tuple[TopicNeed, ...] = ()

    def including(self, others: Iterable[TopicNeed]) -> "Topology":
        """This and `others`; a topic named twice has the groups and options of both."""
        merged: dict[str, TopicNeed] = {}
        for need in (*self.topics, *others):
            known = merged.get(need.name)
            if known is not None:
                extra = tuple(option for option in need.options if option not in known.options)
                merged[need.name] = TopicNeed(need.name, known.groups | need.groups, known.options + extra)
            else:
                merged[need.name] = need
        return Topology(tuple(merged[name] for name in sorted(merged)))

    def waiting(self, steps: Iterable[float]) -> "Topology":
        """Only the places of it where messages wait one of `steps`, in seconds."""
        return Topology(tuple(replace(need, steps=frozenset(steps)) for need in self.topics))


State: TypeAlias = Literal["present", "missing", "on-demand", "differs"]
"""on-demand: it is not there, and an app that may declare makes it when it is first needed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that exists otherwise than wanted."""

    setting: str
    wanted: str
    found: str
    remedy: str
    """What would change it, as a sentence for an operator. mqkit never deletes by itself."""

    def __str__(self) -> str:
        return f"{self.setting} is {self.found}, wanted {self.wanted}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing at the broker that the topology asks for, and its state."""

    kind: str
    """In the broker's own word: exchange, queue, binding, topic, group."""
    name: str
    state: State
    settings: tuple[tuple[str, str], ...] = ()
    """What it has or would get, for people."""
    differences: tuple[Difference, ...] = field(default=())
    dangers: tuple[str, ...] = ()
    """How the broker's own configuration can lose messages there, a sentence each, with what to do."""
    cautions: tuple[str, ...] = ()
    """What else of the broker's configuration people should know, a sentence each."""

    def lacking(self, *, declare: bool) -> bool:
        """Whether an app cannot start without it, or, with `declare`, makes it when it starts."""
        return self.state == "missing" or (self.state == "on-demand" and not declare)

    def lines(self) -> list[str]:
        """One line for each difference."""
        return [f"{self.kind} {self.name}: {difference}" for difference in self.differences]
