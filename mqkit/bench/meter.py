"""A stretch of time: wall clock, CPU of this process, and what the host took away. Also the calibration loop, which
tells how fast this machine is just now, so that a noisy sample is seen.
"""

import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
STATUS = Path("/proc/self/status")
CALIBRATION_TURNS = 60_000


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clocks."""

    wall: float
    cpu: float
    """Seconds of user and system time of this process, all its threads."""
    ticks: int
    """Of all CPUs of the machine."""
    stolen: int
    """Those of them that the host gave to others."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What lies between two readings."""

    seconds: float
    cpu: float
    """Seconds."""
    steal: float
    """The share of the machine's time that its host gave to others, from 0 to 1."""


def reading() -> Reading:
    """What the clocks show now."""
    ticks, stolen = _ticks()
    return Reading(time.perf_counter(), time.process_time(), ticks, stolen)


def between(first: Reading, last: Reading) -> Stretch:
    """What lies between `first` and `last`."""
    ticks = last.ticks - first.ticks
    steal = (last.stolen - first.stolen) / ticks if ticks > 0 else 0.0
    return Stretch(last.wall - first.wall, last.cpu - first.cpu, steal)


def _ticks() -> tuple[int, int]:
    try:
        fields = [int(field) for field in STAT.read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):  # not Linux
        return 0, 0
    return sum(fields), fields[7] if len(fields) > 7 else 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """How long the fixed loop took, in seconds. CPU tells how fast the machine is; more on the wall, how busy."""

    cpu: float
    wall: float


class _Step:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


def calibrate() -> Calibration:
    """Run a fixed piece of plain Python, some 15 ms: calls, objects, a dict, some text."""
    began, started = time.perf_counter(), time.thread_time()
    seen: dict[str, _Step] = {}
    for i in range(CALIBRATION_TURNS):
        step = _Step(i)
        seen[str(i & 1023)] = step
        if step.value % 3 == 0:
            seen.pop(str(i & 511), None)
    return Calibration(time.thread_time() - started, time.perf_counter() - began)


def peak_memory() -> int | None:
    """Bytes of memory that this process held at most (resident set); None where the system does not tell.

    Not getrusage: what that tells begins with the memory of the process which started this one.
    """
    try:
        found = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    except OSError:
        return None
    return int(found[0].split()[1]) * 1024 if found else None
