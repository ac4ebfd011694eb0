"""Whether a queue is ready to be consumed from, found out without harm: for RabbitMQ 4.0, which would end a connection.

A quorum queue is said to be there before its leader runs, while another process is just making it. Consuming from it
then crashes the channel there, and with it the connection and all sessions on it (541 INTERNAL_ERROR, until 4.1). A
queue with messages or consumers has a leader; from one without any a connection that nobody else uses consumes first.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mqkit.backends.rabbitmq.channels import Channel
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.stream import NOBODY
from mqkit.errors import BackendError, ConnectionLost

PAUSE = 0.05
"""Seconds between two tries: a leader starts within some milliseconds."""
PATIENCE = 5.0
"""Seconds for a leader to start."""
SERVER_NAMED = "amq."
"""What queues of one connection alone are called: they have no leader, and nobody else may consume from them."""
CAREFUL = "RabbitMQ 4.0."
"""What a broker says that it is, where this matters."""


class Scout:
    """Knows which queues are ready. `dial` opens a connection that may be lost."""

    def __init__(self, dial: Callable[[], Awaitable[Link]]) -> None:
        self._dial = dial
        self._link: Link | None = None
        self._ready: set[str] = set()
        self._one_by_one = asyncio.Lock()

    async def wait_for(self, queue: str, channel: Channel) -> None:
        """Return when `queue` is ready; `channel` is to ask on.

        Raises:
            NotFound: it does not exist.
            BackendError: it is not ready after some seconds.
        """
        if queue in self._ready or queue.startswith(SERVER_NAMED):
            return
        found = await channel.queue_declare(queue, passive=True)
        if not (found.messages or found.consumers):
            async with self._one_by_one:
                await self._try(queue)
        self._ready.add(queue)

    async def _try(self, queue: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while queue not in self._ready:
                    try:
                        return await self._consume(queue)
                    except ConnectionLost:
                        await asyncio.sleep(PAUSE)
        except TimeoutError as error:
            raise BackendError(f"the queue {queue!r} has no leader yet", retryable=True) from error

    async def _consume(self, queue: str) -> None:
        """What this gets for a moment goes back, to its place, when the channel is closed."""
        if self._link is None or self._link.lost is not None:
            await self.close()
            self._link = await self._dial()
        link = self._link
        channel = await link.channel(traffic=NOBODY)
        try:
            async with link.calling():
                await channel.consume(queue, 1)
                await channel.queue_declare(queue, passive=True)  # RabbitMQ answers before it consumes
        finally:
            await link.drop(channel)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
