"""Who is there: a row for each receiver, with the time until which it keeps its messages. Called inside transactions.

The clock is the machine's monotonic one: it is the same for all processes and stands still while the machine sleeps.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from mqkit.backends.sqlite.schema import DEAD, DEAD_HELD, HELD, READY


@dataclass(frozen=True, slots=True)
class Member:
    """One receiver's row."""

    number: int
    topic_group: int
    tail: bool
    locked: bool
    """It holds the lock of its number, so that its death shows at once."""
    lease: float
    expires: float

    def expired(self, now: float) -> bool:
        """Its time is over; or so far ahead that the clock must have started anew, with the machine."""
        return not now <= self.expires <= now + self.lease


def enroll(connection: sqlite3.Connection, topic_group: int, lease: float, *, tail: bool) -> int:
    """A new member, not locked yet; its number."""
    number = connection.execute(
        "INSERT INTO member (topic_group, tail, locked, lease, expires) VALUES (?, ?, 0, ?, ?)",
        (topic_group, tail, lease, time.monotonic() + lease),
    ).lastrowid
    assert number is not None
    return number


def renew(connection: sqlite3.Connection, number: int, lease: float) -> bool:
    """Prolong the lease; False if the member is gone."""
    expires = time.monotonic() + lease
    return connection.execute("UPDATE member SET expires = ? WHERE id = ?", (expires, number)).rowcount == 1


def present(connection: sqlite3.Connection) -> list[Member]:
    """Everybody."""
    rows = connection.execute("SELECT id, topic_group, tail, locked, lease, expires FROM member")
    return [Member(number, group, bool(tail), bool(locked), *times) for number, group, tail, locked, *times in rows]


def dismiss(connection: sqlite3.Connection, number: int, *, lost: bool) -> int | None:
    """Give back what a member holds and forget it; the group that it belonged to, None if it was gone already.

    Args:
        lost: it did not leave by itself, so what it held is counted as lost with it.
    """
    row = connection.execute("SELECT topic_group, tail FROM member WHERE id = ?", (number,)).fetchone()
    if row is None:
        return None
    group, tail = row
    if tail:
        seen = connection.execute("SELECT message FROM delivery WHERE topic_group = ?", (group,)).fetchall()
        connection.execute("DELETE FROM delivery WHERE topic_group = ?", (group,))
        forget(connection, group, (message for (message,) in seen))
        connection.execute("DELETE FROM topic_group WHERE id = ?", (group,))
    else:
        for held, back in ((HELD, READY), (DEAD_HELD, DEAD)):
            connection.execute(
                "UPDATE delivery SET state = ?, member = NULL, times = times + ? "
                "WHERE topic_group = ? AND state = ? AND member = ?",
                (back, int(lost), group, held, number),
            )
    connection.execute("DELETE FROM member WHERE id = ?", (number,))
    return int(group)


def forget(connection: sqlite3.Connection, group: int, messages: Iterable[int]) -> None:
    """Delete those messages to which no group of the same topic has a delivery left."""
    connection.executemany(
        "DELETE FROM message WHERE id = ? AND NOT EXISTS ("
        "SELECT 1 FROM topic_group AS mine JOIN topic_group AS other ON other.topic = mine.topic "
        "JOIN delivery ON delivery.topic_group = other.id AND delivery.state IN (0, 1, 2, 3, 4) "
        "AND delivery.message = message.id WHERE mine.id = ?)",
        [(number, group) for number in messages],
    )
