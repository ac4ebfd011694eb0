"""One connection to the file: opening it, checking that it is ours, transactions, and SQLite's errors in our words."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain, repeat
from threading import Lock, RLock
from typing import Final
from urllib.parse import quote
from weakref import WeakSet

from mqkit.backends.sqlite.holder import holder
from mqkit.backends.sqlite.schema import APPLICATION_ID, TABLES, UPGRADES, VERSION
from mqkit.errors import (
    AuthenticationFailed,
    BackendError,
    ConfigurationError,
    ConnectionLost,
    MqkitError,
    map_errors,
)

SLICE: Final = 0.25
"""Seconds that SQLite waits by itself where a reader must, as after a crash; and between two looks whether to stop."""
PAUSES: Final = (0.0005, 0.001, 0.002, 0.003)
"""Seconds between two tries for the write lock. SQLite's own pauses grow to 100 ms: whoever lost once loses often."""
STANDSTILL: Final = 5.0
"""Seconds that a fork waits for one connection to be free."""
WAL_BYTES: Final = 16 * 1024 * 1024
"""To which the write-ahead log is cut after it was longer."""


def never() -> bool:
    """Nobody wants us to stop."""
    return False


def mapped(path: str) -> AbstractContextManager[None]:
    """Raise what SQLite raises as mqkit's errors."""

    def convert(error: BaseException) -> MqkitError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        match code:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
                found = holder(path)
                advice = f"it is held by {found}" if found else "find out who holds it"
                return ConnectionLost(f"{path} is locked by somebody else for too long; {advice}")
            case sqlite3.SQLITE_FULL:
                return ConnectionLost(f"{path}: the disk is full")
            case sqlite3.SQLITE_CANTOPEN:
                return ConnectionLost(f"{path} cannot be opened: {error}")
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_INTERRUPT | sqlite3.SQLITE_NOMEM | sqlite3.SQLITE_SCHEMA:
                return ConnectionLost(f"{path}: {error}")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return AuthenticationFailed(f"{path} cannot be written to by this user: {error}")
            case sqlite3.SQLITE_NOTADB:
                return ConfigurationError(f"{path} is not a SQLite database; name another file")
            case sqlite3.SQLITE_CORRUPT:
                return BackendError(f"{path} is damaged: {error}")
        return BackendError(f"{path}: {type(error).__name__}: {error}")

    return map_errors({sqlite3.Error: convert})


class WriteTurn:
    """Who of this process may write. One writer at a time: waiting here costs less than for SQLite's own lock.

    `writing` is true while the one that has the turn also has SQLite's lock: it gets on, however long its transaction
    takes. False, it waits for another process, as all behind it do.
    """

    __slots__ = ("acquire", "release", "writing")

    def __init__(self) -> None:
        lock = Lock()
        self.acquire = lock.acquire
        self.release = lock.release
        self.writing = False


