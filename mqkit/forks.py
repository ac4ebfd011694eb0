"""What becomes of apps when their process forks: nobody is amid a step then, and the child connects anew."""

import os
from typing import Final, Protocol
from weakref import WeakSet

from mqkit.monitor import Monitor


class Forkable(Protocol):
    """An app in plain code."""

    def _monitor(self) -> Monitor | None:
        """What its orchestration holds in a step, while it is open."""
        ...

    def _forked(self) -> None:
        """This is a child process: all that was open belongs to the parent, and its threads are not here."""
        ...


APPS: WeakSet[Forkable] = WeakSet()
INHERITED: list[object] = []
"""What child processes hold of their parents' connections: kept, since letting go would speak to the broker."""
STANDSTILL: Final = 1.0
"""Seconds that a fork waits for the orchestration of an app to pause."""
PAUSED: list[Monitor] = []


def _before_fork() -> None:
    """Let nobody be in the middle of a step: a child would wait for ever for a lock that pydantic held just then."""
    for app in tuple(APPS):
        monitor = app._monitor()  # noqa: SLF001 - it is for here
        if monitor is not None and monitor.take(STANDSTILL):
            PAUSED.append(monitor)


def _go_on() -> None:
    while PAUSED:
        PAUSED.pop().__exit__(None, None, None)


def _forked() -> None:
    _go_on()
    for app in tuple(APPS):
        app._forked()  # noqa: SLF001 - it is for here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_go_on, after_in_child=_forked)
