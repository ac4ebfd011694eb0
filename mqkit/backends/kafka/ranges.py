"""Sets of offsets, kept as ranges. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Offsets that can be many and lie close together."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(first, one past the last) of each range, ascending; no two of them touch."""
        return zip(self._starts, self._stops, strict=True)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._starts, offset)
        return at > 0 and offset < self._stops[at - 1]

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Take in all from `start` to before `stop`."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)  # the first that overlaps or touches
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def count(self, start: int, stop: int) -> int:
        """How many offsets from `start` to before `stop` are in."""
        found = 0
        if start >= stop:
            return found
        for at in range(bisect_right(self._stops, start), bisect_left(self._starts, stop)):
            found += min(stop, self._stops[at]) - max(start, self._starts[at])
        return found
