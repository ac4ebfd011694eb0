"""Events on their way to listeners, in plain code: one after the other, in a thread where they may use the app."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from mqkit.daemons import Daemons

log = logging.getLogger("mqkit")


class Announcements:
    """Calls that are made in their order, one at a time, beside whoever asks for them.

    Args:
        daemons: where the thread comes from; it is there while there is something to call.
    """

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._calls: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._thread = 0
        """Which thread calls; -1 if it is just beginning."""

    def __len__(self) -> int:
        """How many wait."""
        return len(self._calls)

    def put(self, call: Callable[[], object]) -> None:
        """Call it soon, after those before it; never blocks. What it raises is logged."""
        with self._changed:
            self._calls.append(call)
            if self._thread:
                return
            self._thread = -1
        self._daemons.start(self._work)

    def wait(self, timeout: float) -> bool:
        """Whether all were made within `timeout` seconds; at once for one of them that asks."""
        with self._changed:
            if self._thread == threading.get_ident():
                return False
            return self._changed.wait_for(lambda: not self._thread, timeout)

    def _work(self) -> None:
        self._thread = threading.get_ident()
        while True:
            with self._changed:
                if not self._calls:
                    self._thread = 0
                    self._changed.notify_all()
                    return
                call = self._calls.popleft()
            try:
                call()
            except Exception:
                log.exception("an event could not be told")
