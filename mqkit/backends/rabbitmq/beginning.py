"""What is begun of a group without order (Receiver.begin): one member at a time reads and writes the notes of it.

In an ordered group that is the one that works anyhow. Here many do, so whoever begins one holds the group's notes for
as long as what it has begun is not heard of: whoever finds that their queue has another consumer has to wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from random import random

from mqkit.backend import Sender, Subscription
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.backends.rabbitmq.noting import Noting
from mqkit.errors import BackendError, ConnectionLost
from mqkit.message import Delivery

READING = 5.0
"""Seconds for the notes that there are to arrive."""
SOON = 0.01
"""Seconds between two looks whether they have; longer while another has them."""
LOOKS = 7
"""So often another may be found to have them: one that is gone stands there for a moment."""


class Beginning:
    """The deliveries that one session has begun. `ended` is told when their notes are lost."""

    def __init__(
        self,
        link: Link,
        subscription: Subscription,
        queue: str,
        open_sender: Callable[[], Awaitable[Sender]],
        ended: Callable[[ConnectionLost], None],
    ) -> None:
        self._link = link
        self._subscription = subscription
        self._queue = queue
        self._open_sender = open_sender
        self._ended = ended
        self._noting: Noting | None = None
        self._out: set[object] = set()
        self._leaving: asyncio.Task[None] | None = None

    @property
    def begun(self) -> frozenset[object]:
        """What was begun and is not settled."""
        return frozenset(self._out)

    async def begin(self, delivery: Delivery) -> int:
        """Keep that `delivery` is about to be handled; how often it was before.

        Raises:
            BackendError: not now: another member has begun one, or the notes cannot be read or written.
            ConnectionLost: the session ended.
        """
        if self._leaving is not None:
            await self._leaving
        if self._noting is None:
            self._noting = await self._read()
        if delivery.token not in self._out:
            self._out.add(delivery.token)
            self._noting.handed_out(delivery, redelivered=True)
        return await self._noting.begin(delivery.token)

    async def _read(self) -> Noting:
        noting = Noting(self._link, self._subscription, self._open_sender, self._ended)
        try:
            async with asyncio.timeout(READING):
                taken = 0
                while not await noting.read() and taken <= LOOKS:
                    taken += not noting.reading
                    await asyncio.sleep(SOON * 1.5**taken * (0.5 + random()))  # noqa: S311 - two must not keep step
        except BaseException as error:
            await noting.close()
            if isinstance(error, TimeoutError):
                raise BackendError(f"the notes of {self._queue!r} cannot be read now", retryable=True) from error
            raise
        if taken > LOOKS:
            await noting.close()
            raise BackendError(f"another member of {self._queue!r} has begun one", retryable=True)
        return noting

    def done(self, tokens: Iterable[object]) -> None:
        """These were acknowledged. After the last one, others may begin theirs."""
        mine = [token for token in tokens if token in self._out]
        if self._noting is None or not mine:
            return
        self._out.difference_update(mine)
        self._noting.done(mine)
        if not self._out:
            noting, self._noting = self._noting, None
            self._leaving = asyncio.get_running_loop().create_task(self._leave(noting))

    async def alive(self, tokens: Iterable[object]) -> None:
        """Whoever began these lives, and is about to give them back. Never raises."""
        mine = [token for token in tokens if token in self._out]
        if self._noting is None or not mine:
            return
        await self._noting.alive(mine)
        self._out.difference_update(mine)
        if not self._out:
            noting, self._noting = self._noting, None
            await self._leave(noting)

    async def _leave(self, noting: Noting) -> None:
        with suppress(Exception):
            await noting.close()

    async def close(self) -> None:
        """Give back what was begun, and let others begin theirs. Never raises; ends in a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if self._link.lost is None:
                    await self.alive(self.begun)
        if self._leaving is not None:
            await self._leaving
        noting, self._noting = self._noting, None
        if noting is not None:
            await self._leave(noting)
