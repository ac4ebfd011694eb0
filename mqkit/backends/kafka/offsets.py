"""Which records of a partition are unfinished, and how that is kept in the metadata of a committed offset. Pure.

A committed offset is a position: all below it is finished. Which of the records above it are unfinished goes into the
commit's metadata, with how far records were handed out: so a restart repeats nothing that was finished, and deliveries
that ended with their process are counted. The log's id goes with it: a position says nothing of another log. Metadata
that grows too long forgets what is finished, never what is not; notes come before that, since they were promised and
a repetition is allowed.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

Marks: TypeAlias = tuple[tuple[int, int], ...]
"""(limit, count), limits ascending: records below `limit`, and not below the limit before it, were with a process that
was lost `count` times."""

Notes: TypeAlias = tuple[tuple[int, int], ...]
"""(offset, number), offsets ascending, of records that are not finished: the attempts that were spent in place; or how
often it was begun by a process that was not heard of again yet."""

LONGEST = 4095
"""Bytes of metadata that a broker takes by default, less the NUL that the driver adds."""
PREFIX = "mqkit1:"
NOTED = "mqkit2:"
"""With notes. Written only where there are some: to a process of the time before them this says nothing at all. A
second note of one offset says how often it was begun; an mqkit that knows of attempts alone takes it for them."""
IDENTIFIED = "mqkit3:"
"""With the id of the log before all else, and notes, be there none."""
ID = re.compile(r"[A-Za-z0-9+/]{22}")
"""The id of a log."""
FIRST_RUN = 20
"""Bytes of the longest run: notes leave room for the first."""
MOST_MARKS = 16
MOST_UNFINISHED = 1_000_000
"""Metadata that claims more is not ours."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a group is in a partition."""

    position: int
    """The first record that was not taken from the log yet."""
    unfinished: tuple[int, ...] = ()
    """Those below `position` that are not finished, ascending."""
    out: int = 0
    """How many of them are with a handler."""
    reserved: int = 0
    """Whatever was handed out lies below this; 0 after an orderly end."""
    marks: Marks = ()
    notes: Notes = ()
    log: str = ""
    """The id of the log that this is about; empty if it is not known."""
    begun: Notes = ()

    @property
    def low(self) -> int:
        """All below is finished: the offset to commit."""
        return self.unfinished[0] if self.unfinished else self.position


