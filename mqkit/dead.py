"""A group's dead letters: list, show, replay, purge. Nothing leaves the store before its copy is confirmed.

The store is read like any group's queue: what is chosen is settled, the rest is given back at the end. Of what was
read and not chosen nothing is kept here.
"""

import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf

from mqkit.arguments import number, whole
from mqkit.attributes import identity
from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.callables import not_a_plain_call, not_over
from mqkit.envelope import bookkeeping, key_text, replayed, timestamp, unseal
from mqkit.errors import MessageError, MqkitError
from mqkit.immediate import Run
from mqkit.message import Delivery, Headers, Outgoing
from mqkit.ports import Ports
from mqkit.producer import Producer, published
from mqkit.wrapping import COMPRESSIONS, lies_in_the_form, unwrapped, wrap

PAGE = 100
"""Letters that are read, or sent and settled, together."""
AHEAD = 8 * 1024 * 1024
"""Bytes of letters that are read ahead, or one letter."""
QUIET = 10.0
"""Seconds without a letter after which the store is taken to be empty, although it was counted to hold more."""
MOMENT = 0.25
"""The same, after as many as were counted: what another reader gave back just now may not have been counted."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that failed for good, and why. Times are RFC 3339; what is not known is empty."""

    id: str
    topic: str
    group: str
    reason: str
    """exhausted, rejected, envelope, undecodable, schema, too-large, not-retryable, worker-lost, result; empty if the
    broker put it there by itself."""
    error_type: str
    error: str
    traceback: str
    attempts: int
    first_failed: str
    last_failed: str
    origin: str
    handler: str
    service: str
    key: str | None
    content_type: str | None
    headers: Headers
    body: bytes

    def as_dict(self) -> dict[str, object]:
        """For JSON: the body as text in `body`, or in base64 in `body_base64` if it is not UTF-8."""
        found: dict[str, object] = {name: getattr(self, name) for name in self.__slots__ if name != "body"}
        found["headers"] = {name: _plain(value) for name, value in self.headers.items()}
        try:
            found["body"] = self.body.decode()
        except UnicodeDecodeError:
            found["body_base64"] = base64.b64encode(self.body).decode()
        return found


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def letter_id(delivery: Delivery) -> str:
    """The message's id as it was before it died."""
    try:
        return unseal(delivery, now=inf).id
    except MessageError:
        return identity(delivery)


def read_letter(delivery: Delivery) -> DeadLetter:
    """What a delivery from the dead letters tells."""
    own = bookkeeping(delivery)
    attempts = own.get("attempts", "0")
    message = delivery.message
    return DeadLetter(
        id=letter_id(delivery),
        topic=delivery.topic,
        group=delivery.group,
        reason=own.get("reason", ""),
        error_type=own.get("error-type", ""),
        error=own.get("error", ""),
        traceback=own.get("traceback", ""),
        attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
        first_failed=own.get("first-failed", ""),
        last_failed=own.get("last-failed", ""),
        origin=own.get("origin", ""),
        handler=own.get("handler", ""),
        service=own.get("service", ""),
        key=key_text(message.key),
        content_type=message.content_type,
        headers={n: v for n, v in message.headers.items() if not n.startswith("mqkit-")},
        body=message.body,
    )


Choose = Callable[[DeadLetter], bool]


def chooser(
    ids: Collection[str] | None = None, *, reason: str | None = None, error: str | None = None, key: str | None = None
) -> Choose:
    """A filter: all that is given must fit; None is not given, and of no ids none fits.

    Args:
        error: looked for in the error's type and text.

    Raises:
        TypeError: `ids` is text, in which parts of ids would be found, too.
    """
    if isinstance(ids, str):
        raise TypeError(f"ids are a list of ids, not one: [{ids!r}]")

    def choose(letter: DeadLetter) -> bool:
        return (
            (ids is None or letter.id in ids)
            and (reason is None or letter.reason == reason)
            and (error is None or error.lower() in f"{letter.error_type}: {letter.error}".lower())
            and (key is None or letter.key == key)
        )

    return choose


