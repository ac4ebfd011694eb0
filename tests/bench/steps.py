"""Counts what mqkit's own code does: the lines that it executes and the calls that it makes, in all threads.

Seconds depend on the machine and on what else it does; these counts do not. What happens inside of a call that leaves
mqkit (pydantic, a driver, asyncio) counts as one step, so neither their releases nor the broker's pace move a figure.
"""

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import mqkit

PACKAGE = str(Path(mqkit.__file__).parent)


class Steps:
    """How many steps there were so far."""

    def __init__(self) -> None:
        self._ticks = count()  # its `next` is one operation, so that threads need no lock
        self._looks = 0
        self._ours: dict[CodeType, bool] = {}

    def taken(self) -> int:
        """Lines executed and calls made since counting began."""
        self._looks += 1
        return next(self._ticks) - self._looks + 1

    def is_ours(self, code: CodeType) -> bool:
        """Whether `code` stands in mqkit."""
        known = self._ours.get(code)
        if known is None:
            known = self._ours[code] = code.co_filename.startswith(PACKAGE)
        return known

    def on_entry(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        """A Python function is entered or resumed: a step, if mqkit's code did that or is what is entered."""
        caller = frame.f_back
        if caller is not None and self.is_ours(caller.f_code):
            next(self._ticks)
        return self.on_line if self.is_ours(frame.f_code) else None

    def on_line(self, _frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        """A line of mqkit begins."""
        if event == "line":
            next(self._ticks)
        return self.on_line

    def on_profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        """A function written in C is called."""
        if event == "c_call" and self.is_ours(frame.f_code):
            next(self._ticks)


@contextmanager
def counting() -> Generator[Steps]:
    """Count in this thread, from the next function that it enters, and in those that are started inside."""
    steps = Steps()
    for module in (sys, threading):
        module.settrace(steps.on_entry)
        module.setprofile(steps.on_profile)
    try:
        yield steps
    finally:
        for module in (sys, threading):
            module.settrace(None)
            module.setprofile(None)