class Tracker:
    """The records of one partition that were taken from the log, and which of them are finished.

    Args:
        progress: where the last owner of the partition stood; None if nobody ever committed.
        log: the id of the log, as far as it is known.
    """

    __slots__ = ("_awaited", "_log", "_open", "begun", "following", "marks", "notes", "position")

    def __init__(self, progress: Progress | None = None, log: str = "") -> None:
        self._log = log
        found = progress or Progress(-1)
        self._open: dict[int, None] = dict.fromkeys(found.unfinished)  # in the order of the log
        self._awaited = deque(found.unfinished)
        self.following = found.low
        """No record before this one is still to come from the log. One that does is of another log."""
        self.position = found.position
        self.marks = lost(found)
        self.notes = dict(found.notes)
        """By offset: attempts that were spent in place."""
        self.begun = dict(found.begun)
        """By offset: how often it was begun, and nobody was heard of again yet."""

    def __len__(self) -> int:
        """How many records are not finished."""
        return len(self._open)

    @property
    def low(self) -> int:
        """All below is finished; -1 if that is not known."""
        return next(iter(self._open), self.position)

    def take(self, offset: int) -> bool:
        """A record came from the log. False: it was finished before, leave it."""
        self.following = offset + 1
        awaited = self._awaited
        while awaited and awaited[0] < offset:  # does not exist any more: compaction or retention took it
            self._open.pop(awaited.popleft(), None)
        if offset >= self.position:
            self._open[offset] = None
            self.position = offset + 1
            return True
        if awaited and awaited[0] == offset:
            awaited.popleft()
            return True
        return False

    def reach(self, position: int) -> bool:
        """The log was read up to `position`, be there records or not: a transaction leaves marks between them that
        nobody is given, and what was taken back in one is not given either. True: we were not as far.
        """
        if position <= self.position:
            return False
        awaited = self._awaited
        while awaited and awaited[0] < position:
            self._open.pop(awaited.popleft(), None)
        self.position = position
        self.following = max(self.following, position)
        return True

    def unfinished_before(self, offset: int) -> int:
        """How many records below `offset` are not finished, had there been one for each."""
        return sum(known < offset for known in self._open) + max(0, offset - max(self.position, 0))

    def finish(self, offset: int) -> None:
        """A record that was taken is finished. Doing so twice changes nothing."""
        self._open.pop(offset, None)

    def note(self, offset: int, spent: int) -> bool:
        """Keep with a record how many attempts were spent on it in place. False: it is not one that is unfinished."""
        if offset not in self._open:
            return False
        self.notes[offset] = spent
        return True

    def begin(self, offset: int) -> int | None:
        """A handler is about to be called with a record: how often before; None: it is not one that is unfinished."""
        if offset not in self._open:
            return None
        before = self.begun.get(offset, 0)
        self.begun[offset] = before + 1
        return before

    def heard_of(self, offset: int) -> None:
        """Whoever began with a record last lives."""
        self.begun[offset] -= 1
        if not self.begun[offset]:
            del self.begun[offset]

    def lost(self, offset: int) -> int:
        """How often a process ended, as far as is known, while it had this record."""
        return next((count for limit, count in self.marks if offset < limit), 0)

    def progress(self, out: int = 0, reserved: int = 0) -> Progress:
        """What to commit."""
        unfinished = tuple(self._open)
        low = unfinished[0] if unfinished else self.position
        if self.marks:
            self.marks = tuple(mark for mark in self.marks if mark[0] > low)
        self.notes = self._still(self.notes)
        self.begun = self._still(self.begun)
        notes, begun = tuple(self.notes.items()), tuple(self.begun.items())
        return Progress(self.position, unfinished, out, reserved, self.marks, notes, self._log, begun)

    def _still(self, notes: dict[int, int]) -> dict[int, int]:
        """Those of records that are not finished, offsets ascending."""
        if not notes:
            return notes
        return {at: what for at, what in sorted(notes.items()) if at in self._open or at >= self.position}


def in_log(progress: Progress | None, log: str) -> Progress | None:
    """`progress`, unless it is about another log than the one with this id. What is not known does not differ."""
    return None if progress is not None and progress.log and log and progress.log != log else progress


def lost(progress: Progress) -> Marks:
    """The marks after the owner of a partition ended at `progress`: all below `reserved` may have been in its hands."""
    low, reserved = progress.low, progress.reserved
    limits = sorted({limit for limit, _ in (*progress.marks, (reserved, 0)) if limit > low})
    found: list[tuple[int, int]] = []
    for limit in limits:
        before = next((count for known, count in progress.marks if limit <= known), 0)
        count = before + (limit <= reserved)
        if found and (found[-1][1] == count or len(found) == MOST_MARKS):
            found[-1] = (limit, min(count, found[-1][1]))
        else:
            found.append((limit, count))
    return tuple(found)


def merged(one: Progress, other: Progress) -> Progress:
    """The progress of two who worked on the same partition: finished is what either of them finished, and of two notes
    the larger counts.
    """
    behind, ahead = sorted((one, other), key=lambda progress: progress.position)
    open_behind, open_ahead = set(behind.unfinished), set(ahead.unfinished)
    unfinished = tuple(offset for offset in sorted(open_ahead) if offset in open_behind or offset >= behind.position)
    still = {*unfinished}

    def kept(notes: Iterable[tuple[int, int]]) -> Notes:
        found = dict(sorted(notes))  # of one offset, the larger is the last
        return tuple(note for note in found.items() if note[0] in still or note[0] >= ahead.position)

    return Progress(
        ahead.position,
        unfinished,
        marks=lost(one),
        notes=kept((*one.notes, *other.notes)),
        log=one.log or other.log,
        begun=kept((*one.begun, *other.begun)),
    )


