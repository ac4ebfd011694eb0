"""Whose turn it is to work on a group that is ordered by key: one member at a time, in all processes.

A claim is an exclusive queue: RabbitMQ lets one connection own it, and takes it away with the connection. The group's
own queue is asked, too: it forgets a consumer in the same step in which it takes back what that one had, so who comes
next finds everything in its order.
"""

from mqkit.backends.rabbitmq.channels import Channel, Locked
from mqkit.backends.rabbitmq.link import Link


def claim_name(queue: str) -> str:
    """Of the exclusive queue that stands for the turn."""
    return f"mqkit.turn.{queue}"


ANSWERS = 3
"""So many times in a row a queue must say that it has neither messages nor consumers."""


class Turn:
    """One member's claim on a queue."""

    def __init__(self, link: Link, queue: str) -> None:
        self._link = link
        self._queue = queue
        self._claim = claim_name(queue)
        self.held = False

    async def take(self) -> bool:
        """Whether it is our turn now. Until it is, nothing may be consumed."""
        if not self.held and self._claim in self._link.claims:
            return False  # another receiver of this process
        channel = await self._link.channel()
        try:
            async with self._link.calling():
                await channel.queue_declare(self._claim, exclusive=True)
                self.held = True
                self._link.claims.add(self._claim)
                return await self._free(channel)
        except Locked:
            return False
        finally:
            await self._link.drop(channel)

    async def _free(self, channel: Channel) -> bool:
        """Whether the queue has no consumer. Zero and zero is also what it says when it was too busy to answer."""
        found = await channel.queue_declare(self._queue, passive=True)
        for _ in range(ANSWERS - 1):
            if found.consumers or found.messages:
                break
            found = await channel.queue_declare(self._queue, passive=True)
        return not found.consumers

    async def leave(self) -> None:
        """Let another take it."""
        if not self.held:
            return
        self.held = False
        self._link.claims.discard(self._claim)
        channel = await self._link.channel()
        try:
            async with self._link.calling():
                await channel.queue_delete(self._claim)
        finally:
            await self._link.drop(channel)
