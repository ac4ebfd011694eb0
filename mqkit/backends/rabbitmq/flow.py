"""How much RabbitMQ sends to one consumer, and changing that while it consumes; what is decided is in window.py."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from mqkit.backend import Subscription
from mqkit.backends.rabbitmq.channels import Channel
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.backends.rabbitmq.window import Window
from mqkit.errors import ConnectionLost

ANSWER = 60.0
"""Seconds for RabbitMQ to answer while the consumer changes. A handler may block the event loop for long meanwhile, so
the answer is read late; of a broker that is gone the heartbeats tell."""
MOMENT = 0.01
"""Seconds between two looks for what is on its way."""


class Flow:
    """One receiver's consumer, and what is out with it. `ended` is told when it cannot go on."""

    def __init__(self, link: Link, subscription: Subscription, ended: Callable[[ConnectionLost], None]) -> None:
        self._link = link
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._window = Window(
            subscription.prefetch,
            subscription.aside,
            subscription.prefetch_bytes if subscription.source == "group" else None,
            ordered=subscription.ordering == "key",
        )
        self._queue = ""
        self._consumer = ""
        self._channel: Channel | None = None
        self._changing: asyncio.Task[None] | None = None
        self.out = 0
        self.still = asyncio.Lock()
        """Held while the consumer changes, and while an ordered group settles: what is settled meanwhile would let
        messages come that are given back at once, before others that are out."""

    async def begin(self, channel: Channel, queue: str, *, empty: bool) -> str:
        """Consume, from a queue that is perhaps known to be empty; the consumer's tag. Raises as Link.consume."""
        self._window.clear(empty=empty)
        self.out = 0
        self._consumer = await self._link.consume(channel, queue, self._window.size)
        self._channel, self._queue = channel, queue
        self._look()  # the first may be here by now
        return self._consumer

    def arrived(self, size: int, *, redelivered: bool) -> None:
        """One more is out, of so many bytes."""
        window = self._window
        self.out += 1
        window.out_bytes += size
        if window.behind and not redelivered:
            window.fresh()
        if self.out >= window.trigger or window.out_bytes > window.limit:
            self._look()

    def gone(self, size: int, number: int) -> None:
        """So many are settled, of so many bytes."""
        window = self._window
        self.out -= number
        window.out_bytes -= size
        if window.waits:
            self._look()

    def want(self, limit: int) -> None:
        """So many more are asked for, and none is at hand; from any thread."""
        if self._window.starve(limit, self.out):
            self._loop.call_soon_threadsafe(self._look)

    async def complete(self) -> None:
        """Return when all that was out before is out again, so that it can be given back in its order.

        To be asked while `still` is held.
        """
        channel = self._channel
        if channel is None or not self._window.behind:
            return
        async with self._going_on(CLOSE_TIMEOUT):
            while channel is self._channel and self._window.behind:
                if self.out >= self._window.size:
                    await self._change(channel)
                elif not (await channel.queue_declare(self._queue, passive=True)).messages:
                    return
                else:
                    await asyncio.sleep(MOMENT)

    @asynccontextmanager
    async def pause(self) -> AsyncGenerator[None]:
        """As `still`, but a broker that does not answer is not waited for longer than closing may take."""
        held = False
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                held = await self.still.acquire()
        try:
            yield
        finally:
            if held:
                self.still.release()

    def end(self) -> None:
        """Change nothing more."""
        self._channel = None

    def _look(self) -> None:
        if self._changing is None and self._channel is not None and self._window.better(self.out) is not None:
            self._changing = self._loop.create_task(self._change_all(self._channel))

    async def _change_all(self, channel: Channel) -> None:
        try:
            async with self.still, self._going_on(ANSWER):
                while await self._change(channel):
                    pass
        finally:
            self._changing = None

    async def _change(self, channel: Channel) -> bool:
        """Whether there was a better size."""
        window = self._window
        if channel is not self._channel or (size := window.better(self.out)) is None:
            return False
        if window.size:
            await channel.cancel(self._consumer)
        window.began(size)
        if window.size:
            await self._link.consume(channel, self._queue, window.size, self._consumer)
        return True

    @asynccontextmanager
    async def _going_on(self, timeout: float) -> AsyncGenerator[None]:
        """Around calls: whatever is wrong, this session is over, and the next one goes on."""
        try:
            async with self._link.calling(timeout):
                yield
        except Exception as error:  # noqa: BLE001 - as it says
            self._channel = None
            self._ended(ConnectionLost(f"RabbitMQ does not go on with {self._queue!r}: {error}"))