def encode(progress: Progress, longest: int = LONGEST) -> str:
    """`progress` as metadata of at most `longest` characters.

    What does not fit in is cut off at the end: from there on, finished records count as not yet taken. Notes that do
    not fit in even so (about a thousand do) are left out, the last ones first.
    """
    low = progress.low
    head = [max(0, progress.out), max(0, progress.reserved - low), len(progress.marks)]
    for limit, count in progress.marks:
        head += [limit - low, count]
    fixed = bytearray().join(map(_varint, head))
    prefix = IDENTIFIED + progress.log if progress.log else NOTED if progress.notes or progress.begun else PREFIX
    room = (longest - len(prefix)) * 3 // 4 - len(fixed) - 10  # ten: the longest position
    if prefix != PREFIX:
        noted = _noted(progress, room - FIRST_RUN)
        fixed += noted
        room -= len(noted)
    body, position, before = bytearray(), progress.position, low
    for start, stop in runs(progress.unfinished):
        entry = _varint(start - before) + _varint(stop - start)
        if len(body) + len(entry) > room:
            position = start
            break
        body += entry
        before = stop
    if room < 0 or (position == low and progress.position != low):
        return prefix if progress.log and len(prefix) <= longest else ""
    text = urlsafe_b64encode(fixed + _varint(position - low) + body).decode().rstrip("=")
    return prefix + text


def _noted(progress: Progress, room: int) -> bytes:
    """The notes, as many as fit in, behind their number."""
    body, number, before = bytearray(), 0, progress.low
    notes, begun = dict(progress.notes), dict(progress.begun)
    for offset in sorted(notes.keys() | begun.keys()):
        entry = _varint(offset - before) + _varint(notes.get(offset, 0))
        if offset in begun:
            entry += _varint(0) + _varint(begun[offset])
        entries = 1 + (offset in begun)
        if len(_varint(number + entries)) + len(body) + len(entry) > room:
            break
        body += entry
        before = offset
        number += entries
    return _varint(number) + body


def decode(low: int, metadata: str | None) -> Progress:
    """The progress that was committed as offset `low` with `metadata`. Metadata of other programs says nothing."""
    text = (metadata or "").rstrip("\0")
    prefix, coded = text[: len(PREFIX)], text[len(PREFIX) :]
    if prefix not in (PREFIX, NOTED, IDENTIFIED) or len(text) > 2 * LONGEST:
        return Progress(low)
    if prefix == IDENTIFIED:
        if not ID.match(coded):
            return Progress(low)
        return replace(_decoded(low, coded[22:], noted=True), log=coded[:22])
    return _decoded(low, coded, noted=prefix == NOTED)


def _decoded(low: int, coded: str, *, noted: bool) -> Progress:
    try:
        numbers = _varints(urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
        out, reserved, count = next(numbers), next(numbers), next(numbers)
        marks = tuple((low + next(numbers), next(numbers)) for _ in range(count))
        notes: dict[int, int] = {}
        begun: dict[int, int] = {}
        offset = low
        for _ in range(next(numbers) if noted else 0):
            offset += next(numbers)
            (begun if offset in notes else notes)[offset] = next(numbers)
        position = low + next(numbers)
        unfinished: list[int] = []
        before = low
        for gap in numbers:
            start, before = before + gap, before + gap + next(numbers)
            if before > position or len(unfinished) + before - start > MOST_UNFINISHED:
                return Progress(low)
            unfinished += range(start, before)
    except (ValueError, StopIteration, RuntimeError):
        return Progress(low)
    if unfinished[:1] != [low] and position != low:
        return Progress(low)
    return Progress(
        position,
        tuple(unfinished),
        out,
        low + reserved if reserved else 0,
        marks,
        tuple(note for note in notes.items() if note[1] or note[0] not in begun),
        begun=tuple(begun.items()),
    )


def runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """`offsets`, which ascend, as ranges: the first, and one past the last."""
    start = stop = -1
    for offset in offsets:
        if offset != stop:
            if start >= 0:
                yield start, stop
            start = offset
        stop = offset + 1
    if start >= 0:
        yield start, stop


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _varints(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
