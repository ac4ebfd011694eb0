"""`Ports` on an event loop."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import lru_cache, partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar

from mqkit.contexts import inside
from mqkit.daemons import Daemons
from mqkit.durations import bounded
from mqkit.exits import called, contained, typed
from mqkit.ports import HandlerTimeout

T = TypeVar("T")

HANDLING: ContextVar[bool] = ContextVar("mqkit-handling", default=False)
"""Set in the context of a handler and its middleware, and so of each task that they start."""


class AsyncSignal:
    """`Signal` on an event loop."""

    __slots__ = ("_loop", "_up", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._up = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """As Signal.set."""
        self._up = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout: float | None = None) -> bool:
        """As Signal.wait."""
        if not self._up:
            self._waiter = self._loop.create_future()
            timer = None if timeout is None else self._loop.call_later(timeout, self._expire, self._waiter)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        up, self._up = self._up, False
        return up

    @staticmethod
    def _expire(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)


class AsyncPromise:
    """`Promise` on an event loop."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    def resolve(self, error: Exception | None) -> None:
        """As Promise.resolve."""
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
            self._future.exception()  # read: a caller that was cancelled leaves nothing to complain about

    async def result(self) -> None:
        """As Promise.result."""
        await self._future


class AsyncJob:
    """`Job` on an event loop."""

    def __init__(self, task: "asyncio.Future[Any]") -> None:
        self._task = task

    async def join(self) -> None:
        """As Job.join."""
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise

    async def over(self, timeout: float) -> bool:
        """As Job.over."""
        if not self._task.done():
            await asyncio.wait((self._task,), timeout=timeout)
        return self._task.done()

    def cancel(self) -> None:
        """As Job.cancel."""
        self._task.cancel()


