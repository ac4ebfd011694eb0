"""The contract on the SQLite backend."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mqkit.testing.conformance import Conformance, Harness


class SQLiteHarness(Harness):
    name = "sqlite"
    abilities = frozenset({"interrupt"})

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(f"sqlite:///{path}?busy_timeout=0.5&lease=5&max_message_bytes={2**25}")

    @contextmanager
    def interrupt(self) -> Iterator[None]:
        """Another process holds the file's lock for longer than anybody waits for it."""
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                other.execute("ROLLBACK")


class TestSQLite(Conformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SQLiteHarness(tmp_path / "conformance.db")
