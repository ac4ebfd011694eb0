"""`Ports` without an event loop: jobs are threads, and one lock lets them run one at a time between two waits.

That lock is to orchestration what the event loop's one thread is: `Monitor`. Whoever waits, or calls a driver, or runs
a user's function, lets go of it. Coroutines written for the ports are run by `run_now`: their awaits block.
"""

import heapq
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from inspect import isawaitable
from itertools import count
from types import FrameType, TracebackType
from typing import Any, TypeVar

from mqkit.daemons import Daemons
from mqkit.exits import called
from mqkit.immediate import run_now
from mqkit.monitor import Monitor
from mqkit.ports import HandlerTimeout

T = TypeVar("T")


class JobCancelled(BaseException):
    """Raised in a job that was cancelled, where it waits."""


class Away:
    """A context in which this thread blocks, outside of the monitor. Left with JobCancelled if its job was."""

    __slots__ = ("_depth", "_ports")

    def __init__(self, ports: "ThreadPorts") -> None:
        self._ports = ports
        self._depth = 0

    def __enter__(self) -> None:
        self._depth = self._ports.monitor.leave()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ports.monitor.come_back(self._depth)
        job = self._ports.current()
        if kind is None and job is not None and job.stopped:
            raise JobCancelled


class ThreadSignal:
    """`Signal` between threads."""

    __slots__ = ("_ports", "_up", "_waiter")

    def __init__(self, ports: "ThreadPorts") -> None:
        self._ports = ports
        self._up = False
        self._waiter: threading.Lock | None = None

    def set(self) -> None:
        """As Signal.set; from any thread."""
        with self._ports.monitor:
            self._up = True
            if self._waiter is not None:
                wake(self._waiter)
                self._waiter = None

    async def wait(self, timeout: float | None = None) -> bool:
        """As Signal.wait."""
        if not self._up:
            self._waiter = held()
            try:
                self._ports.park(self._waiter, timeout)
            finally:
                self._waiter = None
        up, self._up = self._up, False
        return up


class ThreadPromise:
    """`Promise` between threads."""

    __slots__ = ("_error", "_ports", "_resolved", "_waiters")

    def __init__(self, ports: "ThreadPorts") -> None:
        self._ports = ports
        self._error: Exception | None = None
        self._resolved = False
        self._waiters: list[threading.Lock] = []

    def resolve(self, error: Exception | None) -> None:
        """As Promise.resolve."""
        if not self._resolved:
            self._resolved, self._error = True, error
            for waiter in self._waiters:
                wake(waiter)
            self._waiters.clear()

    async def result(self) -> None:
        """As Promise.result."""
        while not self._resolved:
            waiter = held()
            self._waiters.append(waiter)
            self._ports.park(waiter, None)
        if self._error is not None:
            raise self._error


class ThreadJob:
    """`Job` in a thread."""

    def __init__(self, ports: "ThreadPorts") -> None:
        self._ports = ports
        self.error: BaseException | None = None
        self._ended = False
        self.stopped = False
        self.parked: threading.Lock | None = None
        """What its thread waits for."""
        self._waiters: list[threading.Lock] = []

    async def join(self) -> None:
        """As Job.join. A thread in a driver or a user's function is not waited for once it is cancelled."""
        while not self._ended and not self.stopped:
            waiter = held()
            self._waiters.append(waiter)
            self._ports.park(waiter, None)
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        """As Job.cancel."""
        self.stopped = True
        if self.parked is not None:
            wake(self.parked)
            self.parked = None
        self._wake()

    def ended(self, error: BaseException | None) -> None:
        """It is over."""
        self._ended, self.error = True, error
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            wake(waiter)


