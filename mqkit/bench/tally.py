"""What a handler was called with: each order once, how fast from the first to the last, and after how long."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from mqkit.bench.meter import Reading, Stretch, between, reading

LOOK = 64
"""Calls between two looks at the clock, where there is a deadline."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What a tally came to."""

    handled: int
    """Different orders, those of the warm-up included."""
    repeated: int
    """Calls with an order that had been handled: at least once is not exactly once."""
    measured: int
    stretch: Stretch
    latencies: tuple[float, ...]
    """Seconds from publishing to the handler, sorted; of orders that say when they were placed."""


class Tally:
    """Counts for one consumer; from any thread.

    Args:
        expected: how many different orders there are, numbered from 0.
        warm: how many calls come before measuring begins.
        ended: called once, from a handler, when the last order came or the time is over.
        seconds: how long to wait for the last one, from the first; for ever if not given.
    """

    def __init__(
        self, expected: int, *, warm: int = 0, ended: Callable[[], None] = lambda: None, seconds: float | None = None
    ) -> None:
        self._seen = bytearray(expected)
        self._expected = expected
        self._warm = warm
        self._ended = ended
        self._seconds = seconds
        self._deadline = float("inf")
        self._calls = count(1)
        self._measured = 0
        self._repeated = 0
        self._latencies: list[float] = []
        self._first: Reading | None = None
        self._last: Reading | None = None
        self.first_at: float | None = None
        """When the first order came, on the monotonic clock."""

    def note(self, number: int, placed: float = 0.0) -> None:
        """Order `number` was handled."""
        if self._seen[number]:
            self._repeated += 1
            return
        self._seen[number] = 1
        if placed:
            self._latencies.append(time.monotonic() - placed)
        calls = next(self._calls)
        if calls == 1:
            self.first_at = time.monotonic()
            if self._seconds is not None:
                self._deadline = self.first_at + self._seconds
        if calls == self._warm + 1:
            self._first = reading()
        late = not calls % LOOK and time.monotonic() > self._deadline
        if (calls == self._expected or late) and self._last is None:
            self._last, self._measured = reading(), calls - self._warm - 1
            self._ended()

    def has(self, number: int) -> bool:
        """Whether that order was handled."""
        return bool(self._seen[number])

    def result(self) -> Handled:
        """What it came to so far."""
        first = self._first or reading()
        return Handled(
            handled=sum(self._seen),
            repeated=self._repeated,
            measured=self._measured,
            stretch=between(first, self._last or reading()),
            latencies=tuple(sorted(self._latencies[self._warm :])),
        )


def percentile(ordered: tuple[float, ...], share: float) -> float | None:
    """The value that `share` (0 to 1) of the sorted values do not exceed; None if there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
