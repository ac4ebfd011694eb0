"""`Ports` without an event loop: jobs are threads, and one lock lets them run one at a time between two waits.

That lock is to orchestration what the event loop's one thread is: `Monitor`. Whoever waits, or calls a driver, or runs
a user's function, lets go of it. Coroutines written for the ports are run by `run_now`: their awaits block.
"""

import heapq
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from inspect import isawaitable
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

from mqkit.announcements import Announcements
from mqkit.daemons import Daemons
from mqkit.durations import bounded
from mqkit.exits import called
from mqkit.immediate import run_now
from mqkit.monitor import Monitor, held, patience, wake
from mqkit.ports import HandlerTimeout

log = logging.getLogger("mqkit")

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

    async def over(self, timeout: float) -> bool:
        """As Job.over."""
        end = self._ports.monotonic() + timeout
        while not self._ended and not self.stopped and (left := end - self._ports.monotonic()) > 0:
            waiter = held()
            self._waiters.append(waiter)
            self._ports.park(waiter, left)
        return self._ended or self.stopped

    def cancel(self) -> None:
        """As Job.cancel; also from a signal handler."""
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
        self._posted: deque[Callable[[], object]] = deque()
        self._announcements = Announcements(self._daemons)
        self.on_death: Callable[[str, Exception], None] = lambda _name, _error: None

    def run(self, work: Coroutine[Any, Any, T], job: ThreadJob | None = None) -> T:
        """What `work` returns or raises, run in this thread; as `job`, if that is given, which may be cancelled.

        Raises:
            JobCancelled: `job` was.
        """
        before = self.current()
        if job is not None:
            self._here.job = job
        try:
            with self.monitor:
                self._run_posted()
                return run_now(work)
        finally:
            self._here.job = before

    def require_home(self) -> None:
        """As Ports.require_home: any thread will do."""

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
                    waiter.acquire(timeout=-1 if timeout is None else patience(timeout))
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
            thread = threading.current_thread()
            idle_name, thread.name = thread.name, name
            error: BaseException | None = None
            try:
                self.run(work, job)
            except JobCancelled:
                pass
            except BaseException as raised:  # noqa: BLE001 - raised where it is joined
                error = raised
            finally:
                thread.name = idle_name
                with self.monitor:
                    job.ended(error)
                if isinstance(error, Exception):
                    self.on_death(name, error)

        self._daemons.start(run)
        return job

    async def outside(self, call: Callable[[], T]) -> T:
        """What `call`, of a driver, returns or raises. It is left to itself in its thread if this job is cancelled."""
        returned: list[T] = []
        raised: list[BaseException] = []
        over = held()

        def run() -> None:
            try:
                returned.append(call())
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                raised.append(error)
            over.release()

        self._daemons.start(run)
        self.park(over, None)
        if raised:
            raise raised[0]
        return returned[0]

    def context(self) -> Context:
        """As Ports.context."""
        return copy_context()

    async def apart(self, work: Coroutine[Any, Any, T], context: Context) -> T:
        """As Ports.apart. What was done there counts, also when the job was cancelled meanwhile."""
        depth = self.monitor.leave()
        try:
            return context.copy().run(run_now, work)
        finally:
            self.monitor.come_back(depth)

    def post(self, call: Callable[[], object]) -> None:
        """As Ports.post: here and now if that is possible, else by a thread that may wait."""
        self._posted.append(call)
        if self.monitor.take(0):
            try:
                self._run_posted()
            finally:
                self.monitor.__exit__(None, None, None)
        else:
            self._daemons.start(self._run_posted)

    def _run_posted(self) -> None:
        with self.monitor:
            while self._posted:
                _made(self._posted.popleft())

    def announce(self, call: Callable[[], object]) -> None:
        """As Ports.announce."""
        self._announcements.put(call)

    async def announced(self, timeout: float) -> None:
        """As Ports.announced."""
        with self.away():
            self._announcements.wait(timeout)

    def later(self, delay: float, call: Callable[[], object]) -> ThreadTimer:
        """As Ports.later."""
        timer = ThreadTimer(call)
        entry = (self.monotonic() + bounded(delay), next(self._numbers), timer)
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
                    _made(call)
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
        context = copy_context()  # not this one itself: the function may outlive its time-out
        returned: list[Any] = []
        raised: list[BaseException] = []
        ready = held()

        def run() -> None:
            try:
                returned.append(context.run(called, function, args))
            except BaseException as error:  # noqa: BLE001 - raised where the function was called
                raised.append(error)
            ready.release()
            with self.monitor:
                job.ended(None)

        self._daemons.start(run)
        if not ready.acquire(timeout=patience(timeout)):
            raise HandlerTimeout(timeout, job)
        if raised:
            raise raised[0]
        return returned[0]

    def ends_all(self, error: BaseException) -> bool:
        """As Ports.ends_all."""
        return isinstance(error, JobCancelled)

    def close(self) -> None:
        """As Ports.close."""
        with self.monitor:
            if self._clock is not None:
                self._clock.cancel()
        self._daemons.close()


def _made(call: Callable[[], object]) -> None:
    """Make a call that nobody waits for."""
    try:
        call()
    except Exception:
        log.exception("a call met an error in mqkit itself")
