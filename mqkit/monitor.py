"""The lock that lets one thread of an app's orchestration run at a time, and locks that a thread waits for."""

import threading
from contextlib import suppress
from types import TracebackType

from mqkit.durations import bounded


class Monitor:
    """A lock that its owner may take again, and let go of altogether while it waits."""

    __slots__ = ("_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._depth = 0

    def __enter__(self) -> None:
        self.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = 0
            self._lock.release()

    def take(self, timeout: float = -1) -> bool:
        """As entering it; False if it was not to be had within `timeout` seconds."""
        if self._owner != threading.get_ident() and not self._lock.acquire(timeout=timeout):
            return False
        self._owner = threading.get_ident()
        self._depth += 1
        return True

    def leave(self) -> int:
        """Let go of it, however often it was taken: how often that is, 0 if it was not."""
        if self._owner != threading.get_ident():
            return 0
        depth, self._depth, self._owner = self._depth, 0, 0
        self._lock.release()
        return depth

    def come_back(self, depth: int) -> None:
        """Take it so often again."""
        if depth and self.take():
            self._depth += depth - 1


def held() -> threading.Lock:
    """A lock that somebody else will release."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def wake(waiter: threading.Lock) -> None:
    """Release it, unless somebody else did just now: who waits may be woken by two at once."""
    with suppress(RuntimeError):
        waiter.release()


def patience(timeout: float) -> float:
    """`timeout` as a lock takes it; who waits for longer than that, weeks on some systems, is woken early."""
    return min(bounded(timeout), threading.TIMEOUT_MAX)
