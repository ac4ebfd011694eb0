"""Notes of attempts that happened in place, or began: which belongs to which message, and which are done with. Pure.

A note is a small message in a queue beside that of its group. RabbitMQ gives a message no name of its own, so a note
names its message by a digest of all that a redelivery brings again; two messages may be alike, so the notes about one
of them are a series, which belongs to one delivery at a time. What is kept here is one session's view: the notes that
lie with it, unacknowledged, and what it handed out.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from uuid import uuid4

from mqkit.message import Delivery, Headers, HeaderValue

OF, SERIES, NUMBER, SPENT = "mqkit-note-of", "mqkit-note-series", "mqkit-note-number", "mqkit-note-spent"
BEGUN = "mqkit-note-begun"


FEW = 1000
"""Tokens of what is not out any more that an index may hold, beside as many as are out."""


def identity(delivery: Delivery) -> str:
    """The same whenever this message is delivered; of another only if nothing tells the two apart."""
    message = delivery.message
    facts = (
        delivery.returned,
        message.id,
        message.key,
        message.content_type,
        sorted(message.headers.items(), key=_name),
        sorted(message.properties.items(), key=_name),
    )
    digest = blake2b(repr(facts).encode(errors="backslashreplace"), digest_size=16)
    digest.update(message.body)
    return digest.hexdigest()


def _name(item: tuple[str, HeaderValue]) -> str:
    return item[0]


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """What a note says. Of one series the greatest is the newest."""

    series: str
    number: int
    spent: int
    of: str
    """The message's identity."""
    begun: int = 0
    """How often it was begun, and nobody was heard of again yet."""

    @property
    def headers(self) -> Headers:
        """As it travels; the body is empty."""
        return {OF: self.of, SERIES: self.series, NUMBER: self.number, SPENT: self.spent, BEGUN: self.begun}

    @classmethod
    def read(cls, headers: Mapping[str, HeaderValue]) -> "Note | None":
        """The note that travelled like this; None for what is none."""
        match headers:
            case {"mqkit-note-of": str(of), "mqkit-note-series": str(series)}:
                number, spent, begun = headers.get(NUMBER), headers.get(SPENT), headers.get(BEGUN, 0)
                if isinstance(number, int) and isinstance(spent, int) and isinstance(begun, int):
                    return cls(series, number, spent, of, begun) if spent >= 0 and begun >= 0 else None
        return None


@dataclass(slots=True)
class _Series:
    """The notes about one message."""

    newest: Note
    """Written or read."""
    held: Note | None = None
    tag: int = 0
    """Of the one that is held: it lies with us, unacknowledged."""
    awaited: set[int] = field(default_factory=set)
    """Numbers that were written and did not come to lie with us yet."""
    done: bool = False


