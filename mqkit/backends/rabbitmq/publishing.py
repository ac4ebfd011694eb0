"""Sending over one connection: writes the messages of a batch, then waits for what the broker says to each.

Nothing is written before it is known to be encodable and addressed, and nothing while the broker blocks, so that what
failed early is rejected, not unknown. Messages reach the broker in the order of the calls. Of one key and destination
one message at a time is on its way (`Confirms`), the next follows when it is confirmed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from mqkit.backends.rabbitmq import frames, refusals, wire
from mqkit.backends.rabbitmq.batches import Batch, Row, Sending
from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.places import Place, nowhere, place
from mqkit.backends.rabbitmq.way_back import marked
from mqkit.errors import (
    BackendError,
    ClosedError,
    ConnectionLost,
    EncodeError,
    MessageTooLarge,
    MqkitError,
    PublishError,
    Unroutable,
)
from mqkit.message import Outgoing

LEARNED = "RabbitMQ (max_message_size in rabbitmq.conf)"
AT_ONCE = 1_048_576
"""Bytes that are written without looking whether the broker keeps up."""


class Confirms:
    """One channel's messages on their way, and what the broker says to them.

    A queue that is full refuses one message and takes the next, if there is room by then, and which queues have a
    limit is known to nobody: a policy may set one at any time. So a message with a key is written when its predecessor
    is safe; when that is refused for now, what stands behind it is refused too, and sent again behind it.
    """

    def __init__(self, link: Link, learn_limit: Callable[[int], None]) -> None:
        self.link = link
        self.channel: Channel | None = None
        self.usable = True
        self._learn_limit = learn_limit
        self._pending: dict[int, Sending] = {}
        self._behind: dict[Row, deque[Sending] | None] = {}
        """What waits for the one of its row that is on its way; None: nothing does."""
        self._low = 1
        self._next = 1

    def send(self, sending: Sending) -> int:
        """Write one message, or leave it until it is its turn; how many bytes were written."""
        key = sending.outgoing.message.key
        if key is not None:
            row = sending.row = (sending.place.exchange, sending.place.routing_key, key)
            if row in self._behind:
                waiting = self._behind[row]
                if waiting is None:
                    waiting = self._behind[row] = deque()
                waiting.append(sending)
                return 0
            self._behind[row] = None
        return self._write(sending)

    def _write(self, sending: Sending) -> int:
        assert self.channel is not None
        outgoing, to = sending.outgoing, sending.place
        sending.written = True
        self._pending[self._next] = sending
        self._next += 1
        parts = frames.publish(
            self.channel.number,
            (to.exchange, to.routing_key),
            sending.header,
            outgoing.message.body,
            self.link.frame_max,
        )
        self.link.stream.write(*parts)
        return sum(map(len, parts))

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """As Traffic's."""
        if not multiple:
            sending = self._pending.pop(tag, None)
            if sending is not None:
                self._resolve(sending, accepted=accepted)
            if tag == self._low:
                self._low += 1
            return
        for one in range(self._low, tag + 1):
            sending = self._pending.pop(one, None)
            if sending is not None:
                self._resolve(sending, accepted=accepted)
        self._low = max(self._low, tag + 1)

    def _resolve(self, sending: Sending, *, accepted: bool) -> None:
        batch = sending.batch
        if sending.doubtful:
            batch.unknown[sending.position] = BackendError(
                "of several messages without an id some came back, and the broker does not say which", retryable=True
            )
        elif sending.returned is not None:
            batch.rejected[sending.position] = sending.returned
        elif not accepted:
            batch.rejected[sending.position] = BackendError(
                "RabbitMQ refused the message (a queue is full, or cannot store it)", retryable=True
            )
        batch.resolve(sending)
        row = sending.row
        if row is not None:
            self._next_of(row, after_refusal=not accepted and sending.returned is None)

    def _next_of(self, row: Row, *, after_refusal: bool) -> None:
        """The one on its way was answered: write the next, or refuse them all."""
        waiting = self._behind.pop(row, None)
        while waiting:
            following = waiting.popleft()
            if following.settled:  # its batch gave up
                continue
            error = self._not_now(after_refusal=after_refusal)
            if error is None:
                self._behind[row] = waiting or None
                self._write(following)
                return
            following.reject(error)

    def _not_now(self, *, after_refusal: bool) -> MqkitError | None:
        if after_refusal:
            return BackendError("not sent: RabbitMQ refused a message of the same key before it", retryable=True)
        blocked = self.link.stream.blocked
        return None if blocked is None else BackendError(blocks(blocked), retryable=True)

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        """As Traffic's. The broker does not say which: it is the first that was published like this."""
        del text
        came_back, identity = Place(exchange, routing_key), wire.message_id(header)
        like_it = [
            sending
            for sending in self._pending.values()
            if sending.place == came_back and sending.outgoing.message.id == identity and sending.returned is None
        ]
        if not like_it:
            return
        like_it[0].returned = Unroutable(nowhere(came_back, like_it[0].outgoing.topic))
        if identity is None and len(like_it) > 1:
            for sending in like_it:
                sending.doubtful = True

    def closed(self, code: int, text: str) -> None:
        """As Traffic's: one message was refused, and none that was published after it was looked at."""
        self.usable = False
        pending, self._pending = list(self._pending.values()), {}
        refusal = refusals.publishing(code, text)
        if refusal.limit is not None:
            self._learn_limit(refusal.limit)
        culprit_found = False
        for sending in pending:
            error = refusal.of(sending.outgoing, sending.place)
            if error is not None:
                culprit_found = True
                sending.batch.rejected[sending.position] = error
            elif culprit_found:
                sending.batch.rejected[sending.position] = BackendError(
                    f"not looked at: RabbitMQ closed the channel over a message before it ({text})", retryable=True
                )
            else:
                sending.batch.unknown[sending.position] = BackendError(
                    f"RabbitMQ closed the channel before it confirmed: {code} {text}", retryable=True
                )
            sending.batch.resolve(sending)
        self._refuse_waiting(
            BackendError("not sent: RabbitMQ closed the channel over a message before it", retryable=True)
        )

    def lost(self, error: ConnectionLost) -> None:
        """As Traffic's."""
        self.usable = False
        pending, self._pending = list(self._pending.values()), {}
        for sending in pending:
            sending.batch.unknown[sending.position] = error
            sending.batch.resolve(sending)
        self._refuse_waiting(error)

    def _refuse_waiting(self, error: MqkitError) -> None:
        behind, self._behind = self._behind, {}
        for waiting in behind.values():
            for sending in waiting or ():
                sending.reject(error)

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        """As Traffic's: nothing is consumed here."""

    def cancelled(self) -> None:
        """As Traffic's: nothing is consumed here."""


