"""An event loop whose clock jumps to whatever is due next, so that minutes of patience are tested in milliseconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mqkit.event_loop import AsyncPorts

T = TypeVar("T")
START = 1_700_000_000.0


class Jumping(selectors.DefaultSelector):
    """Does not wait: puts the clock forward instead."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            then = self.elapsed + max(timeout, 0.0)
            self.elapsed = max(then, round(then, 9))  # what is due a rounding error later is run at once, for ever
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = Jumping()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.elapsed


class VirtualPorts(AsyncPorts):
    """`AsyncPorts` that tell the loop's own time. No draw: delays are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.monotonic = self.loop.time
        self.now = lambda: START + self.loop.time()
        self.draw = lambda: 0.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time; every task must have ended by itself."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def all_ended() -> T:
            result = await work
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                await asyncio.wait(left, timeout=1)
            assert not [task for task in left if not task.done()]
            return result

        return runner.run(all_ended())


async def until(fact: Callable[[], object], within: float = 60.0) -> None:
    """Return when `fact` is true; fail after `within` seconds of the loop's time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    while not fact():
        assert loop.time() < end, "did not happen"
        await asyncio.sleep(0.01)
