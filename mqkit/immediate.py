"""What is written once as `async def`, without an event loop, where every await blocks instead."""

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Run(Protocol):
    """Runs what is written as `async def` for plain code."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises."""
        ...


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises. None of its awaits may suspend: what it waits for has to block its thread.

    Raises:
        RuntimeError: it did suspend, so it awaited something of an event loop.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError(f"{getattr(work, '__qualname__', work)} awaited what needs an event loop, and there is none")
