"""What waits to be sent, and what of it goes next. Pure: it is told the time.

All that is published stands in one line. A destination that refuses for now (a full queue) gets a lane of its own: what
goes there keeps its order, waits its own back-off, and has room of its own, so that nobody else waits for it. The lane
is tried with one message, then with twice as many each time, until it is empty.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from mqkit.errors import BackendError, ConnectionLost, MqkitError
from mqkit.message import Outgoing
from mqkit.ports import Promise
from mqkit.topology import step

LARGEST_BATCH = 1_000
LARGEST_BATCH_BYTES = 4 * 1024 * 1024
ROOM = 10_000
"""Messages that may wait in the line, and as many in all lanes together; whoever publishes more waits for room."""
ROOM_BYTES = 64 * 1024 * 1024
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries of a destination that refuses: the first, doubled each time, and the longest."""

Destination: TypeAlias = tuple[str, str | None, bool, float]
"""Topic, group, whether among its dead letters, and the step of its delay: what may be refused by itself."""


def destination(outgoing: Outgoing) -> Destination:
    """Where `outgoing` goes."""
    delay = step(outgoing.delay) if outgoing.delay > 0 else 0.0
    return outgoing.topic, outgoing.group, outgoing.dead, delay


class Mail:
    """All that one call sends; its promise is kept when the last of it is decided."""

    __slots__ = ("left", "promise")

    def __init__(self, count: int, promise: Promise) -> None:
        self.left = count
        self.promise = promise

    def decided(self) -> None:
        """One more of it is."""
        self.left -= 1
        if not self.left:
            self.promise.resolve(None)


class Parcel:
    """One outgoing message, its deadline, and who waits for it."""

    __slots__ = ("deadline", "error", "mail", "outgoing")

    def __init__(self, outgoing: Outgoing, deadline: float, mail: Mail) -> None:
        self.outgoing = outgoing
        self.deadline = deadline
        self.mail: Mail | None = mail
        """None once it is decided."""
        self.error: MqkitError | None = None
        """Why it is not safe so far."""

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self.outgoing.message.body)

    def decide(self, error: MqkitError | None) -> None:
        """It is safe, or has failed for good; nothing the second time."""
        mail, self.mail = self.mail, None
        if mail is not None:
            self.error = error
            mail.decided()

    def failed(self, error: MqkitError) -> None:
        """It is to be sent again; what was unknown once stays so."""
        if not isinstance(self.error, ConnectionLost):
            self.error = error


class Line:
    """Parcels in their order."""

    __slots__ = ("bytes", "parcels")

    def __init__(self, parcels: Iterable[Parcel] = ()) -> None:
        self.parcels = deque(parcels)
        self.bytes = sum(parcel.size for parcel in self.parcels)

    def add(self, parcel: Parcel) -> None:
        """Behind all others."""
        self.parcels.append(parcel)
        self.bytes += len(parcel.outgoing.message.body)

    def add_before(self, parcel: Parcel) -> None:
        """Before all others."""
        self.parcels.appendleft(parcel)
        self.bytes += parcel.size

    def move(self, batch: list[Parcel], number: int, size: int) -> int:
        """Put the first parcels into `batch`, as long as it is neither full nor has LARGEST_BATCH_BYTES.

        Those that nobody waits for any more go nowhere.

        Args:
            batch: where to.
            number: how many it may hold then.
            size: bytes that it holds already.

        Returns:
            Bytes that it holds then.
        """
        parcels, before = self.parcels, size
        while parcels and len(batch) < number and size < LARGEST_BATCH_BYTES:
            parcel = parcels.popleft()
            size += len(parcel.outgoing.message.body)
            if parcel.mail is not None:
                batch.append(parcel)
        self.bytes -= size - before
        return size

    def sift(self, now: float) -> list[Parcel]:
        """Take out what is due."""
        due = [parcel for parcel in self.parcels if parcel.deadline <= now]
        if due:
            self.parcels = deque(parcel for parcel in self.parcels if parcel.deadline > now)
            self.bytes -= sum(parcel.size for parcel in due)
        return due


class Lane:
    """What waits for a destination that refuses, and how that is tried."""

    __slots__ = ("at_once", "error", "failures", "line", "ready")

    def __init__(self) -> None:
        self.line = Line()
        self.error: MqkitError | None = None
        """Why it refuses."""
        self.at_once = 1
        """How many parcels the next try has."""
        self.failures = 0
        """Tries on end of which not one message became safe."""
        self.ready = 0.0
        """When the next try may be."""

    def refused(self, parcels: Sequence[Parcel], now: float, draw: float, *, wholly: bool) -> None:
        """A try was refused these, which wait again; `wholly`: and took nothing. `draw`: at random from 0 to 1."""
        for parcel in reversed(parcels):
            self.line.add_before(parcel)
        self.error = parcels[0].error
        self.failures = self.failures + 1 if wholly else 1
        self.at_once = 1
        self.ready = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10)) * (0.5 + draw / 2)

    def taken(self) -> None:
        """All of a try became safe."""
        self.failures = 0
        self.at_once = min(self.at_once * 2, LARGEST_BATCH)


