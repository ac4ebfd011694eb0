"""Instructions for a message, counted by callgrind: `python -m tests.bench.instructions publish consume`, in memory.

The same work is done twice, once with more rounds; the difference is what the additional messages took, with the start
and the imports gone. Unlike time this hardly depends on the machine or on its load. Needs valgrind.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench.guard import ROOT
from tests.bench.guard_case import BATCH

FEW, MORE = 1, 5
CASES = ("publish", "consume")
UNCOUNTED = "from tests.bench.guard_case import main; main({!r}, 'memory://', rounds='{}', counted='')"
LINE = re.compile(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S+?):(\S+)(?: \[(\S+)\])?")
LIBRARIES = (("pydantic_core", "pydantic_core"), ("libpython", "the interpreter"), ("python3", "the interpreter"),
             ("libc.so", "the C library"))  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.instructions", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("case", nargs="*", metavar="publish|consume")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("error: there is no valgrind here: on Debian, apt-get install valgrind", file=sys.stderr)
        return 2
    if unknown := set(options.case) - set(CASES):
        print(f"error: {min(unknown)!r} is not publish or consume", file=sys.stderr)
        return 2
    for case in options.case or CASES:
        more = count(case, MORE)
        more.subtract(count(case, FEW))
        each = (MORE - FEW) * BATCH
        print(f"memory/{case}: {sum(more.values()) / each:,.0f} instructions for a message")
        for function, number in more.most_common(15):
            print(f"  {number / each:8,.0f}  {function}")
    return 0


def count(case: str, rounds: int) -> Counter[str]:
    """Function -> instructions of a whole process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        code = UNCOUNTED.format(case, rounds)
        subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-c", code],
            cwd=ROOT, capture_output=True, check=True,
        )  # fmt: skip
        shown = subprocess.run(
            ["callgrind_annotate", "--threshold=100", "--auto=no", str(out)], capture_output=True, text=True, check=True
        ).stdout
    return counted(shown)


def counted(annotated: str) -> Counter[str]:
    """What callgrind_annotate says, by function; what has no name, by library."""
    found: Counter[str] = Counter()
    for line in annotated.splitlines():
        if (match := LINE.match(line)) and "PROGRAM" not in line:
            number, _, function, library = match.groups()
            name = function.partition("'")[0]
            if name.startswith("0x"):
                name = next((said for part, said in LIBRARIES if part in (library or "")), "unknown")
            found[name] += int(number.replace(",", ""))
    return found


if __name__ == "__main__":
    sys.exit(main())
