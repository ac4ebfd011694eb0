"""Waiting for a fact, with a deadline: the only way in which these tests wait."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from mqkit.backend import Notes, Receiver

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that a fact may take on a slow machine. A test that passes hardly ever waits so long."""
LOOK: Final = 0.01
"""Seconds between two looks."""


async def noted(receiver: Receiver, notes: Notes) -> None:
    """Return when these notes are safe; raises as Receiver.note, and what Receiver.receive raises."""
    while await receiver.note(notes):
        await receiver.receive(0, 1.0)


def eventually(
    condition: Callable[[], T | None],
    what: str,
    *,
    timeout: float = PATIENCE,
    every: float = LOOK,
    shown: Callable[[], object] = lambda: "",
) -> T:
    """What `condition` gives as soon as that is true.

    Args:
        what: the fact that is waited for, as it stands in the failure.
        every: seconds between two looks; more where a look is expensive.
        shown: what to show beside it when it does not come true.

    Raises:
        AssertionError: it was not true within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        found = condition()
        if found:
            return found
        if late:
            raise AssertionError(f"not within {timeout:g} s: {what}; {shown()}")
        time.sleep(every)
