"""Tells when a handler blocks the event loop, and which: while it does, nothing else runs there, and no word goes out.

A thread asks the loop for a sign of life now and then; where none comes it looks at what the loop's thread is doing.
"""

import logging
import sys
import threading
from asyncio import AbstractEventLoop
from collections.abc import Sequence
from time import monotonic
from types import FrameType
from typing import Final

log = logging.getLogger("mqkit")

EVERY: Final = 1.0
"""Seconds between two questions."""
BLOCKED: Final = 2.0
"""Seconds without an answer after which the loop counts as blocked."""
OWN: Final = ("mqkit", "asyncio", "contextlib", "concurrent", "uvloop")
"""Whose frames lead to a handler."""


def culprit(frames: Sequence[FrameType]) -> str:
    """Who is to blame, for people, of a thread's frames, the innermost first: who was called, and where it is now."""
    inner: list[FrameType] = []
    for frame in frames:
        if str(frame.f_globals.get("__name__")).startswith(("mqkit.", "asyncio.events")):
            break  # what stands outside of it has called the handler, or started the loop
        inner.append(frame)
    theirs = [frame for frame in inner if str(frame.f_globals.get("__name__")).partition(".")[0] not in OWN]
    if not theirs:
        return "something in mqkit or asyncio itself"
    called, now = theirs[-1], theirs[0]
    name = f"{called.f_globals.get('__name__')}.{called.f_code.co_qualname}"
    return f"{name}, at {now.f_code.co_filename}:{now.f_lineno}"


class LoopWatch:
    """Watches the running event loop from a thread of its own, until it is told to stop."""

    def __init__(self, loop: AbstractEventLoop, *, every: float = EVERY, blocked: float = BLOCKED) -> None:
        self._loop = loop
        self._every = every
        self._blocked = blocked
        self._thread = threading.get_ident()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="mqkit-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer; from any thread."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._every):
            answered = threading.Event()
            asked = monotonic()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed
                return
            # the second wait is for a process that stood still as a whole: its loop answers when it goes on
            if answered.wait(self._blocked) or answered.wait(self._blocked / 10) or self._stopped.is_set():
                continue
            who = self._culprit()
            log.warning(
                "the event loop has been blocked for %.1f s by %s: meanwhile nothing else runs, and brokers may give "
                "this process up; await instead, or write the handler with def, and it runs in a thread",
                monotonic() - asked, who,
            )  # fmt: skip
            while not answered.wait(self._every):
                if self._stopped.is_set():
                    return
            log.warning("the event loop goes on; it was blocked for %.1f s by %s", monotonic() - asked, who)

    def _culprit(self) -> str:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the only way to another thread's
        frames: list[FrameType] = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return culprit(frames)
