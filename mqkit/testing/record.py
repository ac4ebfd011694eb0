"""What happened in a service under test: calls of its handlers, and its events. Written and read by many threads."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from mqkit.events import Event
from mqkit.message import Message


@dataclass(slots=True)
class Call:
    """One call of a handler. Times are seconds on the monotonic clock."""

    message: Message[Any]
    started: float
    ended: float | None = None
    outcome: str = "running"
    """running, returned, or the name of what it raised."""

    @property
    def payload(self) -> Any:
        """Of its message."""
        return self.message.payload

    @property
    def attempt(self) -> int:
        """Of its message."""
        return self.message.attempt

    def overlaps(self, other: "Call") -> bool:
        """Whether both ran at one moment."""
        return self.started < (other.ended or float("inf")) and other.started < (self.ended or float("inf"))


@dataclass(slots=True)
class Record:
    """Calls and events in the order in which they happened."""

    _calls: list[Call] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def calling(self, message: Message[Any]) -> Generator[None]:
        """A handler is called; it ends with the block."""
        call = Call(message, time.monotonic())
        with self._lock:
            self._calls.append(call)
        try:
            yield
        except BaseException as error:
            self._end(call, type(error).__name__)
            raise
        self._end(call, "returned")

    def _end(self, call: Call, outcome: str) -> None:
        with self._lock:
            call.ended, call.outcome = time.monotonic(), outcome

    def tell(self, event: Event) -> None:
        """A listener for the app."""
        with self._lock:
            self._events.append(event)

    def calls(self, which: Callable[[Call], bool] = lambda _: True) -> list[Call]:
        """Those that fit."""
        with self._lock:
            return [call for call in self._calls if which(call)]

    def payloads(self, outcome: str | None = None) -> list[Any]:
        """Of all calls, or of those that ended so."""
        return [call.payload for call in self.calls(lambda call: outcome in (None, call.outcome))]

    @property
    def done(self) -> list[Any]:
        """Payloads of the calls that returned."""
        return self.payloads("returned")

    @property
    def running(self) -> list[Any]:
        """Payloads of the calls that have not ended."""
        return self.payloads("running")

    def events(self, kind: str | None = None) -> list[Event]:
        """All, or those of one kind."""
        with self._lock:
            return [event for event in self._events if kind in (None, event.kind)]

    def __str__(self) -> str:
        """For failures: the last of what happened."""
        calls = [f"{call.payload!r} #{call.attempt} {call.outcome}" for call in self.calls()[-10:]]
        events = [f"{event.kind} {event.id[:8]} {event.detail[:80]}".strip() for event in self.events()[-10:]]
        return f"last calls: {calls}; last events: {events}"
