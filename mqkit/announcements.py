"""Events on their way to listeners, in plain code: one after the other, in a thread where they may use the app."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from mqkit.daemons import Daemons

log = logging.getLogger("mqkit")

MOST: Final = 10_000
"""Calls that wait; each takes about half a kilobyte."""


class Announcements:
    """Calls that are made in their order, one at a time, beside whoever asks for them.

    Args:
        daemons: where the thread comes from; it is there while there is something to call.
        most: calls that may wait. One more, and the oldest of them is not made: the log says how many were not.
    """

    def __init__(self, daemons: Daemons, most: int = MOST) -> None:
        self._daemons = daemons
        self._most = most
        self._dropped = 0
        """Calls that were not made since the last time that none waited."""
        self._calls: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._thread = 0
        """Which thread calls; -1 if it is just beginning."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._calls)

    def put(self, call: Callable[[], object]) -> None:
        """Call it soon, after those before it, if it is not dropped; never blocks. What it raises is logged."""
        with self._changed:
            full = len(self._calls) >= self._most
            if full:
                self._calls.popleft()
                self._dropped += 1
            tell = full and self._dropped == 1
            self._calls.append(call)
            begin = not self._thread
            if begin:
                self._thread = -1
        if begin:
            self._daemons.start(self._work)
        if tell:
            log.warning("listeners are slow: %d events wait for them, so the oldest are not told", self._most)

    def wait(self, timeout: float) -> bool:
        """Whether all were made within `timeout` seconds; at once for one of them that asks."""
        with self._changed:
            if self._thread == threading.get_ident():
                return False
            return self._changed.wait_for(lambda: not self._thread, timeout)

    def _work(self) -> None:
        self._thread = threading.get_ident()
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:
                log.exception("an event could not be told")

    def _next(self) -> Callable[[], object] | None:
        """What is to be called now. None, and the thread is given up: nothing waits."""
        with self._changed:
            dropped = 0 if self._calls else self._dropped
            self._dropped -= dropped
        if dropped:  # before anybody is told that all were made
            log.warning("events that were not told, as listeners were too slow: %d", dropped)
        with self._changed:
            if self._calls:
                return self._calls.popleft()
            self._thread = 0
            self._changed.notify_all()
            return None