class Notes:
    """The notes of one session of a group. Deliveries go by their tokens, notes by the tags of their own channel.

    What returns tags says which notes to acknowledge.
    """

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._free: dict[str, list[_Series]] = {}
        """Of messages that are not out, by identity."""
        self._out: dict[object, Delivery] = {}
        self._claimed: dict[object, _Series] = {}
        self._index: dict[str, deque[object]] | None = None
        """Tokens that are out by identity, oldest first, some of them no more: made when a note comes late."""
        self._indexed = 0
        self._begun: set[object] = set()
        """Deliveries that were begun here, and are not heard of yet."""

    def arrived(self, tag: int, headers: Headers) -> list[int]:
        """A note came to lie with us."""
        note = Note.read(headers)
        if note is None:
            return [tag]
        series = self._series.get(note.series)
        if series is None:
            series = self._series[note.series] = _Series(note)
            self._match(series)
        series.awaited.discard(note.number)
        if series.done:
            self._forget(series)
            return [tag]
        if series.held is not None and note <= series.held:
            return [tag]
        older = [] if series.held is None else [series.tag]
        series.held, series.tag = note, tag
        series.newest = max(series.newest, note)
        return older

    def _match(self, series: _Series) -> None:
        """To the message that it is about, which may be out already: a predecessor's last words can come late."""
        alike = self._indexes().get(series.newest.of) if self._out else None
        while alike:
            token = alike.popleft()
            if token in self._out and token not in self._claimed:
                self._claimed[token] = series
                return
        self._free.setdefault(series.newest.of, []).append(series)

    def _indexes(self) -> dict[str, deque[object]]:
        """Of all that are out: many notes can come late, and to look through all for each would take minutes."""
        if self._index is None:
            self._index = {}
            self._indexed = 0
            for token, delivery in self._out.items():
                if token not in self._claimed:
                    self._add(self._index, token, delivery)
        return self._index

    def _add(self, index: dict[str, deque[object]], token: object, delivery: Delivery) -> None:
        index.setdefault(identity(delivery), deque()).append(token)
        self._indexed += 1
        if self._indexed > 2 * len(self._out) + FEW:
            self._index = None

    def handed_out(self, delivery: Delivery, *, redelivered: bool) -> Delivery:
        """`delivery` with what is noted of it; `redelivered` as the broker says."""
        self._out[delivery.token] = delivery
        of = identity(delivery) if redelivered and self._free else ""
        free = self._free.get(of)
        if free is None:
            if self._index is not None:
                self._add(self._index, delivery.token, delivery)
            return delivery
        series = self._claimed[delivery.token] = free.pop(0)
        if not free:
            del self._free[of]
        return replace(delivery, spent=series.newest.spent)

    def write(self, token: object, spent: int) -> Note:
        """The note to publish for a delivery that is out: so many attempts, and whoever began it lives."""
        series = self._series_of(token)
        return self._next(series, spent, series.newest.begun - self._take_back(token))

    def begin(self, token: object) -> Note:
        """The note to publish for a delivery that is about to be handled."""
        series = self._series_of(token)
        before = series.newest.begun - self._take_back(token)
        self._begun.add(token)
        return self._next(series, series.newest.spent, before + 1)

    def heard_of(self, tokens: Iterable[object]) -> list[Note]:
        """The notes to publish for those of these that were begun here, and are given back."""
        begun = [(token, self._claimed[token]) for token in tokens if token in self._begun]
        return [
            self._next(series, series.newest.spent, series.newest.begun - self._take_back(token))
            for token, series in begun
        ]

    @property
    def begun(self) -> frozenset[object]:
        """Deliveries that were begun here, and are not heard of yet."""
        return frozenset(self._begun)

    def _take_back(self, token: object) -> int:
        """How much less is begun now that this one is heard of."""
        if token not in self._begun:
            return 0
        self._begun.discard(token)
        return 1

    def _series_of(self, token: object) -> _Series:
        series = self._claimed.get(token)
        if series is None:
            name = uuid4().hex
            series = _Series(Note(name, 0, 0, identity(self._out[token])))
            self._series[name] = self._claimed[token] = series
        return series

    def _next(self, series: _Series, spent: int, begun: int) -> Note:
        newest = series.newest
        series.newest = replace(newest, number=newest.number + 1, spent=spent, begun=begun)
        series.awaited.add(series.newest.number)
        return series.newest

    def refused(self, note: Note) -> None:
        """One that was written will never arrive."""
        series = self._series.get(note.series)
        if series is not None:
            series.awaited.discard(note.number)
            if series.done:
                self._forget(series)

    def done(self, tokens: Iterable[object]) -> list[int]:
        """These deliveries are settled for good; notes of theirs that arrive later are done with, too."""
        tags: list[int] = []
        for token in tokens:
            self._out.pop(token, None)
            self._begun.discard(token)
            series = self._claimed.pop(token, None)
            if series is None:
                continue
            series.done = True
            if series.held is not None:
                tags.append(series.tag)
            self._forget(series)
        return tags

    def given_back(self) -> None:
        """All that was out is delivered again."""
        for series in self._claimed.values():
            self._free.setdefault(series.newest.of, []).append(series)
        self._claimed.clear()
        self._out.clear()
        self._index = None
        self._begun.clear()

    @property
    def owed(self) -> bool:
        """Whether notes are on their way that are to be acknowledged as soon as they arrive."""
        return any(series.done for series in self._series.values())

    def _forget(self, series: _Series) -> None:
        if not series.awaited:
            del self._series[series.newest.series]
