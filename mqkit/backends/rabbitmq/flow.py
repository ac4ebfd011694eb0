"""How much RabbitMQ sends to one consumer, and changing that while it consumes; what is decided is in window.py."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from mqkit.backend import Subscription
from mqkit.backends.rabbitmq.channels import Channel
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.backends.rabbitmq.window import Window
from mqkit.errors import ConnectionLost


class Flow:
    """One receiver's consumer, and what is out with it. `ended` is told when it cannot go on."""

    def __init__(self, link: Link, subscription: Subscription, ended: Callable[[ConnectionLost], None]) -> None:
        self._link = link
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._ordered = subscription.ordering == "key"
        self._window = Window(
            subscription.prefetch,
            subscription.aside,
            subscription.prefetch_bytes if subscription.source == "group" else None,
            pauses=not self._ordered,
        )
        self._queue = ""
        self._consumer = ""
        self._channel: Channel | None = None
        self._changing: asyncio.Task[None] | None = None
        self._out = 0
        self._away = False

    async def begin(self, channel: Channel, queue: str) -> str:
        """Consume; the consumer's tag. Raises as Link.consume."""
        self._window.clear()
        self._out = 0
        self._consumer = await self._link.consume(channel, queue, self._window.size)
        self._channel, self._queue = channel, queue
        self._look()  # the first may be here by now
        return self._consumer

    def arrived(self, size: int) -> None:
        """One more is out, of so many bytes."""
        window = self._window
        self._out += 1
        window.arrived(size)
        if self._out >= window.trigger or window.over:
            self._look()

    def gone(self, size: int, number: int) -> None:
        """So many are settled, of so many bytes."""
        window = self._window
        self._out -= number
        window.out_bytes -= size
        if window.waits:
            self._look()

    def want(self, limit: int) -> None:
        """So many more are asked for, and none is at hand; from any thread."""
        if self._window.starve(limit, self._out):
            self._loop.call_soon_threadsafe(self._look)

    @asynccontextmanager
    async def settling(self) -> AsyncGenerator[None]:
        """Around settling in an ordered group: what is settled while too much is out makes no room for more.

        The consumer is away only meanwhile: who comes after us takes a queue without one for a queue that is its own.
        """
        channel = self._channel
        if not (self._ordered and self._window.over) or channel is None or self._changing is not None or self._away:
            yield
            return
        self._away = True
        try:
            async with self._going_on():
                await channel.cancel(self._consumer)
            yield
        finally:
            self._away = False
        async with self._going_on():
            if channel is self._channel:
                await self._consume(channel, 1)

    async def end(self) -> None:
        """Change nothing more; returns when nothing is being changed."""
        self._channel = None
        if self._changing is not None:
            await asyncio.wait([self._changing], timeout=CLOSE_TIMEOUT)

    def _look(self) -> None:
        if self._changing or self._away or self._channel is None:
            return
        if self._window.better(self._out) is not None:
            self._changing = self._loop.create_task(self._change(self._channel))

    async def _change(self, channel: Channel) -> None:
        window = self._window
        try:
            while channel is self._channel and (size := window.better(self._out)) is not None:
                async with self._going_on():
                    if window.size:
                        await channel.cancel(self._consumer)
                    if size:
                        await self._consume(channel, size)
                    else:
                        window.began(0)
        finally:
            self._changing = None

    @asynccontextmanager
    async def _going_on(self) -> AsyncGenerator[None]:
        """Around calls: whatever is wrong, this session is over, and the next one goes on."""
        try:
            async with self._link.calling():
                yield
        except Exception as error:  # noqa: BLE001 - as it says
            self._channel = None
            self._ended(ConnectionLost(f"RabbitMQ does not go on with {self._queue!r}: {error}"))

    async def _consume(self, channel: Channel, size: int) -> None:
        self._window.began(size)
        await self._link.consume(channel, self._queue, size, self._consumer)
