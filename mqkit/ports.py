"""All that orchestration needs of the world: time, chance, waiting, and running a user's function.

The pump, the producer and the handlers are written once against these; `bridge.py` fulfils them on an event loop.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol


class Signal(Protocol):
    """A flag that one waiter waits for. It stays up until the waiter has seen it."""

    def set(self) -> None:
        """Raise it; from the loop's own thread."""
        ...

    async def wait(self, timeout: float | None = None) -> bool:
        """True when it was raised, False after `timeout` seconds; it is down again afterwards."""
        ...


class Promise(Protocol):
    """A result that is not there yet."""

    def resolve(self, error: Exception | None) -> None:
        """Ready: fine, or failed. Later calls change nothing."""
        ...

    async def result(self) -> None:
        """Return when it is fine; raise what it failed with."""
        ...


class Job(Protocol):
    """Something that was spawned."""

    async def join(self) -> None:
        """Wait for its end; raises what it raised."""
        ...

    def cancel(self) -> None:
        """Make it stop where it waits."""
        ...


async def joined(jobs: Sequence[Job]) -> None:
    """Wait for the end of all of them, whatever becomes of one; then raise what the first that failed raised."""
    first: Exception | None = None
    for job in jobs:
        try:
            await job.join()
        except Exception as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first


class Ports(Protocol):
    """What orchestration needs of the world."""

    def signal(self) -> Signal:
        """A new flag, down."""
        ...

    def promise(self) -> Promise:
        """A new promise."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Job:
        """Run `work` beside the caller."""
        ...

    def post(self, call: Callable[[], object]) -> None:
        """Run `call` soon on the thread that owns the app; from any thread; nothing if that has ended."""
        ...

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def draw(self) -> float:
        """A random number from 0 to 1."""
        ...

    async def call(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        """What the user's function returns or raises; TimeoutError if it takes more than `timeout` seconds."""
        ...
