"""SIGINT and SIGTERM, shared by all that runs in this process: the first asks each to stop, the second ends it at once.

Python lets only the main thread say what a signal does, and an event loop need not be able to: so it is said here, by
`signal.signal`, once for all, from the first that runs in the main thread to the last. Then signals do what they did.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)


class _Caught:
    """What this process knows of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stops: list[Callable[[], None]] = []
        self.in_main_thread = 0
        """How many of these belong to it."""
        self.before: dict[int, Any] = {}
        """What signals did before; empty while they do that."""
        self.number = 0
        """Signals that came since."""


_caught = _Caught()


@contextmanager
def stopping(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` at the first SIGINT or SIGTERM inside of this context; the second ends the process at once.

    Contexts may overlap in any order, in any threads: the first signal is for all of them, also for one that is entered
    after it came. One in another than the main thread hears of signals while there is one in the main thread, too.

    Args:
        stop: runs in the main thread, between any two of its steps: it may take no lock.
    """
    here = threading.current_thread() is threading.main_thread()
    with _caught.lock:
        _caught.stops.append(stop)
        if here:
            _caught.in_main_thread += 1
    try:
        if here and not _caught.before:
            _caught.number = 0
            _caught.before = {number: signal.getsignal(number) for number in NUMBERS}
            for number in NUMBERS:
                signal.signal(number, _catch)
        if _caught.number:
            stop()
        yield
    finally:
        with _caught.lock:
            if stop in _caught.stops:  # not in a child process
                _caught.stops.remove(stop)
                _caught.in_main_thread -= here
        if here and not _caught.in_main_thread:
            _restore()


def _catch(number: int, _frame: FrameType | None) -> None:
    _caught.number += 1
    if _caught.number > 1:
        os._exit(128 + number)
    for stop in tuple(_caught.stops):
        stop()


def _restore() -> None:
    """Let signals do what they did before, unless somebody said otherwise meanwhile."""
    before, _caught.before = _caught.before, {}
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is _catch:
            signal.signal(number, handler)
    _caught.number = 0


def _forked() -> None:
    """This is a child process: whatever is to be stopped belongs to the parent."""
    global _caught  # its lock may be held by a thread that is not here
    inherited, _caught = _caught, _Caught()
    _caught.before = inherited.before
    if threading.current_thread() is threading.main_thread():
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