class Database:
    """A connection. Belongs to one thread at a time.

    Args:
        path: of the file.
        turn: the turn to write, shared by all connections of this process to the file.
        durable: whether a commit waits until the disk has it. Only publishing must: a settlement or a claim that is
            lost with the power is done again, and the log keeps the order of commits.
        patience: seconds to wait for SQLite's lock.
        create: make the file if it is not there.

    Raises:
        ConfigurationError: not a file of ours, or not of this version.
        ConnectionLost, AuthenticationFailed
    """

    def __init__(self, path: str, turn: WriteTurn, *, durable: bool, patience: float, create: bool = False) -> None:
        self.path = path
        self._turn = turn
        self._durable = durable
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        self._busy = RLock()
        self.times_opened = 0
        with FORKING:
            OPEN.add(self)
        with mapped(path), self._busy:
            self._open(create=create)
            self._inode = self._identity()

    def _open(self, *, create: bool) -> sqlite3.Connection:
        connection = self._connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=SLICE,
            isolation_level=None,
            check_same_thread=False,
        )
        self.times_opened += 1
        try:
            self._prepare()
        except BaseException:
            self._let_go()
            raise
        return connection

    def used(self) -> AbstractContextManager[object]:
        """A context for every use of the connection: the process is not forked meanwhile."""
        return self._busy

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection; opened anew when the process was forked since it was last used."""
        return self._connection or self._open(create=False)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _prepare(self) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                if not self._checked():
                    self._make()
                mode = self.pragma("journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                # changing the mode does not wait for other connections by itself
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        if mode != "wal":
            raise ConfigurationError(f"{self.path}: no write-ahead log on this file system; use a local disk")
        self.pragma(f"synchronous = {'FULL' if self._durable else 'NORMAL'}")
        self.pragma("fullfsync = ON")  # macOS: fsync alone leaves it in the disk's cache
        self.pragma(f"journal_size_limit = {WAL_BYTES}")

    def _checked(self) -> bool:
        """As `_ours`, all read at one moment: somebody may be making the tables."""
        self.connection.execute("BEGIN")
        try:
            return self._ours()
        finally:
            self.connection.rollback()

    def _ours(self) -> bool:
        """Whether the tables are there; False for an empty file, and for tables of a version that can be upgraded."""
        application, version = self.pragma("application_id"), self.number("user_version")
        if application == APPLICATION_ID:
            if version in UPGRADES:
                return False
            if version != VERSION:
                raise ConfigurationError(
                    f"{self.path} has tables of version {version}, this mqkit works with version {VERSION}; "
                    "use the mqkit that made it, or another file"
                )
            return True
        if application or version or self.connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise ConfigurationError(f"{self.path} is a database of something else; give mqkit a file of its own")
        return False

    def _make(self) -> None:
        self.pragma("auto_vacuum = INCREMENTAL")  # without effect on a file that has tables
        self.pragma("journal_mode = WAL")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._ours():
                version = self.number("user_version")
                for statement in [UPGRADES[each] for each in range(version, VERSION)] if version else TABLES:
                    self.connection.execute(statement)
                self.pragma(f"application_id = {APPLICATION_ID}")
                self.pragma(f"user_version = {VERSION}")
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.rollback()
            raise

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self.path)  # noqa: PTH116 - on the way of every batch
        return found.st_dev, found.st_ino

    def pragma(self, text: str) -> object:
        """What `PRAGMA text` answers."""
        with self._busy:
            row = self.connection.execute(f"PRAGMA {text}").fetchone()
            return None if row is None else row[0]

    def number(self, name: str) -> int:
        """The pragma of that name, one that is a number."""
        found = self.pragma(name)
        assert isinstance(found, int)
        return found

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """What is committed within is on the disk, also by a connection that is not durable."""
        found = self.number("synchronous")
        self.pragma("synchronous = FULL")
        try:
            yield
        finally:
            self.pragma(f"synchronous = {found}")

    @contextmanager
    def write(self, patience: float | None = None, stop: Callable[[], bool] = never) -> Iterator[bool]:
        """A transaction that may write: commits at the end, rolls back when anything is raised.

        Yields:
            True; or False, without a transaction, if `stop` said so while waiting for the lock.

        Raises:
            ConnectionLost: others held the lock for `patience` seconds, or the file is not the one that was opened.
                Without `patience` a writer of this process that gets on is waited for, however long it takes.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        self.check_file()
        with self._busy:
            while not self._turn.acquire(timeout=SLICE):
                if stop():
                    yield False
                    return
                if time.monotonic() >= deadline and (patience is not None or not self._turn.writing):
                    raise ConnectionLost(f"{self.path} is being written to by this process for too long")
            try:
                if not self._begin(deadline, stop):
                    yield False
                    return
                self._turn.writing = True
                try:
                    yield True
                    self.connection.execute("COMMIT")
                except BaseException:
                    self.connection.rollback()
                    raise
            finally:
                self._turn.writing = False
                self._turn.release()

    def _begin(self, deadline: float, stop: Callable[[], bool]) -> bool:
        self.pragma("busy_timeout = 0")
        try:
            for pause in chain(PAUSES, repeat(PAUSES[-1])):
                try:
                    self.connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                        raise
                    if stop():
                        return False
                    time.sleep(pause)
                else:
                    return True
        finally:
            self.pragma(f"busy_timeout = {SLICE * 1000:.0f}")
        return False

    def check_file(self) -> None:
        """Raises ConnectionLost if the path names another file by now, or none: SQLite would go on with the old one."""
        try:
            same = self._identity() == self._inode
        except OSError:
            same = False
        if not same:
            raise ConnectionLost(f"{self.path} was removed or replaced")

    def close(self) -> None:
        """Close the connection; idempotent; never raises."""
        with FORKING:
            OPEN.discard(self)
        with suppress(sqlite3.Error), self._busy:
            self._let_go()

    def stand_still(self) -> bool:
        """Close the connection until it is next used; False if it is in use for too long. `go_on` must follow."""
        if not self._busy.acquire(timeout=STANDSTILL):
            return False
        with suppress(sqlite3.Error):
            self._let_go()
        return True

    def go_on(self) -> None:
        """Let it be used again, by the thread that let it stand still."""
        self._busy.release()


# SQLite keeps its locks in the memory of the process, and a fork copies them as they are: a child would find the file
# locked for ever by threads that it does not have. So nothing is open, and nobody is in SQLite, while a process forks.
OPEN: WeakSet[Database] = WeakSet()
FORKING: Final = RLock()
_still: list[Database] = []


def _before_fork() -> None:
    FORKING.acquire()
    _still.extend(database for database in tuple(OPEN) if database.stand_still())


def _after_fork() -> None:
    while _still:
        _still.pop().go_on()
    FORKING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
