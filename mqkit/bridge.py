"""The only file that knows about sync and async: orchestration is written once and gets its waiting from here.

`AsyncPorts` fulfils `ports.py` on an event loop. `ThreadedBackend` makes a `Backend` of a blocking one: each session
lives on a thread of its own, with one hop for a batch and none for a message.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from mqkit.backend import (
    Backend,
    BlockingBackend,
    BlockingReceiver,
    BlockingSender,
    Counts,
    Notify,
    Receiver,
    Sender,
    Settlements,
    Subscription,
)
from mqkit.errors import ClosedError
from mqkit.message import Delivery, Outgoing
from mqkit.topology import Finding, Topology

P = ParamSpec("P")
R = TypeVar("R")


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

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    async def join(self) -> None:
        """As Job.join."""
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise

    def cancel(self) -> None:
        """As Job.cancel."""
        self._task.cancel()


class AsyncPorts:
    """`Ports` on the running event loop. Plain functions run in threads, at most `threads` at once."""

    def __init__(self, threads: int = 32) -> None:
        self.loop = asyncio.get_running_loop()
        self._executor: ThreadPoolExecutor | None = None
        self._threads = threads
        self._undo: list[Callable[[], object]] = []
        self.monotonic = time.monotonic
        self.now = time.time
        self.draw = random.random

    def signal(self) -> AsyncSignal:
        """As Ports.signal."""
        return AsyncSignal(self.loop)

    def promise(self) -> AsyncPromise:
        """As Ports.promise."""
        return AsyncPromise(self.loop)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> AsyncJob:
        """As Ports.spawn."""
        return AsyncJob(self.loop.create_task(work, name=name))

    def post(self, call: Callable[[], object]) -> None:
        """As Ports.post."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(call)

    async def call(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        """As Ports.call. A plain function that takes too long goes on in its thread: no thread can be killed."""
        try:
            if timeout is None and iscoroutinefunction(function):
                return await function(*args)
            return await self._limited(function, args, timeout)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # nobody asked for it: something inside was cancelled
                raise RuntimeError("the handler was cancelled from inside") from error
            raise

    async def _limited(self, function: Callable[..., Any], args: Sequence[Any], timeout: float | None) -> Any:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                if iscoroutinefunction(function):
                    return await function(*args)
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(self._threads, "mqkit-handler")
                result = await self.loop.run_in_executor(self._executor, partial(function, *args))
                # an async function behind a plain decorator, or an object with an async __call__
                return await result if isawaitable(result) else result
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"the handler took longer than {timeout:g} s") from error
            raise

    @contextmanager
    def ending(self, stop: Callable[[], None]) -> Generator[None]:
        """Call `stop` at the first SIGINT or SIGTERM inside this context; the second ends the process at once."""
        caught = 0

        def catch(number: int) -> None:
            nonlocal caught
            caught += 1
            if caught > 1:
                os._exit(128 + number)
            stop()

        numbers = (signal.SIGINT, signal.SIGTERM)
        here = threading.current_thread() is threading.main_thread()
        for number in numbers if here else ():
            self.loop.add_signal_handler(number, catch, number)
        try:
            yield
        finally:
            self._undo = [partial(self.loop.remove_signal_handler, number) for number in numbers if here]

    def close(self) -> None:
        """Let the threads go, and signals do what they did before."""
        for undo in self._undo:
            undo()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class _Thread:
    """One thread that owns one session of a driver that blocks."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name)
        self._loop = asyncio.get_running_loop()
        self._ended = False

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._ended:
            raise ClosedError("this session is closed")
        return await self._loop.run_in_executor(self._executor, partial(call, *args, **kwargs))

    async def end(self, close: Callable[[], None] | None = None) -> None:
        """Run `close`, and let the thread go; nothing the second time."""
        if self._ended:
            return
        try:
            if close is not None:
                await self.run(close)
        finally:
            self._ended = True
            self._executor.shutdown(wait=False)


class ThreadedSender:
    """A blocking sender on its thread."""

    def __init__(self, thread: _Thread, sender: BlockingSender) -> None:
        self._thread = thread
        self._sender = sender

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        await self._thread.run(self._sender.send, batch, timeout)

    async def close(self) -> None:
        """As Sender.close."""
        await self._thread.end(self._sender.close)


class ThreadedReceiver:
    """A blocking receiver on its thread."""

    def __init__(self, thread: _Thread, receiver: BlockingReceiver) -> None:
        self._thread = thread
        self._receiver = receiver

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        return await self._thread.run(self._receiver.receive, limit, timeout)

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        await self._thread.run(self._receiver.settle, settlements)

    def wake(self) -> None:
        """As Receiver.wake."""
        self._receiver.wake()

    async def close(self) -> None:
        """As Receiver.close."""
        self._receiver.wake()
        await self._thread.end(self._receiver.close)


class ThreadedBackend:
    """A blocking backend for an event loop."""

    def __init__(self, backend: BlockingBackend) -> None:
        self._backend = backend
        self.capabilities = backend.capabilities

    async def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return await asyncio.to_thread(self._backend.connect, timeout)

    async def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        await asyncio.to_thread(self._backend.declare, topology)

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return await asyncio.to_thread(self._backend.examine, topology)

    async def open_sender(self) -> Sender:
        """As Backend.open_sender."""
        thread = _Thread("mqkit-sender")
        try:
            return ThreadedSender(thread, await thread.run(self._backend.open_sender))
        except BaseException:
            await thread.end()
            raise

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> Receiver:
        """As Backend.open_receiver."""
        thread = _Thread(f"mqkit-{subscription.topic}.{subscription.group}")
        try:
            return ThreadedReceiver(thread, await thread.run(self._backend.open_receiver, subscription, notify))
        except BaseException:
            await thread.end()
            raise

    async def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        return await asyncio.to_thread(self._backend.inspect, topic, group)

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        return await asyncio.to_thread(self._backend.groups, topic)

    async def close(self) -> None:
        """As Backend.close."""
        await asyncio.to_thread(self._backend.close)


def for_event_loop(colour: str, backend: Backend | BlockingBackend) -> Backend:
    """`backend` as an event loop can use it, whatever colour it has."""
    return cast("Backend", backend) if colour == "asynchronous" else ThreadedBackend(cast("BlockingBackend", backend))