class RabbitSender:
    """The Sender."""

    def __init__(self, link: Link, exchanges: Mapping[str, str], max_message_bytes: int) -> None:
        self._link = link
        self._exchanges = exchanges
        self._max = max_message_bytes
        self._learned: int | None = None
        """The limit of the broker itself, once it refused something for its size."""
        self._max_where = f"the backend (max_message_bytes in the URL for {link.url.where})"
        self._confirms: Confirms | None = None
        self._known: set[str] = {""}
        self._turn = asyncio.Lock()
        self._queued = 0
        self._closed = False

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        self._check()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        state = Batch(loop.create_future())
        sendings = self._prepare(batch, state)
        state.left = len(sendings)
        if sendings:
            expiry = loop.call_at(deadline, state.give_up)
            try:
                if self._ready(sendings):
                    for sending in sendings:
                        assert self._confirms is not None
                        self._confirms.send(sending)
                else:
                    await self._submit(sendings, deadline)
                if state.left:
                    await state.done
            finally:
                expiry.cancel()
        self._report(batch, state, sendings, timeout)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this sender was closed")
        self._link.raise_if_lost()

    def _prepare(self, batch: Sequence[Outgoing], state: Batch) -> list[Sending]:
        sendings: list[Sending] = []
        for position, outgoing in enumerate(batch):
            message = outgoing.message
            try:
                size = len(message.body)
                if outgoing.group is None and size > self._max:  # what is copied, the broker took before
                    raise MessageTooLarge(size, self._max, self._max_where)  # noqa: TRY301 - one of several ways out
                if self._learned is not None and size > self._learned:
                    raise MessageTooLarge(size, self._learned, LEARNED)  # noqa: TRY301 - as above
                header = wire.encode(message if outgoing.group is None else marked(outgoing))
                if len(header) > self._link.frame_max - frames.OVERHEAD:
                    raise MessageTooLarge(  # noqa: TRY301 - as above
                        len(header), self._link.frame_max - frames.OVERHEAD, "RabbitMQ for headers (frame_max)"
                    )
            except (EncodeError, MessageTooLarge) as error:
                state.rejected[position] = error
                continue
            sendings.append(Sending(state, position, outgoing, place(outgoing, self._exchanges), header))
        return sendings

    def _ready(self, sendings: Sequence[Sending]) -> bool:
        """Whether all can be written at once, in turn."""
        return (
            not self._queued
            and self._confirms is not None
            and self._confirms.usable
            and self._link.stream.writable
            and all(sending.place.exchange in self._known for sending in sendings)
            and sum(len(sending.outgoing.message.body) for sending in sendings) <= AT_ONCE
        )

    async def _submit(self, sendings: Sequence[Sending], deadline: float) -> None:
        """Write them when it is their turn; what cannot be written before the deadline is rejected."""
        left = list(reversed(sendings))
        self._queued += 1
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                confirms = await self._channel()
                missing = await self._missing({sending.place.exchange for sending in sendings} - self._known)
                written = 0
                while left:
                    if written >= AT_ONCE or not self._link.stream.writable:
                        self._link.stream.flush()
                        written = 0
                        await self._link.stream.wait_writable()
                    if not confirms.usable:
                        break
                    sending = left.pop()
                    if (error := missing.get(sending.place.exchange)) is not None:
                        sending.reject(error)
                        continue
                    written += confirms.send(sending)
                self._link.stream.flush()
        except TimeoutError:
            pass
        finally:
            self._queued -= 1
        for sending in left:
            sending.reject(self._unsent())

    def _unsent(self) -> MqkitError:
        stream = self._link.stream
        if stream.ended is not None:
            return stream.ended
        if self._confirms is not None and not self._confirms.usable:
            return BackendError("not sent: RabbitMQ closed the channel over a message before it", retryable=True)
        if stream.blocked is not None:
            return BackendError(blocks(stream.blocked), retryable=True)
        return BackendError("not sent in time: RabbitMQ does not keep up", retryable=True)

    async def _channel(self) -> Confirms:
        if self._confirms is None or not self._confirms.usable:
            self._known = {""}  # what closed the channel may have been one that is there no more
            if self._confirms is not None and self._confirms.channel is not None:
                await self._link.drop(self._confirms.channel)
            confirms = Confirms(self._link, self._learn_limit)
            confirms.channel = await self._link.channel(confirms=True, traffic=confirms)
            self._confirms = confirms
        return self._confirms

    async def _missing(self, exchanges: set[str]) -> dict[str, Unroutable]:
        """Which of these are not there: publishing to one would end the channel, and all that is on its way there."""
        missing: dict[str, Unroutable] = {}
        for exchange in sorted(exchanges):
            channel = await self._link.channel()
            try:
                async with self._link.calling():
                    await channel.exchange_declare(exchange, passive=True)
                self._known.add(exchange)
            except NotFound:
                missing[exchange] = refusals.no_exchange(exchange)
            except ChannelClosed:
                pass  # there, but not ours to look at
            finally:
                await self._link.drop(channel)
        return missing

    def _learn_limit(self, limit: int) -> None:
        self._learned = limit

    def _report(self, batch: Sequence[Outgoing], state: Batch, sendings: Sequence[Sending], timeout: float) -> None:
        if state.left:
            for sending in sendings:
                if not sending.written:
                    sending.reject(self._unsent())
                elif not sending.settled:
                    state.unknown[sending.position] = self._unconfirmed(timeout)
        if not state.rejected and not state.unknown:
            return
        unsent = sum(error is self._link.lost for error in state.rejected.values())
        if len(state.unknown) + unsent == len(batch):
            self._link.raise_if_lost()
        raise PublishError(state.rejected, state.unknown)

    def _unconfirmed(self, timeout: float) -> MqkitError:
        blocked = self._link.stream.blocked
        because = f" (it blocks publishers: {blocked})" if blocked else ""
        return BackendError(f"RabbitMQ did not confirm within {timeout:g} s{because}", retryable=True)

    async def close(self) -> None:
        """As Sender.close."""
        self._closed = True
        if self._confirms is not None and self._confirms.channel is not None:
            self._link.stream.flush()
            await self._link.drop(self._confirms.channel)


def blocks(why: str) -> str:
    """What to say while the broker takes nothing from publishers."""
    return f"not sent: RabbitMQ blocks publishers ({why})"