class Outbox:
    """All that waits to be sent."""

    def __init__(self) -> None:
        self._line = Line()
        self._lanes: dict[Destination, Lane] = {}
        self._tried: dict[Destination, Lane] = {}
        """Lanes that the last batch took from."""

    def __len__(self) -> int:
        return len(self._line.parcels) + (
            sum(len(lane.line.parcels) for lane in self._lanes.values()) if self._lanes else 0
        )

    @property
    def bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(line.bytes for line in self._lines())

    def __iter__(self) -> Iterator[Parcel]:
        for line in self._lines():
            yield from line.parcels

    def _lines(self) -> Sequence[Line]:
        return (self._line, *(lane.line for lane in self._lanes.values()))

    def refuses(self, outgoing: Outgoing) -> bool:
        """Whether the destination of `outgoing` refused what was sent there last."""
        return bool(self._lanes) and destination(outgoing) in self._lanes

    def room(self, *, refusing: bool) -> int:
        """How many more may wait: for destinations that refuse, or for all others."""
        lines = self._lines()[1:] if refusing else (self._line,)
        if sum(line.bytes for line in lines) >= ROOM_BYTES:
            return 0
        return max(0, ROOM - sum(len(line.parcels) for line in lines))

    def add_all(self, parcels: Sequence[Parcel]) -> bool:
        """Put all of them behind all others, if it is plain that there is room; whether that was done."""
        line = self._line
        size = sum([len(parcel.outgoing.message.body) for parcel in parcels])
        if self._lanes or len(line.parcels) + len(parcels) > ROOM or line.bytes + size > ROOM_BYTES:
            return False
        line.parcels.extend(parcels)
        line.bytes += size
        return True

    def add(self, parcel: Parcel) -> None:
        """Behind all others."""
        self._line_of(parcel).add(parcel)

    def _line_of(self, parcel: Parcel) -> Line:
        lane = self._lanes.get(destination(parcel.outgoing)) if self._lanes else None
        return self._line if lane is None else lane.line

    def take(self, now: float) -> list[Parcel]:
        """The next batch; empty if nothing may go before `pause` is over. Then say what became of it."""
        batch: list[Parcel] = []
        size = 0
        self._tried.clear()
        for place, lane in self._lanes.items():
            if lane.ready <= now and lane.line.parcels and len(batch) < LARGEST_BATCH and size < LARGEST_BATCH_BYTES:
                size = lane.line.move(batch, min(len(batch) + lane.at_once, LARGEST_BATCH), size)
                self._tried[place] = lane
        self._line.move(batch, LARGEST_BATCH, size)
        return batch

    def pause(self, now: float) -> float | None:
        """Seconds until there is something to take; None: not before something is added."""
        if self._line.parcels:
            return 0.0
        waits = [lane.ready for lane in self._lanes.values() if lane.line.parcels]
        return max(0.0, min(waits) - now) if waits else None

    def sent(
        self, batch: Sequence[Parcel], refused: Sequence[Parcel], now: float, draw: float
    ) -> tuple[Sequence[Destination], Sequence[Destination]]:
        """The last batch had its answers. `refused` waits to be sent again, before all else for its destination.

        Returns:
            The destinations that refuse since now, and those that do so no more.
        """
        new: list[Destination] = []
        back: dict[Destination, list[Parcel]] = {}
        for parcel in refused:
            back.setdefault(destination(parcel.outgoing), []).append(parcel)
        for place, lane in self._tried.items():
            if place not in back:
                lane.taken()
        if back:
            sent: dict[Destination, int] = dict.fromkeys(back, 0)
            for parcel in batch:
                place = destination(parcel.outgoing)
                if place in sent:
                    sent[place] += 1
            new += [place for place in back if place not in self._lanes]
            self._open(new)
            for place, parcels in back.items():
                self._lanes[place].refused(parcels, now, draw, wholly=len(parcels) == sent[place])
        return new, self._close_lanes()

    def lost(self, batch: Sequence[Parcel]) -> None:
        """Of the last batch these are to be sent again, in this order and before all else, in another session."""
        for parcel in reversed(batch):
            self._line_of(parcel).add_before(parcel)
        self._close_lanes()

    def expire(self, now: float) -> list[Parcel]:
        """Take out what waited too long; what waited for a destination that refuses says why."""
        late = self._line.sift(now)
        for lane in self._lanes.values():
            for parcel in lane.line.sift(now):
                parcel.error = parcel.error or lane.error
                late.append(parcel)
        return late

    def _open(self, places: Iterable[Destination]) -> None:
        new = {place: Lane() for place in places}
        if not new:
            return
        rest = Line()
        for parcel in self._line.parcels:
            lane = new.get(destination(parcel.outgoing))
            (rest if lane is None else lane.line).add(parcel)
        self._line = rest
        self._lanes |= new

    def _close_lanes(self) -> Sequence[Destination]:
        """Those that are empty; which."""
        self._tried.clear()
        empty = [place for place, lane in self._lanes.items() if not lane.line.parcels]
        for place in empty:
            del self._lanes[place]
        return empty


def told(place: Destination) -> str:
    """A destination, for people."""
    topic, group, dead, delay = place
    if group is None:
        return f"{topic} with a delay" if delay else topic
    return f"{'the dead letters' if dead else 'the retries' if delay else 'the group'} of {topic}.{group}"


def no_room(*, refusing: bool) -> MqkitError:
    """What to say to whom waited for room in vain."""
    if refusing:
        return BackendError("not sent: the broker refuses what goes there, and too much waits for it", retryable=True)
    return ConnectionLost("too much waits to be sent, and the broker takes nothing")
