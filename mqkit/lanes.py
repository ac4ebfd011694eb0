"""Which delivery may start next: items of one key in the order they came, one at a time. Plain data."""

from collections import deque
from collections.abc import Callable

from mqkit.alone import SUSPECT
from mqkit.message import Delivery


class Item:
    """One delivery inside a worker process."""

    # what is true of nearly all stands here, and in an item only where it is not
    begun = False
    """It is kept at the broker that this one, a suspect, starts."""
    lost = 0
    """How often it had begun before, alone, and nobody was heard of again."""
    due = 0.0
    """When it is repeated, on the monotonic clock."""
    first_failed: float | None = None
    """When an attempt at it failed first, in seconds since the epoch."""
    stale = False
    """It is somebody else's by now: it will be delivered again, so nothing is repeated in place."""
    recalled = False
    """It is to go to somebody else, so that what is to be repeated in place goes back instead."""

    def __init__(self, delivery: Delivery, epoch: int, key: bytes | None) -> None:
        self.delivery = delivery
        self.epoch = epoch
        self.key = key
        self.spent = delivery.spent
        """Attempts that happened in place."""
        self.suspect = delivery.redelivered >= SUSPECT


class Lanes:
    """Which item may start next. Items of one key start in the order they came, one at a time."""

    def __init__(self, suspects: deque[Item] | None = None) -> None:
        self.ready: deque[Item] = deque()
        """Those that could start now."""
        self._suspects: deque[Item] = deque() if suspects is None else suspects
        """Those that could start now, but for being suspects."""
        self._lanes: dict[bytes, deque[Item]] = {}
        """For each key with an item that started or may start: those behind it."""
        self._behind = 0

    def __len__(self) -> int:
        """Items that have not started, held ones aside."""
        return len(self.ready) + len(self._suspects) + self._behind

    @property
    def behind(self) -> int:
        """Items that wait for another of their key, whether that runs, is held, or may start."""
        return self._behind

    def add(self, item: Item) -> None:
        """`item` came in, after all others."""
        if item.key is not None:
            lane = self._lanes.get(item.key)
            if lane is not None:
                lane.append(item)
                self._behind += 1
                return
            self._lanes[item.key] = deque()
        self.resume(item)

    def resume(self, item: Item) -> None:
        """`item`, which had started, is to start again; its key stayed blocked."""
        (self._suspects if item.suspect else self.ready).append(item)

    def finish(self, item: Item) -> None:
        """`item` is over: the next of its key may start."""
        if item.key is None:
            return
        lane = self._lanes[item.key]
        if lane:
            self._behind -= 1
            self.resume(lane.popleft())
        else:
            del self._lanes[item.key]

    def take_out(self, covers: Callable[[Item], bool]) -> list[Item]:
        """Take out what `covers` names of all that has not started, in an order that keeps each key's."""
        behind: list[Item] = []
        for lane in self._lanes.values():
            if found := [item for item in lane if covers(item)]:
                kept = [item for item in lane if not covers(item)]
                lane.clear()
                lane.extend(kept)
                behind += found
        self._behind -= len(behind)
        ahead: list[Item] = []
        for line in (self._suspects, self.ready):
            if found := [item for item in line if covers(item)]:
                kept = [item for item in line if not covers(item)]
                line.clear()
                line.extend(kept)
                ahead += found
        for item in ahead:
            self.finish(item)
        return ahead + behind

    def clear(self) -> list[Item]:
        """Take out all that has not started, in an order that keeps each key's."""
        left: list[Item] = []
        for item in (*self._suspects, *self.ready):
            left.append(item)
            if item.key is not None:
                left.extend(self._lanes.pop(item.key))
        self._suspects.clear()
        self.ready.clear()
        for lane in self._lanes.values():
            left.extend(lane)
            lane.clear()
        self._behind = 0
        return left
