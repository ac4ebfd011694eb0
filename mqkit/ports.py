"""All that orchestration needs of the world: time, chance, waiting, and running a user's function.

The pump, the producer and the handlers are written once against these; `event_loop.py` and `threads.py` fulfil them.
Between two awaits nothing else of the same app's orchestration runs: on an event loop by its nature, in threads by a
lock that every wait lets go of.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Signal(Protocol):
    """A flag that one waiter waits for. It stays up until the waiter has seen it."""

    def set(self) -> None:
        """Raise it; from within the orchestration (`Ports.post` leads there)."""
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
    """Something that runs beside."""

    async def join(self) -> None:
        """Wait for its end, or until it was cancelled; raises what it raised."""
        ...

    async def over(self, timeout: float) -> bool:
        """Whether it ended, or was cancelled, within `timeout` seconds; raises nothing of its own."""
        ...

    def cancel(self) -> None:
        """Make it stop where it waits, or at its next wait: `Ports.cancelled` is raised there."""
        ...


class Timer(Protocol):
    """A call that was put off."""

    def cancel(self) -> None:
        """Leave it."""
        ...


class HandlerTimeout(TimeoutError):
    """The user's function took too long.

    Args:
        still: where it runs on, if it could not be stopped: no thread can be killed.
    """

    def __init__(self, timeout: float, still: Job | None = None) -> None:
        super().__init__(f"the handler took longer than {timeout:g} s")
        self.still = still


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


async def finished(ports: "Ports", work: Coroutine[Any, Any, None], name: str, timeout: float) -> bool:
    """Whether `work` ended within `timeout` seconds; else it is cancelled and left. Raises what it raised."""
    wrong: list[Exception] = []

    async def told() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised below
            wrong.append(error)

    job = ports.spawn(told(), name)
    ended = False
    try:
        ended = await job.over(timeout)
    finally:
        if not ended:
            job.cancel()
    if wrong:
        raise wrong[0]
    return ended


class Ports(Protocol):
    """What orchestration needs of the world."""

    cancelled: type[BaseException]
    """What a job that was cancelled meets where it waits."""
    on_death: Callable[[str, Exception], None]
    """Called with the name of a job that ended with an error, which none of them does on purpose."""

    def require_home(self) -> None:
        """Raise RuntimeError, with what to do, if whoever calls is not where these ports are at home."""
        ...

    def signal(self) -> Signal:
        """A new flag, down."""
        ...

    def promise(self) -> Promise:
        """A new promise."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Job:
        """Run `work` beside the caller."""
        ...

    def context(self) -> Context:
        """A context like this one, for `apart`: that of the handlers."""
        ...

    def apart(self, work: Coroutine[Any, Any, T], context: Context) -> Awaitable[T]:
        """What `work` returns or raises, run in a copy of `context`.

        It shares nothing that changes, so all else may go on beside it.
        """
        ...

    def post(self, call: Callable[[], object]) -> None:
        """Run `call` soon within the orchestration, after those posted before; from any thread.

        Never blocks. What it raises is logged. Nothing happens if the app has ended.
        """
        ...

    def announce(self, call: Callable[[], object]) -> None:
        """Run `call`, of the user, soon, after those announced before, and where it may use the app; never blocks."""
        ...

    async def announced(self, timeout: float) -> None:
        """Wait until all that was announced has run, at most `timeout` seconds."""
        ...

    def later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Run `call` within the orchestration after `delay` seconds; what it raises is logged."""
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
        """What the user's function returns or raises. It runs in the caller's context, or in a copy of that.

        Raises:
            HandlerTimeout: it takes more than `timeout` seconds.
            HandlerExit: it raised what would have ended more than itself.
        """
        ...

    def ends_all(self, error: BaseException) -> bool:
        """Whether `error`, which is no Exception, is meant for more than the function that it came out of: the job was
        cancelled, its coroutine is being closed, somebody pressed Ctrl-C.
        """
        ...

    def close(self) -> None:
        """Let go of what these hold; running jobs were joined before."""
        ...
