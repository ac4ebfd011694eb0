"""Notes on their way to the broker, beside the session that receives: who asks for one again learns what came of it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mqkit.backend import Notes
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT


class Writing:
    """The notes that one session writes.

    Args:
        write: returns when notes are safe, or raises.
        news: called when something has come of some of them.
    """

    def __init__(self, write: Callable[[Notes], Coroutine[Any, Any, None]], news: Callable[[], None]) -> None:
        self._write = write
        self._news = news
        self._asked: dict[object, tuple[int, asyncio.Task[None]]] = {}
        """By token: what was asked for last, and who sees to it."""
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, notes: Notes) -> list[object]:
        """Begin to write those of these that are new. The tokens of those that are not safe yet; the others are.

        Raises:
            BackendError, ConnectionLost: some could not be written; they are begun anew when they are asked for again.
        """
        new = [(token, spent) for token, spent in notes if token not in self._asked or self._asked[token][0] != spent]
        if new:
            task = asyncio.get_running_loop().create_task(self._write(new))
            self._tasks.add(task)
            task.add_done_callback(self._over)
            self._asked |= {token: (spent, task) for token, spent in new}
        over = [token for token, _ in notes if self._asked[token][1].done()]
        failed = {token: error for token in over if (error := self._asked[token][1].exception()) is not None}
        for token in failed or over:  # what is safe while others failed is asked for again, and is safe then
            del self._asked[token]
        for error in failed.values():
            raise error
        return [token for token, _ in notes if token in self._asked]

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # read: who asks again hears of it, and nobody may
        self._news()

    async def end(self) -> None:
        """Wait for those that are on their way, but not for long. Never raises."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
