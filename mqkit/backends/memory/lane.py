"""One lane of messages: what a group has to do, its dead letters, or what a tail has not seen.

Called under the broker's lock: no clock, no waiting, no threads here.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heappushpop

from mqkit.backend import Settlement
from mqkit.message import WireMessage


@dataclass(slots=True, eq=False)
class Entry:
    """One message in one lane."""

    position: int
    message: WireMessage
    returned: bool
    times: int = 0
    """How often its holder was lost with it."""
    spent: int = 0
    """What was last noted with it."""
    begun: int = 0
    """How often it was begun by one who was not heard of again yet."""


class Lane:
    """What one group has to do, or its dead letters, or what a tail has not seen yet; in order of position.

    An entry is in exactly one place: `fresh` (as published), `early` (back out of its turn: released, due, no longer
    parked), `waiting` for its time, `parked` behind others of its key, or out with a receiver. Whenever one of a key
    comes back, the first that is parked behind it goes to `early`, so nothing stays parked for ever.
    """

    __slots__ = ("early", "fresh", "holders", "out", "parked", "waiting", "watchers")

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.early: list[tuple[int, Entry]] = []
        self.waiting: list[tuple[float, int, Entry]] = []
        self.parked: dict[bytes, list[tuple[int, Entry]]] = {}
        self.holders: dict[bytes, tuple[object, int]] = {}
        self.out = 0
        self.watchers: dict[Callable[[], None], None] = {}

    def add(self, entry: Entry, due: float | None) -> None:
        """Append an entry, or let it wait until the clock says `due`."""
        if due is None:
            self.fresh.append(entry)
        else:
            heappush(self.waiting, (due, entry.position, entry))

    def take(self, room: int, now: float, holder: object | None, most: int) -> list[Entry]:
        """Up to `room` entries.

        With a `holder`, none of a key that somebody else holds, and no more than `most` of a key at a time: a key
        whose first message takes long must leave room for others.
        """
        fresh, early = self.fresh, self.early
        self.ripen(now)
        taken: list[Entry] = []
        while len(taken) < room:
            if early and not (fresh and fresh[0].position < early[0][0]):
                entry = heappop(early)[1]
            elif fresh:
                entry = fresh.popleft()
            else:
                break
            key = entry.message.key
            if holder is not None and key is not None:
                owner, held = self.holders.get(key, (holder, 0))
                if owner is not holder or held >= most:
                    heappush(self.parked.setdefault(key, []), (entry.position, entry))
                    continue
                self.holders[key] = (holder, held + 1)
                if key in self.parked:  # an earlier one may be parked there: that goes first
                    entry = heappushpop(self.parked[key], (entry.position, entry))[1]
                    self._unpark(key)
            taken.append(entry)
        self.out += len(taken)
        return taken

    def ripen(self, now: float) -> None:
        """Make what is due ready."""
        while self.waiting and self.waiting[0][0] <= now:
            heappush(self.early, heappop(self.waiting)[1:])

    def give(self, entry: Entry, settlement: Settlement, *, ordered: bool) -> None:
        """Take back an entry that was out; DONE forgets it."""
        self.out -= 1
        if settlement is Settlement.RELEASE:
            heappush(self.early, (entry.position, entry))
        key = entry.message.key
        if ordered and key is not None:
            holder, held = self.holders.pop(key)
            if held > 1:
                self.holders[key] = (holder, held - 1)
            if key in self.parked:
                self._unpark(key)

    def _unpark(self, key: bytes) -> None:
        queue = self.parked[key]
        heappush(self.early, heappop(queue))
        if not queue:
            del self.parked[key]

    def ready(self) -> int:
        """How many could be taken by somebody, now or after others of their key."""
        return len(self.fresh) + len(self.early) + sum(map(len, self.parked.values()))

    def nudge(self) -> None:
        """Tell every receiver of this lane to look again."""
        for watcher in self.watchers:
            watcher()