def _decisive(choose: Choose) -> Choose:
    """`choose`, if it says yes or no: what must be awaited or iterated for that would always be taken for yes.

    Raises:
        TypeError: it does not, or, when it is called, what it answers is none.
    """
    if wrong := not_a_plain_call(choose, "the letter"):
        raise TypeError(f"choose is a function of a letter, and cannot be {choose!r}: {wrong}")

    def decide(letter: DeadLetter) -> bool:
        answer: object = choose(letter)
        if wrong := not_over(answer):
            raise TypeError(f"choose answers yes or no, and not {wrong}")
        return bool(answer)

    return decide


def _at_most(limit: int) -> int:
    whole(limit, "limit")
    if limit < 0:
        raise ValueError(f"limit is a number of letters, not {limit}")
    return limit


class AsyncDeadLetters:
    """The dead letters of one group. Get it by `AsyncApp.dead_letters(topic, group)`."""

    def __init__(
        self, *, backend: Backend, producer: Producer, ports: Ports, topic: str, group: str, timeout: float
    ) -> None:
        self._backend = backend
        self._producer = producer
        self._ports = ports
        self._topic = topic
        self._group = group
        self._timeout = timeout

    async def count(self) -> int | None:
        """How many there are; None if the broker cannot tell."""
        self._ports.require_home()
        return (await self._backend.inspect(self._topic, self._group)).dead

    async def list(self, limit: int = 100, choose: Choose = chooser()) -> Sequence[DeadLetter]:  # noqa: B008 - a pure function
        """Up to `limit` letters that fit, oldest first, without taking them out."""
        choose, limit = _decisive(choose), _at_most(limit)
        found: list[DeadLetter] = []
        async with self._opened(limit) as (receiver, count):
            async for page in self._pages(receiver, count):
                found += [letter for letter in map(read_letter, page) if choose(letter)]
                if len(found) >= limit:
                    break
        return found[:limit]

    async def replay(
        self,
        choose: Choose = chooser(),  # noqa: B008 - a pure function
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Sequence[str]:
        """Send those that fit back to this group alone, attempts counted anew; their ids.

        Each is removed after its copy is confirmed: interrupted, it may be in both places, never in none.

        Args:
            limit: at most so many.
            rate: at most so many in a second.
            dry: only say which.
            progress: called with the number sent so far.

        Raises:
            PublishError: some could not be sent; they stay.
            ValueError, TypeError: an argument makes no sense; nothing was done.
        """

        async def send(receiver: Receiver, chosen: Sequence[Delivery]) -> None:
            prefix = self._backend.capabilities.attribute_prefix
            copies = [
                Outgoing(replayed(delivery, prefix, letter_id(delivery)), self._topic, self._group)
                for delivery in chosen
            ]
            errors = await self._send(copies)
            await self._remove(receiver, [d for i, d in enumerate(chosen) if i not in errors])
            if errors:
                raise published(errors)

        return await self._each(choose, send, limit=limit, rate=rate, dry=dry, progress=progress)

    async def _send(self, copies: Sequence[Outgoing]) -> dict[int, MqkitError]:
        """As Producer.send; what is refused as it is goes as it was among the dead letters, wrapped."""
        errors = await self._producer.send(copies, self._timeout)
        for compression in COMPRESSIONS:
            refused = [i for i, error in errors.items() if lies_in_the_form(error)]
            wrapped = [replace(copies[i], message=wrap(copies[i].message, compression)) for i in refused]
            again = await self._producer.send(wrapped, self._timeout)
            for position, i in enumerate(refused):
                del errors[i]
                if position in again:
                    errors[i] = again[position]
        return errors

    async def purge(
        self,
        choose: Choose = chooser(),  # noqa: B008 - a pure function
        *,
        limit: int | None = None,
        dry: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Sequence[str]:
        """Remove those that fit for good; their ids. `limit`, `dry` and `progress` as in replay."""
        return await self._each(choose, self._remove, limit=limit, rate=None, dry=dry, progress=progress)

    async def _each(
        self,
        choose: Choose,
        act: Callable[[Receiver, Sequence[Delivery]], Awaitable[None]],
        *,
        limit: int | None,
        rate: float | None,
        dry: bool,
        progress: Callable[[int], None],
    ) -> Sequence[str]:
        choose, limit = _decisive(choose), None if limit is None else _at_most(limit)
        if rate is not None:
            number(rate, "rate")
            if not rate > 0:
                raise ValueError(f"rate is a number of letters in a second, above 0, not {rate}")
        ids: list[str] = []
        known: set[str] = set()
        started = self._ports.monotonic()
        size = max(1, min(PAGE, int(rate))) if rate else PAGE
        async with self._opened(limit) as (receiver, count):
            async for page in self._pages(receiver, count, known):
                fitting = [delivery for delivery in page if choose(read_letter(delivery))]
                if limit is not None:
                    fitting = fitting[: limit - len(ids)]
                for i in range(0, len(fitting), size):
                    chosen = fitting[i : i + size]
                    while rate and not dry and (ahead := started + len(ids) / rate - self._ports.monotonic()) > 0:
                        await receiver.receive(0, min(ahead, 1.0))
                    if not dry:
                        await act(receiver, chosen)
                    ids += [letter_id(delivery) for delivery in chosen]
                    known.update(ids[-len(chosen) :])
                    progress(len(ids))
                if limit is not None and len(ids) >= limit:
                    break
        return ids

    @staticmethod
    async def _remove(receiver: Receiver, chosen: Sequence[Delivery]) -> None:
        if chosen:
            await receiver.settle([(delivery.token, Settlement.DONE) for delivery in chosen])

    @asynccontextmanager
    async def _opened(self, limit: int | None) -> AsyncGenerator[tuple[Receiver, int | None]]:
        """A receiver of the store, and how many letters it holds; what is not settled goes back when it closes."""
        count = await self.count()
        ahead = PAGE if limit is None else max(1, min(PAGE, limit))
        subscription = Subscription(
            topic=self._topic, group=self._group, source="dead", prefetch=ahead, prefetch_bytes=AHEAD
        )
        receiver = await self._backend.open_receiver(subscription, lambda *_: None)
        try:
            yield receiver, count
        finally:
            await receiver.close()

    async def _pages(
        self, receiver: Receiver, count: int | None, acted: Collection[str] = ()
    ) -> AsyncGenerator[Sequence[Delivery]]:
        """All letters, a page at a time, but those of `acted` that died again meanwhile: they would never end. Behind
        such a one there can be others, where a store has more than one end.

        It takes both to know one: an id can be in the store twice, and another worker's clock can run ahead.
        """
        started, seen = timestamp(self._ports.now()), 0
        while found := await receiver.receive(PAGE, QUIET if count is None or seen < count else MOMENT):
            seen += len(found)
            page = list(map(unwrapped, found))
            fresh = [
                delivery
                for delivery in page
                if not acted
                or letter_id(delivery) not in acted
                or bookkeeping(delivery).get("last-failed", "") < started
            ]
            if fresh:
                yield fresh


class DeadLetters:
    """The dead letters of one group, for plain code. Get it by `App.dead_letters(topic, group)`."""

    def __init__(self, letters: AsyncDeadLetters, run: Run) -> None:
        self._letters = letters
        self._run = run

    def count(self) -> int | None:
        """As AsyncDeadLetters.count."""
        return self._run(self._letters.count())

    def list(self, limit: int = 100, choose: Choose = chooser()) -> Sequence[DeadLetter]:  # noqa: B008 - a pure function
        """As AsyncDeadLetters.list."""
        return self._run(self._letters.list(limit, choose))

    def replay(
        self,
        choose: Choose = chooser(),  # noqa: B008 - a pure function
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Sequence[str]:
        """As AsyncDeadLetters.replay."""
        return self._run(self._letters.replay(choose, limit=limit, rate=rate, dry=dry, progress=progress))

    def purge(
        self,
        choose: Choose = chooser(),  # noqa: B008 - a pure function
        *,
        limit: int | None = None,
        dry: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Sequence[str]:
        """As AsyncDeadLetters.purge."""
        return self._run(self._letters.purge(choose, limit=limit, dry=dry, progress=progress))
