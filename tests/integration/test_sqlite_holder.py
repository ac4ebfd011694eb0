"""Whoever waits for SQLite's write lock in vain is told which process has it, and that it is stopped."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqkit.backends.sqlite.backend import SQLiteBackend
from mqkit.backends.sqlite.holder import holder
from mqkit.errors import ConnectionLost
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology

HOLD = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("has it", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "q.db"
    SQLiteBackend(f"sqlite:///{found}").declare(Topology((TopicNeed("t", frozenset({"g"})),)))
    return found


@pytest.fixture
def stopped(path: Path) -> Iterator[int]:
    """A process that stopped while it had the lock; its number."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        while f"process {process.pid} (python" not in (told := holder(str(path))) or "stopped" not in told:
            assert process.poll() is None, told
        yield process.pid
        process.send_signal(signal.SIGKILL)


@linux
def test_a_writer_in_vain_is_told_which_process_is_stopped(path: Path, stopped: int) -> None:
    sender = SQLiteBackend(f"sqlite:///{path}").open_sender()
    with pytest.raises(ConnectionLost, match=rf"held by process {stopped} \(.*\), which is stopped"):
        sender.send([Outgoing(WireMessage(b"x"), "t")], 0.05)
    sender.close()


@linux
def test_a_lock_that_nobody_holds_has_no_holder(path: Path) -> None:
    sender = SQLiteBackend(f"sqlite:///{path}").open_sender()
    assert holder(str(path)) == ""
    sender.close()
    assert holder(f"{path}-elsewhere") == ""