class AsyncPorts:
    """`Ports` on the running event loop. Plain functions run in threads."""

    cancelled: type[BaseException] = asyncio.CancelledError

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._daemons = Daemons("mqkit-handler")
        self._tasks = HandlersTasks.on(self.loop)
        self.on_death: Callable[[str, Exception], None] = lambda _name, _error: None
        self.monotonic = time.monotonic
        self.now = time.time
        self.draw = random.random

    def require_home(self) -> None:
        """As Ports.require_home."""
        with suppress(RuntimeError):  # there is no loop here at all
            if asyncio.get_running_loop() is self.loop:
                return
        raise RuntimeError(
            "this AsyncApp belongs to the event loop on which it was opened, and this is not there: await its methods "
            "on that loop; in a plain handler, or in another thread, use app.from_thread.publish(...), or "
            "let the handler return the payload and subscribe it with publish="
        )

    def from_elsewhere(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine of `work` returns or raises on the loop, for a thread of plain code, which waits for it.

        Raises:
            RuntimeError: an event loop runs in this thread: it would be blocked, and this one would wait for itself.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work(), self.loop).result()
        raise RuntimeError(
            "this would block an event loop: from_thread is for plain code; here, await the app's methods"
        )

    def signal(self) -> AsyncSignal:
        """As Ports.signal."""
        return AsyncSignal(self.loop)

    def promise(self) -> AsyncPromise:
        """As Ports.promise."""
        return AsyncPromise(self.loop)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> AsyncJob:
        """As Ports.spawn."""
        task = self.loop.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return AsyncJob(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.on_death(task.get_name(), error)

    def context(self) -> Context:
        """As Ports.context."""
        context = copy_context()
        context.run(HANDLING.set, True)  # noqa: FBT003 - the value
        return context

    def apart(self, work: Coroutine[Any, Any, T], context: Context) -> Awaitable[T]:
        """As Ports.apart."""
        return inside(context.copy(), work)

    def post(self, call: Callable[[], object]) -> None:
        """As Ports.post."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(call)

    def announce(self, call: Callable[[], object]) -> None:
        """As Ports.announce: here and now."""
        call()

    async def announced(self, timeout: float) -> None:
        """As Ports.announced: they have."""

    def later(self, delay: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        """As Ports.later."""
        return self.loop.call_later(bounded(delay), call)

    async def call(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        """As Ports.call."""
        try:
            if not _is_async(function):
                return await self._in_thread(function, args, timeout)
            if timeout is None:
                return await function(*args)
            return await _limited(function(*args), timeout)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # nobody asked for it: something inside was cancelled
                raise RuntimeError("the handler was cancelled from inside") from error
            raise
        except Exception:
            raise
        except BaseException as error:
            if self.ends_all(error):
                raise
            raise contained(error) from error

    async def _in_thread(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        started = self.monotonic()
        future: asyncio.Future[Any] = self.loop.create_future()
        future.add_done_callback(_seen)
        context = copy_context()  # not this one itself: the function may outlive its time-out
        self._daemons.start(partial(answer, future, lambda: context.run(called, function, args)))
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                result = await asyncio.shield(future)
        except TimeoutError as error:
            if timeout is not None and limit.expired():
                raise HandlerTimeout(timeout, AsyncJob(future)) from error
            raise
        if not isawaitable(result):
            return result
        # an async function behind a plain decorator, or an object with an async __call__
        return await _limited(result, timeout, self.monotonic() - started)

    def ends_all(self, error: BaseException) -> bool:
        """As Ports.ends_all."""
        return _ends_all(error)

    def close(self) -> None:
        """As Ports.close; tasks are made as before."""
        self._tasks.release()
        self._daemons.close()


class HandlersTasks:
    """A loop's task factory, as long as an app is open there: what ends a task that a handler started ends only that.

    asyncio lets SystemExit and KeyboardInterrupt pass out of a task through the loop, and so ends all that runs there;
    GeneratorExit closes the coroutine that waits for the task.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._before = loop.get_task_factory()
        self._users = 0

    @classmethod
    def on(cls, loop: asyncio.AbstractEventLoop) -> "HandlersTasks":
        """The one of `loop`, for one more user."""
        found: object = loop.get_task_factory()
        if not isinstance(found, cls):
            found = cls(loop)
            loop.set_task_factory(found)
        found._users += 1
        return found

    def release(self) -> None:
        """One user less; the last one leaves the loop as it was, unless somebody else set a factory meanwhile."""
        self._users -= 1
        now: object = self._loop.get_task_factory()
        if not self._users and now is self:
            self._loop.set_task_factory(self._before)

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Generator[Any, None, T] | Coroutine[Any, Any, T], /, **options: Any
    ) -> "asyncio.Future[T]":
        """As `loop.create_task` calls it."""
        if HANDLING.get() and isinstance(work, Coroutine):
            work = _alone(work)
        return asyncio.Task(work, loop=loop, **options) if self._before is None else self._before(loop, work, **options)


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises, but that it does not end more than its task."""
    try:
        return await work
    except Exception:
        raise
    except BaseException as error:
        if _ends_all(error):
            raise
        raise contained(error) from error


def _ends_all(error: BaseException) -> bool:
    if isinstance(error, GeneratorExit):  # raised within a task, or by closing what no loop will run any more
        try:
            return asyncio.current_task() is None
        except RuntimeError:
            return True
    return isinstance(error, asyncio.CancelledError) or typed(error)


@lru_cache(1024)
def _looked_at(function: Callable[..., Any]) -> bool:
    return iscoroutinefunction(function)


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` makes a coroutine; asked for each message, and so remembered."""
    try:
        return _looked_at(function)
    except TypeError:  # an object that cannot be hashed
        return iscoroutinefunction(function)


async def _limited(result: Awaitable[Any], timeout: float | None, spent: float = 0.0) -> Any:
    limit = asyncio.timeout(None if timeout is None else timeout - spent)
    try:
        async with limit:
            return await result
    except TimeoutError as error:
        if timeout is not None and limit.expired():
            raise HandlerTimeout(timeout) from error
        raise


def answer(future: "asyncio.Future[Any]", call: Callable[[], Any]) -> None:
    """Make `call` in this thread, and give what it returns or raises to `future`, on the future's own loop."""
    try:
        finish = partial(_resolve, future, call(), None)
    except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
        finish = partial(_resolve, future, None, error)
    with suppress(RuntimeError):  # the loop is closed: nobody awaits it
        future.get_loop().call_soon_threadsafe(finish)


def _resolve(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # no future takes it
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)


def _seen(future: "asyncio.Future[Any]") -> None:
    """Its error was looked at, whoever still waits for it."""
    if not future.cancelled():
        future.exception()
