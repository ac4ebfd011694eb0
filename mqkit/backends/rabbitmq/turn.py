"""Whose turn it is to work on a group that is ordered by key: one member at a time, in all processes.

Members consume from a queue of their own kind with a single active consumer, and one small message in it, the token:
RabbitMQ gives it to one of them, and to the next as soon as that one is gone, so nobody has to ask. More tokens than
one do no harm. The group's own queue is asked, too: it forgets a consumer in the same step in which it takes back what
that one had, so who comes next finds everything in its order.
"""

from collections.abc import Awaitable, Callable, Mapping

from mqkit.backend import Sender, Subscription
from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.topology import LONGEST_HOLD, NEVER
from mqkit.errors import BackendError, ConnectionLost
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import group_name

PREFIX = "mqkit.turn:"
UNUSED = 86_400_000
"""Milliseconds after which RabbitMQ removes the queue of a group that nobody works on any more."""
ARGUMENTS: Mapping[str, object] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-delivery-limit": NEVER,
    "x-consumer-timeout": LONGEST_HOLD,
    "x-expires": UNUSED,
}
PATIENCE = 1.0
"""Seconds for the token to be confirmed: while RabbitMQ blocks publishers it is not, and is offered again later."""
SOON, LATER = 0.02, 0.5
"""Seconds between questions while it is our turn, and a predecessor's messages are not back yet: they become longer."""
STAND_BY = 15.0
"""Seconds after which who stands by makes sure that the line is in order; when its turn comes it is told."""
ANSWERS = 3
"""So many times in a row a queue must say that it has neither messages nor consumers."""


class Turn:
    """One member's place in the line. `news` is called when its turn has come, `ended` when it lost its place."""

    def __init__(
        self,
        link: Link,
        subscription: Subscription,
        open_sender: Callable[[], Awaitable[Sender]],
        news: Callable[[], None],
        ended: Callable[[ConnectionLost], None],
    ) -> None:
        self._link = link
        self._topic = f"{PREFIX}{subscription.topic}"
        self._group = subscription.group
        self._line = group_name(self._topic, self._group)
        self._queue = group_name(subscription.topic, subscription.group)
        self._open_sender = open_sender
        self._news = news
        self._ended = ended
        self._channel: Channel | None = None
        self._questions = 0
        """Since it is our turn."""
        self.held = False
        self.empty = False
        """The group's queue had nothing for anybody when our turn came, so nothing was given back either."""

    @property
    def pause(self) -> float:
        """Seconds until `take` is to be asked again."""
        return min(SOON * 1.5 ** min(self._questions, 20), LATER) if self.held else STAND_BY

    async def take(self) -> bool:
        """Whether it is our turn, and all that a predecessor had is back. Until then nothing may be consumed.

        To be asked when `news` was told, and every now and then while standing by.

        Raises:
            NotFound: the group's queue does not exist.
            ConnectionLost: RabbitMQ gives us no place.
        """
        channel = self._channel or await self._link.channel(traffic=self)
        try:
            async with self._link.calling():
                if self.held:
                    self._questions += 1
                    return await self._free(channel)
                if self._channel is None:
                    await channel.queue_declare(self._queue, passive=True)
                found = await channel.queue_declare(self._line, durable=True, arguments=ARGUMENTS)
            if not found.messages:
                await self._offer()
            if self._channel is None:
                async with self._link.calling():
                    await self._link.consume(channel, self._line, 1)
                self._channel = channel
        except NotFound:
            raise
        except ChannelClosed as error:
            raise ConnectionLost(f"RabbitMQ refused a place in the line {self._line!r}: {error}") from error
        finally:
            if self._channel is None:
                await self._link.drop(channel)
        return False

    async def _free(self, channel: Channel) -> bool:
        """Whether the queue has no consumer. Zero and zero is also what it says when it was too busy to answer."""
        found = await channel.queue_declare(self._queue, passive=True)
        for _ in range(ANSWERS - 1):
            if found.consumers or found.messages:
                break
            found = await channel.queue_declare(self._queue, passive=True)
        self.empty = not found.messages
        return not found.consumers

    async def _offer(self) -> None:
        """A token: nobody's waits. Another member may hold one, or this is the first."""
        sender: Sender | None = None
        try:
            sender = await self._open_sender()
            await sender.send([Outgoing(WireMessage(b""), self._topic, self._group)], PATIENCE)
        except BackendError:
            pass  # the next question offers it again
        finally:
            if sender is not None:
                await sender.close()

    async def leave(self) -> None:
        """Let the next one have it. Never raises."""
        self.held = False
        channel, self._channel = self._channel, None
        if channel is not None:
            self._link.stream.flush()
            await self._link.drop(channel)

    # --- what the connection brings

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's: the token, which is kept as long as the turn."""
        del tag, where, header, body, redelivered
        self.held = True
        self._questions = 0
        self._news()

    def cancelled(self) -> None:
        """As Traffic's."""
        self._ended(ConnectionLost(f"RabbitMQ ended the consumer: the queue {self._line!r} was deleted or moved"))

    def closed(self, code: int, text: str) -> None:
        """As Traffic's."""
        self._ended(ConnectionLost(f"RabbitMQ closed the channel of {self._line!r}: {code} {text}"))

    def lost(self, error: ConnectionLost) -> None:
        """As Traffic's."""
        self._ended(error)

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """As Traffic's: nothing is published here."""

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """As Traffic's: nothing is published here."""
