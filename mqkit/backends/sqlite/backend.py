"""The SQLite backend: connects, declares, opens sessions, counts. Each call has a connection of its own."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mqkit.backend import Counts, Notify, Subscription
from mqkit.backends.sqlite import CAPABILITIES
from mqkit.backends.sqlite.database import Database, mapped
from mqkit.backends.sqlite.presence import Presence
from mqkit.backends.sqlite.receiver import SQLiteReceiver
from mqkit.backends.sqlite.schema import DEAD, DEAD_HELD, HELD, READY, WAITING
from mqkit.backends.sqlite.sender import SQLiteSender
from mqkit.backends.sqlite.url import parse
from mqkit.errors import ConfigurationError
from mqkit.topology import Finding, Topology


class SQLiteBackend:
    """A file."""

    def __init__(self, url: str) -> None:
        self._options = parse(url)
        self._path = self._options.path
        limit = self._options.max_message_bytes
        self.capabilities = replace(CAPABILITIES, max_message_bytes=limit, lease=self._options.lease)

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[Database]:
        turn = Presence.at(self._path).turn
        database = Database(self._path, turn, durable=True, patience=self._options.busy_timeout, create=create)
        try:
            with mapped(self._path), database.used():
                yield database
        finally:
            database.close()

    def _exists(self) -> bool:
        return os.path.exists(self._path)  # noqa: PTH110 - the path stays text

    def connect(self, timeout: float) -> str:  # noqa: ARG002 - the URL's busy_timeout bounds it
        """As Backend.connect. A file that is not there yet is made when something is declared."""
        place = Path(self._path).parent
        what = f"SQLite {sqlite3.sqlite_version}, {self._path}"
        if not place.is_dir():
            raise ConfigurationError(f"{self._path}: there is no directory {place}; make it, or name another file")
        if Path(self._path).is_dir():
            raise ConfigurationError(f"{self._path} is a directory; name a file in it")
        if not os.access(place, os.W_OK):
            raise ConfigurationError(f"{place} cannot be written to by this user, so no database can be there")
        if not self._exists():
            return f"{what}, a new file"
        if not os.access(self._path, os.W_OK):
            raise ConfigurationError(f"{self._path} cannot be written to by this user")
        with self._open(create=True):
            return f"{what}, {_size(Path(self._path).stat().st_size)}"

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        if self._exists() and all(finding.state == "present" for finding in self.examine(topology)):
            return
        with self._open(create=True) as database, database.write():
            for need in topology.topics:
                database.connection.execute("INSERT OR IGNORE INTO topic (name) VALUES (?)", (need.name,))
                database.connection.executemany(
                    "INSERT OR IGNORE INTO topic_group (topic, name) SELECT id, ? FROM topic WHERE name = ?",
                    [(group, need.name) for group in sorted(need.groups)],
                )

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        topics: set[str] = set()
        groups: set[tuple[str, str]] = set()
        if self._exists():
            with self._open() as database:
                topics = {name for (name,) in database.connection.execute("SELECT name FROM topic")}
                groups = set(_groups(database))
        findings = []
        for need in topology.topics:
            findings.append(Finding("topic", need.name, "present" if need.name in topics else "missing"))
            for group in sorted(need.groups):
                there = (need.name, group) in groups
                findings.append(Finding("group", f"{need.name}.{group}", "present" if there else "missing"))
        return findings

    def open_sender(self) -> SQLiteSender:
        """As Backend.open_sender."""
        return SQLiteSender(self._options)

    def open_receiver(self, subscription: Subscription, notify: Notify) -> SQLiteReceiver:  # noqa: ARG002 - the seam's
        """As Backend.open_receiver."""
        if not self._exists():
            raise ConfigurationError(f"there is no topic {subscription.topic!r}: {self._path} does not exist")
        return SQLiteReceiver(self._options, subscription)

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        if not self._exists():
            raise ConfigurationError(f"there is no topic {topic!r}: {self._path} does not exist")
        with self._open() as database:
            Presence.at(self._path).roll_call(database)
            groups = _groups(database)
            if (topic, group) not in groups:
                known = ", ".join(its_group for name, its_group in groups if name == topic)
                if known:
                    raise ConfigurationError(f"topic {topic!r} has no group {group!r}; there is {known}")
                known = ", ".join(sorted({name for name, _ in groups})) or "none yet"
                raise ConfigurationError(f"there is no topic {topic!r} with groups; there is {known}")
            return _counts(database, groups[topic, group])

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        if not self._exists():
            return ()
        with self._open() as database:
            return sorted(found for found in _groups(database) if topic in (None, found[0]))

    def close(self) -> None:
        """As Backend.close. Nothing is held between calls."""


def _groups(database: Database) -> dict[tuple[str, str], int]:
    rows = database.connection.execute(
        "SELECT t.name, g.name, g.id FROM topic_group AS g JOIN topic AS t ON t.id = g.topic WHERE g.tail = 0"
    )
    return {(topic, group): number for topic, group, number in rows}


def _counts(database: Database, group: int) -> Counts:
    states: dict[int, int] = dict(
        database.connection.execute(
            "SELECT state, COUNT(*) FROM delivery WHERE topic_group = ? GROUP BY state", (group,)
        ).fetchall()
    )
    (due,) = database.connection.execute(
        "SELECT COUNT(*) FROM delivery WHERE topic_group = ? AND state = 2 AND due <= ?", (group, time.time())
    ).fetchone()
    return Counts(
        ready=states.get(READY, 0) + due,
        in_flight=states.get(HELD, 0),
        waiting=states.get(WAITING, 0) - due,
        dead=states.get(DEAD, 0) + states.get(DEAD_HELD, 0),
    )


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
