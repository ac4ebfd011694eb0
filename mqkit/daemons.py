"""Threads that are used again, and that no process waits for at its end: a user's function may hang for ever."""

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

log = logging.getLogger("mqkit")

IDLE: Final = 10.0
"""Seconds that a thread waits for another call before it ends."""


class Daemons:
    """As many threads as there are calls at once; whoever calls bounds that.

    Args:
        name: of the threads, before a number.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Callable[[], object] | None]] = []
        self._made = 0
        self._closed = False

    def start(self, call: Callable[[], object]) -> None:
        """Run `call` in a thread, now."""
        with self._lock:
            if self._idle:
                self._idle.pop().put(call)
                return
            self._made += 1
            number = self._made
        threading.Thread(target=self._work, args=(call,), name=f"{self._name}-{number}", daemon=True).start()

    def close(self) -> None:
        """Let the idle ones end now, and the others after their calls."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for calls in idle:
            calls.put(None)

    def _work(self, call: Callable[[], object] | None) -> None:
        calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        while call is not None:
            try:
                call()
            except BaseException:
                log.exception("a thread met an error in mqkit itself")
            call = None
            with self._lock:
                if self._closed:
                    return
                self._idle.append(calls)
            try:
                call = calls.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if calls in self._idle:
                        self._idle.remove(calls)
                        return
                call = calls.get()  # it was given just now
