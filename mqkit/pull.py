"""Pulling: the user's own loop asks for messages, and says what becomes of each. The pump does all the rest.

A consumer is a group's member like any other: its deliveries pass through `InFlight`, and what they come to is acted on
by a pump, so the promises are those of `subscribe`.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from mqkit.arguments import whole
from mqkit.durations import Duration, seconds
from mqkit.errors import ClosedError
from mqkit.handler import Handler, Outcome, Reading
from mqkit.immediate import Run
from mqkit.in_flight import InFlight
from mqkit.lanes import Item
from mqkit.message import Message
from mqkit.ports import Job, Ports
from mqkit.pump import Pump
from mqkit.signals import Reject, RetryLater
from mqkit.stopping import ended
from mqkit.verdict import Done, Release, Verdict
from mqkit.workers import Runner

T = TypeVar("T")
LONGEST_WAIT: Final = 1.0
"""Seconds after which one that waits looks again."""


def by_consumer(_payload: object) -> None:
    """Stands where a handler has its function; the user's loop is what handles."""


class Pulled(Generic[T]):
    """One message, until its consumer says what becomes of it, once, by one of the methods.

    They return at once, from any thread; the broker is told soon, and at the latest when the consumer closes. Of a
    message whose session was lost meanwhile nobody is told: it comes again.
    """

    __slots__ = ("_decide", "_decided", "_judge", "message")

    def __init__(
        self, message: Message[T], judge: Callable[[Exception, int], Verdict], decide: Callable[[Verdict], None]
    ) -> None:
        self.message = message
        """The payload, and all that is known about it."""
        self._judge = judge
        self._decide = decide
        self._decided = ""

    @property
    def payload(self) -> T:
        """The decoded and validated body."""
        return self.message.payload

    def done(self) -> None:
        """Never deliver it to this group again."""
        self._say("done", Done())

    def retry(self, error: Exception | None = None, *, after: Duration | None = None) -> None:
        """It failed, with `error`: the consumer's `retry` says when it comes again, and after which attempt it is dead.

        Args:
            after: seconds before which it does not come again; spends an attempt like any other failure.
        """
        if after is not None:
            reason = RetryLater(after=after) if error is None else RetryLater(str(error), after=after)
            self._say("to be retried", self._judge(reason, self.message.attempt))
        else:
            failed = error or RuntimeError("the consumer asked for another try")
            self._say("to be retried", self._judge(failed, self.message.attempt))

    def dead_letter(self, why: str = "") -> None:
        """Put it among the group's dead letters, now."""
        self._say("a dead letter", self._judge(Reject(why), self.message.attempt))

    def release(self) -> None:
        """Give it back: no attempt is spent, and it comes again soon, to any member."""
        self._say("given back", Release())

    def _say(self, word: str, verdict: Verdict) -> None:
        if self._decided:
            raise RuntimeError(f"message {self.message.id} is {self._decided} already")
        self._decided = word
        self._decide(verdict)


class AsyncConsumer(Generic[T]):
    """Pulls the messages of one topic for one group. Get it by `AsyncApp.consumer`, and use it as a context.

    Args:
        pump: makes the pump, given what makes the one that takes from it.
        declare: makes sure that the group exists.
    """

    def __init__(
        self,
        handler: Handler,
        ports: Ports,
        pump: Callable[[Callable[..., Runner]], Pump],
        declare: Callable[[], Awaitable[None]],
    ) -> None:
        self._handler = handler
        self._ports = ports
        self._make_pump = pump
        self._declare = declare
        self._startable = ports.signal()
        self._in_flight: InFlight | None = None
        self._with_user: dict[Item, Reading] = {}
        self._pump: Pump | None = None
        self._job: Job | None = None

    async def __aenter__(self) -> Self:
        """Begin to receive.

        Raises:
            ConnectionLost, TopologyError: the group cannot be declared, or is not there.
        """
        self._ports.require_home()
        if self._job is None:
            await self._declare()
            self._pump = self._make_pump(self._attached)
            self._job = self._ports.spawn(self._pump.run(), f"mqkit consumer of {self._handler.topic}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the broker what was decided, and give back all else."""
        pump, self._pump = self._pump, None
        job, self._job = self._job, None
        if pump is not None and job is not None:
            pump.stop()
            self._startable.set()
            await ended(self._ports, ((pump, job),))

    async def fetch(self, limit: int = 1, timeout: Duration = 1.0) -> list[Pulled[T]]:
        """Up to `limit` messages, as soon as there is one; none after `timeout` seconds.

        What was fetched and not decided counts among the consumer's `prefetch`: once that many are out, no more come.

        Raises:
            ClosedError: the consumer is not open.
            ValueError, TypeError: `limit` is no number of messages, or `timeout` no length of time.
        """
        whole(limit, "limit")
        if limit < 1:
            raise ValueError(f"limit is a number of messages, at least 1, not {limit}")
        self._ports.require_home()
        deadline = self._ports.monotonic() + seconds(timeout, option="timeout")
        while True:
            if self._pump is None or self._in_flight is None:
                raise ClosedError("this consumer is not open: use `with app.consumer(...) as consumer:`")
            found = self._take(self._in_flight, limit)
            left = deadline - self._ports.monotonic()
            if found or left <= 0:
                return found
            await self._startable.wait(min(left, LONGEST_WAIT))

    def cancel(self) -> None:
        """As Runner.cancel."""
        for item in list(self._with_user):
            self._over(item, Release())

    def _attached(self, in_flight: InFlight, _ports: Ports, _on_stuck: Callable[[Outcome], None]) -> Self:
        """As what makes a Runner."""
        self._in_flight = in_flight
        in_flight.on_startable = self._startable.set
        return self

    def _take(self, in_flight: InFlight, limit: int) -> list[Pulled[T]]:
        found: list[Pulled[T]] = []
        while len(found) < limit and (item := in_flight.start()):
            reading = self._handler.read(item.delivery, item.spent, item.lost)
            if isinstance(reading, Outcome):
                in_flight.over(item, reading)
                continue
            self._with_user[item] = reading
            message: Message[T] = self._handler.message(reading)
            found.append(Pulled(message, self._handler.judge, partial(self._decided, item)))
        return found

    def _decided(self, item: Item, verdict: Verdict) -> None:
        """From any thread."""
        self._ports.post(partial(self._over, item, verdict))

    def _over(self, item: Item, verdict: Verdict) -> None:
        reading = self._with_user.pop(item, None)
        if reading is None or self._in_flight is None:
            return  # given back when the consumer closed
        envelope = reading.envelope
        self._in_flight.over(item, Outcome(item.delivery, verdict, envelope.id, reading.attempt, envelope=envelope))
        if self._in_flight.startable:
            self._startable.set()


class Consumer(Generic[T]):
    """`AsyncConsumer` for plain code. Get it by `App.consumer`, and use it as a context; from one thread at a time."""

    def __init__(self, consumer: AsyncConsumer[T], run: Run) -> None:
        self._consumer = consumer
        self._run = run

    def __enter__(self) -> Self:
        """Begin to receive. Raises as AsyncConsumer's."""
        self._run(self._consumer.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the broker what was decided, and give back all else."""
        self._run(self._consumer.__aexit__(kind, error, trace))

    def fetch(self, limit: int = 1, timeout: Duration = 1.0) -> Sequence[Pulled[T]]:
        """As AsyncConsumer.fetch."""
        return self._run(self._consumer.fetch(limit, timeout))
