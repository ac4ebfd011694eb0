"""Who holds SQLite's write lock, for people: nobody else can end it, and a stopped process holds it for ever.

Read from Linux's table of locks. The file itself must not be opened for that: closing it would drop SQLite's own locks.
"""

import os
from pathlib import Path

WRITE_LOCK = 120
"""The byte of the file `-shm` that SQLite locks for writing in write-ahead mode."""
STATES = {"T": "which is stopped: let it go on (kill -CONT), or end it", "t": "which a debugger has stopped",
          "D": "which waits for the disk", "Z": "which has ended"}  # fmt: skip


def holder(path: str) -> str:
    """`process 1234 (python), which is stopped`; empty if that cannot be known here."""
    try:
        inode = str(os.stat(f"{path}-shm").st_ino)  # noqa: PTH116 - as SQLite names it
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) == 8 and fields[3] == "WRITE" and fields[5].rpartition(":")[2] == inode:
                first, last = int(fields[6]), WRITE_LOCK if fields[7] == "EOF" else int(fields[7])
                if first <= WRITE_LOCK <= last:
                    return _process(int(fields[4]))
    except (OSError, ValueError):
        pass
    return ""


def _process(number: int) -> str:
    if number <= 0:
        return "a process of another container"
    if number == os.getpid():
        return f"this process, {number}"
    try:
        name, _, rest = Path(f"/proc/{number}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return f"process {number}"
    state = STATES.get(rest.split()[0], "")
    return f"process {number} ({name})" + (f", {state}" if state else "")
