"""Receiving: claims what is ready in one transaction, settles in another, waits for news in between."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from mqkit.backend import Notes, Settlement, Settlements, Subscription, nothing_recalled
from mqkit.backends.sqlite.database import Database, mapped
from mqkit.backends.sqlite.headers import load
from mqkit.backends.sqlite.members import dismiss, enroll, forget, renew
from mqkit.backends.sqlite.presence import Presence
from mqkit.backends.sqlite.schema import DEAD, DEAD_HELD, HELD, READY, WAITING
from mqkit.backends.sqlite.url import Options
from mqkit.errors import ClosedError, ConfigurationError, ConnectionLost, LeaseLost, MqkitError
from mqkit.message import Delivery, WireMessage

RIPEN: Final = 1000
"""How many become ready at once when their time has come: bounds the time that others wait for the file."""
BYTES: Final = 64 * 1024 * 1024
"""A claim ends when it has bodies of this size."""

KEYS: Final = 8
"""With ordering by key, a key gets this part of the prefetch at most, so that others flow while it is stuck."""

# Keys that another member works on are left alone, and those of which this member has enough.
_FREE_KEYS: Final = (
    "AND (d.key IS NULL OR d.key NOT IN (SELECT o.key FROM delivery AS o "
    "WHERE o.topic_group = :group AND o.state = 1 AND o.key IS NOT NULL "
    "GROUP BY o.key HAVING MAX(o.member <> :member) OR COUNT(*) >= :most)) "
)
_LOOK: Final = "SELECT 1 FROM delivery AS d WHERE d.topic_group = :group AND d.state = :ready {free}LIMIT 1"
_CLAIM: Final = (
    "SELECT d.message, d.key, d.returned, d.times, d.spent, LENGTH(m.body) "
    "FROM delivery AS d CROSS JOIN message AS m ON m.id = d.message "
    "WHERE d.topic_group = :group AND d.state = :ready AND d.message > :after {free}ORDER BY d.message LIMIT :room"
)
_READ: Final = "SELECT body, headers, content_type, message_id, properties FROM message WHERE id = ?"
_NEXT_DUE: Final = "SELECT MIN(due) FROM delivery WHERE topic_group = ? AND state = 2"
_RIPEN: Final = (
    "UPDATE delivery SET state = ?, due = NULL WHERE topic_group = ? AND state = ? AND message IN "
    "(SELECT message FROM delivery WHERE topic_group = ? AND state = 2 AND due <= ? ORDER BY due LIMIT ?)"
)
_HOLD: Final = "UPDATE delivery SET state = ?, member = ? WHERE topic_group = ? AND state = ? AND message = ?"
_DONE: Final = "DELETE FROM delivery WHERE topic_group = ? AND state = ? AND message = ? AND member = ?"
_BACK: Final = (
    "UPDATE delivery SET state = ?, member = NULL WHERE topic_group = ? AND state = ? AND message = ? AND member = ?"
)
_NOTE: Final = "UPDATE delivery SET spent = ? WHERE topic_group = ? AND state = ? AND message = ? AND member = ?"
_BEGIN: Final = (
    "UPDATE delivery SET begun = begun + ? WHERE topic_group = ? AND state = ? AND message = ? AND member = ?"
)
_BEGUN: Final = "SELECT begun FROM delivery WHERE topic_group = ? AND state = ? AND message = ? AND member = ?"


class SQLiteReceiver:
    """As BlockingReceiver. A token is the member's number, which is its epoch, and the message's."""

    def __init__(self, options: Options, subscription: Subscription) -> None:
        self._subscription = subscription
        self._lease = options.lease
        self._tail = subscription.source == "tail"
        self._dead = subscription.source == "dead"
        self._ordered = subscription.ordering == "key" and not self._dead
        self._ready, self._claimed = (DEAD, DEAD_HELD) if self._dead else (READY, HELD)
        free = _FREE_KEYS if self._ordered else ""
        self._look_sql, self._claim_sql = _LOOK.format(free=free), _CLAIM.format(free=free)
        self._most = max(1, subscription.prefetch // KEYS)
        self._held: dict[object, tuple[int, bytes | None]] = {}
        self._keys: Counter[bytes | None] = Counter()
        self._begun: set[object] = set()
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._woken = False
        self._closed = False
        self._number = 0
        self._group = 0
        self._renew_at = 0.0
        self._presence = Presence.at(options.path)
        self._database = Database(options.path, self._presence.turn, durable=False, patience=options.busy_timeout)
        try:
            with mapped(options.path):
                self._presence.roll_call(self._database)
                with self._database.write():
                    self._find()
                    self._enroll()
        except BaseException:
            self._presence.leave(self._number)
            self._database.close()
            raise

    def _find(self) -> None:
        """The group's row; for a tail, a new one."""
        connection, wanted = self._database.connection, self._subscription
        row = connection.execute("SELECT id FROM topic WHERE name = ?", (wanted.topic,)).fetchone()
        if row is None:
            raise ConfigurationError(f"there is no topic {wanted.topic!r} in {self._database.path}; declare it first")
        if self._tail:
            return
        row = connection.execute(
            "SELECT id FROM topic_group WHERE topic = ? AND name = ? AND tail = 0", (*row, wanted.group)
        ).fetchone()
        if row is None:
            raise ConfigurationError(f"topic {wanted.topic!r} has no group {wanted.group!r}; declare it first")
        (self._group,) = row

    def _enroll(self) -> None:
        """Become a member, with a number that nobody had before."""
        connection, wanted = self._database.connection, self._subscription
        self._held.clear()
        self._keys.clear()
        self._begun.clear()
        self._number = enroll(connection, self._group, self._lease, tail=self._tail)
        if self._tail:
            group = connection.execute(
                "INSERT INTO topic_group (topic, name, tail) SELECT id, ?, ? FROM topic WHERE name = ?",
                (wanted.group, self._number, wanted.topic),
            ).lastrowid
            assert group is not None
            self._group = group
        locked = self._presence.enter(self._number, self._group, self.nudge)
        connection.execute(
            "UPDATE member SET locked = ?, topic_group = ? WHERE id = ?", (locked, self._group, self._number)
        )
        self._renew_at = time.monotonic() + self._lease / 4

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        self._check()
        deadline = time.monotonic() + timeout
        try:
            with mapped(self._database.path):
                return self._receive(limit, deadline)
        finally:
            self._woken = False

    recalled = staticmethod(nothing_recalled)  # who finds its lease over loses its session

    def _receive(self, limit: int, deadline: float) -> Sequence[Delivery]:
        while True:
            while not self._signal.empty():
                self._signal.get_nowait()
            woken = self._woken  # then one look, without waiting: what is ready need not wait for another call
            self._database.check_file()
            now = time.monotonic()
            with self._database.used():
                if now >= self._renew_at:
                    with self._database.write(stop=self._is_woken) as begun:
                        if begun:
                            self._renew()
                room = limit if self._dead else min(limit, self._room())
                until = min(deadline, self._renew_at)
                if room > 0:
                    due = self._next_due()
                    if (due is not None and due <= time.time()) or self._anything():
                        if found := self._claim(room):
                            return found
                        due = self._next_due()
                    if self._dead:
                        return ()
                    if due is not None:
                        until = min(until, now + due - time.time())
            if woken or now >= deadline:
                return ()
            try:
                self._signal.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                continue

    def _room(self) -> int:
        return self._subscription.prefetch + self._subscription.aside - len(self._held)

    def _is_woken(self) -> bool:
        return self._woken

    def _next_due(self) -> float | None:
        if self._dead:
            return None
        due: float | None = self._database.connection.execute(_NEXT_DUE, (self._group,)).fetchone()[0]
        return due

    def _names(self, **more: int) -> dict[str, int]:
        """What the statements with `{free}` in them need."""
        names = {"group": self._group, "ready": self._ready, **more}
        return {**names, "member": self._number, "most": self._most} if self._ordered else names

    def _anything(self) -> bool:
        return self._database.connection.execute(self._look_sql, self._names()).fetchone() is not None

    def _claim(self, room: int) -> list[Delivery]:
        connection = self._database.connection
        with self._database.write(stop=self._is_woken) as begun:
            if not begun:
                return []
            self._renew(only_look=time.monotonic() < self._renew_at)
            if not self._dead:
                connection.execute(_RIPEN, (READY, self._group, WAITING, self._group, time.time(), RIPEN))
            rows = self._take(room)
        # read when others may write again: nobody deletes what is held, and a claim may have 64 MB
        return [self._delivery(*row[:5], *connection.execute(_READ, row[:1]).fetchone()) for row in rows]

    def _take(self, room: int) -> list[Any]:
        """Hold up to `room` deliveries. Rows of a key that got its part are passed over, and excluded from then on."""
        connection, most = self._database.connection, self._most if self._ordered else math.inf
        rows: list[Any] = []
        after, size = 0, 0
        while True:
            seen, fresh = 0, []
            for row in connection.execute(self._claim_sql, self._names(room=room - len(rows), after=after)):
                after, key = row[:2]
                seen += 1
                size += row[5]
                if key is None or self._keys[key] < most:
                    self._keys[key] += 1
                    fresh.append(row)
                if size >= BYTES:
                    break
            connection.executemany(
                _HOLD, [(self._claimed, self._number, self._group, self._ready, row[0]) for row in fresh]
            )
            rows += fresh
            if len(fresh) == seen or size >= BYTES:
                return rows

    def _delivery(
        self,
        number: int,
        key: bytes | None,
        returned: int,
        times: int,
        spent: int,
        body: bytes,
        headers: str | None,
        content_type: str | bytes | None,
        message_id: str | bytes | None,
        properties: str | None,
    ) -> Delivery:
        topic, group = self._subscription.topic, self._subscription.group
        message = WireMessage(body, load(headers), key, _text(content_type), _text(message_id), load(properties))
        token = (self._number, number)
        self._held[token] = (number, key)
        return Delivery(message, token, topic, group, f"{topic}#{number}", bool(returned), times, spent, unique=True)

    def _renew(self, *, only_look: bool = False) -> None:
        """Still be a member, in a transaction; or become one again, if that makes no difference to anybody.

        Raises:
            ConnectionLost: others have what this one held.
        """
        connection = self._database.connection
        if only_look:
            found = connection.execute("SELECT 1 FROM member WHERE id = ?", (self._number,)).fetchone() is not None
        else:
            found = renew(connection, self._number, self._lease)
            self._renew_at = time.monotonic() + self._lease / 4
        if found:
            return
        if self._tail or self._held:
            raise ConnectionLost(
                f"{self._database.path}: this member showed no sign of life for {self._lease:g} s, so others got what "
                "it had: the process stood still, or could not write"
            )
        old = self._number
        self._enroll()
        self._presence.leave(old)

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        self._check()
        heard = self._heard_of(token for token, _ in settlements)
        done: list[tuple[int, int, int, int]] = []
        back: list[tuple[int, int, int, int, int]] = []
        for token, settlement in settlements:
            if token not in self._held:
                continue
            number, key = self._held.pop(token)
            self._keys[key] -= 1
            if not self._keys[key]:
                del self._keys[key]
            mine = (self._group, self._claimed, number, self._number)
            if settlement is Settlement.DONE:
                done.append(mine)
            else:
                back.append((self._ready, *mine))
        settled = 0
        with mapped(self._database.path), self._database.write():
            connection = self._database.connection
            connection.executemany(_BEGIN, heard)
            if done:
                settled += connection.executemany(_DONE, done).rowcount
                forget(connection, self._group, (number for _, _, number, _ in done))
            if back:
                settled += connection.executemany(_BACK, back).rowcount
            if settled == len(settlements) and time.monotonic() >= self._renew_at:
                self._renew()
        if back or self._ordered:
            self._presence.announce(self._group)
        _check_lost(len(settlements) - settled, len(settlements))

    def note(self, notes: Notes) -> None:
        """As Receiver.note; the disk has them when it returns."""
        self._check()
        mine = [
            (spent, self._group, self._claimed, self._held[token][0], self._number)
            for token, spent in notes
            if token in self._held
        ]
        noted = 0
        heard = self._heard_of(token for token, _ in notes)
        with mapped(self._database.path), self._database.flushed(), self._database.write():
            self._database.connection.executemany(_BEGIN, heard)
            if mine:
                noted = self._database.connection.executemany(_NOTE, mine).rowcount
        _check_lost(len(notes) - noted, len(notes))

    def begin(self, token: object) -> int:
        """As Receiver.begin; the disk has it when it returns."""
        self._check()
        again = self._heard_of([token])
        place = (self._group, self._claimed, self._held[token][0] if token in self._held else -1, self._number)
        with mapped(self._database.path), self._database.flushed(), self._database.write():
            connection = self._database.connection
            connection.executemany(_BEGIN, again)
            row = connection.execute(_BEGUN, place).fetchone()
            connection.execute(_BEGIN, (1, *place))
        _check_lost(row is None, 1)
        self._begun.add(token)
        return int(row[0])

    def _heard_of(self, tokens: Iterable[object]) -> list[tuple[int, int, int, int, int]]:
        """What takes the beginning of these back: the parameters of `_BEGIN`."""
        begun = [token for token in tokens if token in self._begun]
        self._begun.difference_update(begun)
        return [(-1, self._group, self._claimed, self._held[token][0], self._number) for token in begun]

    def wake(self) -> None:
        """As Receiver.wake."""
        self._woken = True
        self._signal.put(None)

    def nudge(self) -> None:
        """Look again."""
        if self._signal.empty():
            self._signal.put(None)

    def close(self) -> None:
        """As Receiver.close."""
        if self._closed:
            return
        self._closed = True
        try:
            with mapped(self._database.path), self._database.write(patience=2):
                self._database.connection.executemany(_BEGIN, self._heard_of(self._held))
                dismiss(self._database.connection, self._number, lost=False)
        except MqkitError:
            pass  # whoever is left sees that we are gone
        self._presence.leave(self._number)
        self._presence.announce(self._group)
        self._database.close()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver is closed")


def _check_lost(lost: int, asked: int) -> None:
    if lost:
        raise LeaseLost(f"{lost} of {asked} deliveries do not belong to this session (any more)")


def _text(value: str | bytes | None) -> str | None:
    """As the sender had it."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
