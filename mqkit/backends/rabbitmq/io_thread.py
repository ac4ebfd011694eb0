"""The one thread that owns the connections of a blocking backend: what is written for an event loop runs there.

A call costs one hop, whatever it carries. Heartbeats go on whatever the threads that call are doing. A process that was
forked has none of these threads: there, calls are refused, and nothing is touched that it shares with its parent.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar

from mqkit.errors import ClosedError

P = ParamSpec("P")
R = TypeVar("R")

NAME = "mqkit-rabbitmq-io"
CLOSED = "this backend was closed"


class _Call(Generic[R]):
    """A coroutine on its way: a lock and a task, where `run_coroutine_threadsafe` has two futures and a chain."""

    __slots__ = ("_ended", "_task", "_work")

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._work = work
        self._task: asyncio.Task[R] | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def start(self) -> None:
        """On the thread of the loop."""
        self._task = asyncio.get_running_loop().create_task(self._work)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[R]) -> None:
        if not task.cancelled():
            task.exception()  # read: who waited may have been interrupted
        self._ended.release()

    def cancel(self) -> None:
        """On the thread of the loop."""
        if self._task is not None:
            self._task.cancel()

    def result(self) -> R:
        """What the coroutine returned or raised, as soon as it has."""
        self._ended.acquire()
        assert self._task is not None
        if self._task.cancelled():
            raise ClosedError(CLOSED)
        return self._task.result()


class IoThread:
    """Starts with the first call; ends with `close`, or with the process."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._closed = False

    @property
    def _inherited(self) -> bool:
        return self._process != os.getpid()

    def run(self, call: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the coroutine of `call` returns or raises; it is cancelled if the calling thread is interrupted.

        Raises:
            ClosedError: after close(), or in a process that was forked.
        """
        if self._inherited:
            raise ClosedError("this backend belongs to the process that this one was forked from: open another here")
        waiting: _Call[R] | None = None
        try:
            with self._lock:  # so that nothing is started behind what ends the thread
                if self._closed:
                    raise ClosedError(CLOSED)
                if self._thread is None:
                    self._start()
                waiting = _Call(call(*args, **kwargs))
                self._loop.call_soon_threadsafe(waiting.start)
            return waiting.result()
        except KeyboardInterrupt:  # wherever it came between
            if waiting is not None:
                self.post(waiting.cancel)
            raise

    def post(self, call: Callable[[], object]) -> None:
        """Run `call` there soon, if it runs; from any thread; never blocks or raises."""
        if not self._inherited and self._thread is not None:
            with suppress(RuntimeError):  # its loop has ended meanwhile
                self._loop.call_soon_threadsafe(call)

    def _start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(ready)), name=NAME, daemon=True)
        self._thread.start()
        ready.wait()

    async def _live(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        ready.set()
        await self._stopping.wait()

    def close(self) -> None:
        """End the thread, and wait for its end; calls that are under way end with ClosedError. Idempotent."""
        if self._inherited:
            return
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            if thread is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        if thread is not None:
            thread.join()
