"""A thread that owns one session of a driver that blocks, for an event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import ParamSpec, TypeVar
from weakref import finalize

from mqkit.errors import ClosedError
from mqkit.event_loop import answer

P = ParamSpec("P")
R = TypeVar("R")


class SessionThread:
    """Makes calls one after the other. No process waits for it at its end: a frozen broker may hold a call for long.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = False
        Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()
        finalize(self, self._calls.put, None)  # where a loop ended amid its work, nobody ends the session

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `call` returns or raises there. Raises ClosedError once it has ended."""
        if self._ended:
            raise ClosedError("this session is closed")
        future: asyncio.Future[R] = self._loop.create_future()
        self._calls.put(partial(answer, future, partial(call, *args, **kwargs)))
        return await future

    async def opened(self, open_: Callable[[], R], close: Callable[[R], None]) -> R:
        """What `open_` makes; closed as soon as it is there, if nobody waits for it any more."""
        made: list[R] = []

        def make() -> R:
            made.append(open_())
            return made[0]

        try:
            return await self.run(make)
        except BaseException:
            self._calls.put(partial(_unwanted, made, close))
            self._end()
            raise

    async def end(self, close: Callable[[], None]) -> None:
        """Run `close`, and let the thread go; nothing the second time."""
        if self._ended:
            return
        try:
            await self.run(close)
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._calls.put(None)


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # it holds the session


def _unwanted(made: list[R], close: Callable[[R], None]) -> None:
    with suppress(Exception):
        for each in made:
            close(each)
