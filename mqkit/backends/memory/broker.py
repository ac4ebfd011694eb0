"""What stands for the broker: topics, groups and messages of one name, and the faults that a test can ask for.

One lock guards a whole broker and is held for moments only.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import ClassVar, Protocol

from mqkit.backends.memory.lane import Lane
from mqkit.errors import ConfigurationError, ConnectionLost


class Session(Protocol):
    """A sender or receiver, as its broker knows it. Called under the broker's lock."""

    lost: bool

    def leave(self) -> None:
        """Give back what is held and be forgotten."""
        ...

    def nudge(self) -> None:
        """Look again."""
        ...


@dataclass(slots=True, eq=False)
class Group:
    """One group of a topic."""

    live: Lane = field(default_factory=Lane)
    dead: Lane = field(default_factory=Lane)


@dataclass(slots=True, eq=False)
class Topic:
    """One topic: its groups, and who looks on for the time being."""

    groups: dict[str, Group] = field(default_factory=dict)
    tails: dict[Lane, None] = field(default_factory=dict)


def find_topic(topics: dict[str, Topic], topic: str) -> Topic:
    """Raises ConfigurationError naming the topics that exist."""
    if topic not in topics:
        raise ConfigurationError(f"there is no topic {topic!r}; there is {', '.join(sorted(topics)) or 'none yet'}")
    return topics[topic]


def find_group(topics: dict[str, Topic], topic: str, group: str) -> Group:
    """Raises ConfigurationError naming the groups that exist."""
    groups = find_topic(topics, topic).groups
    if group not in groups:
        known = ", ".join(sorted(groups)) or "none yet"
        raise ConfigurationError(f"topic {topic!r} has no group {group!r}; there is {known}")
    return groups[group]


class MemoryBroker:
    """What stands for the broker. The public methods are for tests: faults, and a clock that can be put forward."""

    _named: ClassVar[dict[tuple[int, str], "MemoryBroker"]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = Lock()
        self._topics: dict[str, Topic] = {}
        self._positions = count(1)
        self._sessions: dict[Session, None] = {}
        self._down = False
        self._ahead = 0.0

    @classmethod
    def named(cls, name: str) -> "MemoryBroker":
        """This process's broker of that name, made when first asked for: one that is forked has its own, empty."""
        return cls._named.setdefault((os.getpid(), name), cls(name))

    def interrupt(self) -> None:
        """End every session with ConnectionLost, and refuse new ones until `restore()`. Messages are kept."""
        with self._lock:
            self._down = True
            for session in self._sessions:
                session.leave()
                session.lost = True
            self._sessions.clear()

    def restore(self) -> None:
        """Let sessions be opened again."""
        with self._lock:
            self._down = False

    def advance(self, seconds: float) -> None:
        """Put the broker's clock forward, so that what waits becomes due sooner."""
        with self._lock:
            self._ahead += seconds
            for session in self._sessions:
                session.nudge()

    def now(self) -> float:
        """The broker's clock, in seconds."""
        return time.monotonic() + self._ahead

    @contextmanager
    def reached(self) -> Iterator[dict[str, Topic]]:
        """The topics, under the lock. Raises ConnectionLost while interrupted."""
        with self._lock:
            if self._down:
                raise ConnectionLost(f"memory broker {self.name!r} is interrupted")
            yield self._topics

    def join(self, session: Session) -> None:
        """Know this session, under the lock."""
        self._sessions[session] = None

    def part(self, session: Session) -> None:
        """Make this session leave; without effect the second time."""
        with self._lock:
            session.leave()
            self._sessions.pop(session, None)

    def number(self) -> int:
        """The next message's position."""
        return next(self._positions)
