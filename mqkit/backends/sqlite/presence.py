"""This process at one file: whose turn it is to write, which receivers it has, and one thread that looks for news.

The thread sees what other processes commit and tells the receivers here; it gives back what dead members held, and
returns free space to the disk. A living member holds a lock on its own byte of the file `<database>-members`, which
the kernel drops when the process dies; where there are no such locks, the lease's time decides alone.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import ClassVar, Final

from mqkit.backends.sqlite.database import Database, WriteTurn, mapped
from mqkit.backends.sqlite.members import Member, dismiss, present
from mqkit.errors import ConnectionLost

if sys.platform != "win32":
    import fcntl

LOOK: Final = 0.02
"""Seconds between two looks for commits of other processes; costs about half a percent of a core."""
ROLL_CALL: Final = 0.25
"""Seconds between two looks for dead members."""
FREE_PAGES: Final = 1024
"""So many are kept for what comes next; more are returned to the disk, so many at a time."""


class MemberLocks:
    """A lock on one byte of a file for each member.

    They belong to the process: never close the file while one is held, for that would drop them all.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None

    if sys.platform == "win32":

        def hold(self, number: int) -> bool:  # noqa: ARG002 - as below
            """There are no such locks here."""
            return False

        def drop(self, number: int) -> None:
            """Nothing to let go of."""
    else:

        def hold(self, number: int) -> bool:
            """Lock the byte of a member; False if another process has it, or where that cannot be done."""
            try:
                if self._file is None:
                    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                return False
            return True

        def drop(self, number: int) -> None:
            """Let go of it."""
            if self._file is not None:
                with suppress(OSError):
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def died(self, number: int) -> bool:
        """Whether nobody holds the byte of a member of another process."""
        if not self.hold(number):
            return False
        self.drop(number)
        return True

    def close(self) -> None:
        """Close the file, when none of its locks is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Presence:
    """This process at one file."""

    _all: ClassVar[dict[tuple[int, str], "Presence"]] = {}

    @classmethod
    def at(cls, path: str) -> "Presence":
        """The one of this process, also when the file is named in another way."""
        place = os.path.realpath(path)
        # without a lock: the process may be forked while another thread holds it
        return cls._all.setdefault((os.getpid(), place), cls(place))

    def __init__(self, path: str) -> None:
        self.path = path
        self.turn = WriteTurn()
        self._locks = MemberLocks(f"{path}-members")
        self._receivers: dict[int, tuple[int, Callable[[], None]]] = {}
        self._changing = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    def enter(self, number: int, group: int, nudge: Callable[[], None]) -> bool:
        """A receiver of this process, to be nudged when something may have come; whether its byte is locked."""
        with self._changing:
            self._receivers = {**self._receivers, number: (group, nudge)}
            locked = self._locks.hold(number)
            if self._thread is None:
                self._stop = Event()
                self._thread = Thread(target=self._watch, args=(self._stop,), name="mqkit-sqlite", daemon=True)
                self._thread.start()
            return locked

    def leave(self, number: int) -> None:
        """The receiver is gone; with the last one the thread ends."""
        thread = None
        with self._changing:
            self._locks.drop(number)
            self._receivers = {other: known for other, known in self._receivers.items() if other != number}
            if not self._receivers and self._thread is not None:
                thread, self._thread = self._thread, None
                self._stop.set()
                self._locks.close()
        if thread is not None:
            thread.join(timeout=5)

    def announce(self, group: int | None = None) -> None:
        """Nudge this process's receivers of a group, or all."""
        for its_group, nudge in self._receivers.values():
            if group is None or group == its_group:
                nudge()

    def roll_call(self, database: Database) -> None:
        """Give back what dead members hold."""
        with database.used():
            if not self._gone(database):
                return
        with database.write():
            for number in self._gone(database):
                dismiss(database.connection, number, lost=True)
        self.announce()

    def _gone(self, database: Database) -> list[int]:
        now = time.monotonic()
        members = present(database.connection)
        with self._changing:
            gone = [member.number for member in members if member.expired(now) or self._died(member)]
            if not self._receivers:
                self._locks.close()
            return gone

    def _died(self, member: Member) -> bool:
        return member.locked and member.number not in self._receivers and self._locks.died(member.number)

    def _watch(self, stop: Event) -> None:
        database: Database | None = None
        version: object = None
        next_call = 0.0
        quiet = False
        while not stop.wait(LOOK):
            try:
                if database is None:
                    database = Database(self.path, self.turn, durable=False, patience=1)
                seen = database.number("data_version"), database.times_opened
                if seen != version:
                    version = seen
                    self.announce()
                    quiet = False
                if time.monotonic() >= next_call:
                    next_call = time.monotonic() + ROLL_CALL
                    database.check_file()
                    self.roll_call(database)
                    _give_back(database, quiet=quiet)
                    quiet = True
            except Exception:  # noqa: BLE001 - each session meets what is wrong by itself, and says so
                self.announce()
                stop.wait(ROLL_CALL)
                if database is not None:
                    database.close()
                    database = None
        if database is not None:
            database.close()


def _give_back(database: Database, *, quiet: bool) -> None:
    """Return some free pages to the disk, if there are many: when nothing happens, or most of the file is free."""
    free, pages = database.number("freelist_count"), database.number("page_count")
    if free > 2 * FREE_PAGES and (quiet or 2 * free > pages):
        with suppress(ConnectionLost), mapped(database.path), database.write(patience=0):
            for _ in range(FREE_PAGES):  # one by one: sqlite3 takes only the first step of a pragma
                database.connection.execute("PRAGMA incremental_vacuum(1)")