class ThreadTimer:
    """`Timer` of one call."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """As Timer.cancel."""
        self.call = None


class ThreadPorts:
    """`Ports` in threads, that are made as they are needed."""

    cancelled: type[BaseException] = JobCancelled

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.monotonic = time.monotonic
        self.now = time.time
        self.draw = random.random
        self._daemons = Daemons("mqkit")
        self._here = threading.local()
        self._timers: list[tuple[float, int, ThreadTimer]] = []
        self._numbers = count()
        self._sooner = self.signal()
        self._clock: ThreadJob | None = None
        self._undo: list[Callable[[], object]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises, run in this thread."""
        with self.monitor:
            return run_now(work)

    def away(self) -> Away:
        """A context for what blocks: the orchestration goes on meanwhile."""
        return Away(self)

    def current(self) -> ThreadJob | None:
        """The job that this thread works at."""
        return getattr(self._here, "job", None)

    def park(self, waiter: threading.Lock, timeout: float | None) -> None:
        """Wait until `waiter` is released, or the time is over. Raises JobCancelled."""
        job = self.current()
        with self.away():
            if job is not None:
                job.parked = waiter
            try:
                if job is None or not job.stopped:
                    waiter.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
            finally:
                if job is not None:
                    job.parked = None

    def signal(self) -> ThreadSignal:
        """As Ports.signal."""
        return ThreadSignal(self)

    def promise(self) -> ThreadPromise:
        """As Ports.promise."""
        return ThreadPromise(self)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> ThreadJob:
        """As Ports.spawn."""
        job = ThreadJob(self)

        def run() -> None:
            self._here.job = job
            thread = threading.current_thread()
            idle_name, thread.name = thread.name, name
            error: BaseException | None = None
            try:
                self.run(work)
            except JobCancelled:
                pass
            except BaseException as raised:  # noqa: BLE001 - raised where it is joined
                error = raised
            finally:
                self._here.job = None
                thread.name = idle_name
                with self.monitor:
                    job.ended(error)

        self._daemons.start(run)
        return job

    async def apart(self, work: Coroutine[Any, Any, T]) -> T:
        """As Ports.apart. What was done there counts, also when the job was cancelled meanwhile."""
        depth = self.monitor.leave()
        try:
            return run_now(work)
        finally:
            self.monitor.come_back(depth)

    def post(self, call: Callable[[], object]) -> None:
        """As Ports.post: here and now."""
        with self.monitor:
            call()

    def later(self, delay: float, call: Callable[[], object]) -> ThreadTimer:
        """As Ports.later."""
        timer = ThreadTimer(call)
        entry = (self.monotonic() + delay, next(self._numbers), timer)
        heapq.heappush(self._timers, entry)
        if self._clock is None:
            self._clock = self.spawn(self._keep_time(), "mqkit-clock")
        elif self._timers[0] is entry:
            self._sooner.set()
        return timer

    async def _keep_time(self) -> None:
        while True:
            now = self.monotonic()
            while self._timers and self._timers[0][0] <= now:
                call = heapq.heappop(self._timers)[2].call
                if call is not None:
                    call()
            await self._sooner.wait(self._timers[0][0] - self.monotonic() if self._timers else None)

    async def call(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        """As Ports.call: in this thread, or, with a time-out, in another, which goes on when the time is over."""
        result = called(function, args, JobCancelled) if timeout is None else self._limited(function, args, timeout)
        if result is not None and isawaitable(result):
            if isinstance(result, Coroutine):
                result.close()
            raise TypeError("the handler returned an awaitable: App runs plain functions, AsyncApp runs async ones")
        return result

    def _limited(self, function: Callable[..., Any], args: Sequence[Any], timeout: float) -> Any:
        job = ThreadJob(self)
        returned: list[Any] = []
        raised: list[BaseException] = []
        ready = held()

        def run() -> None:
            try:
                returned.append(called(function, args))
            except BaseException as error:  # noqa: BLE001 - raised where the function was called
                raised.append(error)
            ready.release()
            with self.monitor:
                job.ended(None)

        self._daemons.start(run)
        if not ready.acquire(timeout=timeout):
            raise HandlerTimeout(timeout, job)
        if raised:
            raise raised[0]
        return returned[0]

    @contextmanager
    def ending(self, stop: Callable[[], None]) -> Generator[None]:
        """Call `stop` at the first SIGINT or SIGTERM inside this context; the second ends the process at once.

        `stop` runs in the main thread between any two of its steps, so it may take no lock.
        """
        caught = 0

        def catch(number: int, _frame: FrameType | None) -> None:
            nonlocal caught
            caught += 1
            if caught > 1:
                os._exit(128 + number)
            stop()

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
        self._undo = [partial(signal.signal, number, handler) for number, handler in before.items()]
        yield

    def ends_all(self, error: BaseException) -> bool:
        """As Ports.ends_all."""
        return isinstance(error, JobCancelled)

    def restore_signals(self) -> None:
        """Let signals do what they did before `ending`."""
        while self._undo:
            self._undo.pop()()

    def close(self) -> None:
        """As Ports.close; signals do what they did before."""
        self.restore_signals()
        with self.monitor:
            if self._clock is not None:
                self._clock.cancel()
        self._daemons.close()


def held() -> threading.Lock:
    """A lock that somebody else will release."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def wake(waiter: threading.Lock) -> None:
    """Release it, unless somebody else did just now: who waits may be woken by two at once."""
    with suppress(RuntimeError):
        waiter.release()
