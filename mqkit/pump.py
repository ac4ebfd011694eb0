"""Receive, work, collect, publish copies, settle: the loop of one group, and how it comes back after an outage.

Handlers decide, only the pump acts. `_act` is what everything rests on: what needs a copy is handed over to be stored,
beside this loop (storing.py), and what comes back from there, confirmed, is settled; nothing else of it ever is.
Free of asyncio: it waits through its ports.
"""

import logging
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.copies import Copies, needs_copy
from mqkit.declarations import Declare, made_anew
from mqkit.errors import BackendError, ConfigurationError, ConnectionLost, LeaseLost, MqkitError
from mqkit.events import Event, Kind
from mqkit.handler import Handler, Outcome
from mqkit.in_flight import InFlight
from mqkit.ports import Ports
from mqkit.producer import Producer
from mqkit.storing import Storing
from mqkit.telling import QUIET, telling
from mqkit.verdict import Done, Release
from mqkit.workers import Runner, Workers
from mqkit.wrapping import unwrapped

log = logging.getLogger("mqkit")

PULSE = 1.0
"""Seconds: how long a receive may wait, so that leases and group memberships are kept alive."""
MOMENT = 0.05
LASTING = 5.0
"""Seconds after which a session counts as one that worked, so that its successor is opened at once."""
LAST_WORD = 1.0
"""Seconds that what is on its way to the broker gets when the grace is over."""
ASIDE = 10_000
"""Messages that a process may have beside those that could run: they wait for their time, their key or their copy."""
LOW = 0.75
"""Of these bounds: below it, reaching them again is news."""

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE

MakeRunner: TypeAlias = Callable[[InFlight, Ports, Callable[[Outcome], None]], Runner]
"""Makes who runs the handlers, given what to take from, the world, and whom to tell what is stuck."""


class Pump:
    """Works one subscription until it is stopped; no outage ends it.

    Args:
        declare: makes the topology again, for when somebody deleted it.
        emit: takes every event.
        heard: whether anybody hears events now.
        runner: makes who runs the handlers.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        handler: Handler,
        producer: Producer,
        ports: Ports,
        emit: Callable[[Event], None],
        service: str,
        grace: float,
        declare: Declare | None = None,
        runner: MakeRunner = Workers,
        heard: Callable[[], bool] = lambda: True,
    ) -> None:
        self._backend = backend
        self._handler = handler
        self._producer = producer
        self._ports = ports
        self._emit = emit
        self._heard = heard
        self._grace = grace
        self._declare = declare
        options = handler.options
        self._limit = options.concurrency + options.prefetch
        self._subscription = Subscription(
            topic=handler.topic.name,
            group=handler.group,
            prefetch=self._limit,
            aside=ASIDE,
            prefetch_bytes=options.prefetch_bytes,
            ordering=options.ordering,
            options=handler.topic.options,
        )
        gives = backend.capabilities
        self._pulse = PULSE if gives.lease is None else min(PULSE, gives.lease / 8)
        self._storing = Storing(
            copies=Copies(gives.attribute_prefix, handler.name, service, gives.exact_delay),
            producer=producer, ports=ports, declare=declare, on_news=self._wake, where=self._where,
        )  # fmt: skip
        self._full = False
        self._in_flight = InFlight(handler, ports, on_news=self._wake, on_again=self._tell, lease=gives.lease)
        self._runner = runner(self._in_flight, ports, self._stuck)
        self._receiver: Receiver | None = None
        self._epoch = 0
        self._note_at = 0.0
        self._stopping = ports.signal()
        self._stop = self._lasted = False
        self._deadline: float | None = None
        self._lost_at: float | None = None
        self.last_progress = ports.monotonic()
        """When this pump last heard from the broker, on the monotonic clock."""

    def stop(self) -> None:
        """Start no more handlers, let the running ones end within the grace, settle, and return from `run`."""
        self._stop = True
        self._in_flight.stop()  # here and not in `run`: until that has its turn a handler may end, and another start
        self._stopping.set()
        self._wake()

    @property
    def where(self) -> str:
        """Topic and group, for people."""
        return self._where

    @property
    def grace(self) -> float:
        """Seconds that running handlers get at the end."""
        return self._grace

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._receiver is not None

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return self._in_flight.running

    @property
    def silence(self) -> float:
        """Seconds since this pump last heard from the broker."""
        return self._ports.monotonic() - self.last_progress

    async def run(self) -> None:
        """Work until stopped."""
        failures = 0
        try:
            while not self._stop:
                lost = await self._session()
                if lost is None:
                    break
                failures = 0 if self._lasted else failures
                await self._outage(lost, failures)
                failures += 1
            await self._let_end()
            self._runner.cancel()
        finally:
            self._event("stopped")

    async def _let_end(self) -> None:
        """The rest of the grace for handlers that outlived their session; what they did will be done again."""
        deadline = self._ports.monotonic() + self._grace if self._deadline is None else self._deadline
        while self._in_flight.running and self._ports.monotonic() < deadline:
            await self._stopping.wait(MOMENT)

    async def _session(self) -> MqkitError | None:
        """Work in one session until stopped, or until it is lost; then why."""
        self._lasted = False
        started = self._ports.monotonic()
        try:
            self._receiver = await self._backend.open_receiver(self._subscription, self._notify)
            self._epoch += 1
            self._back()
            await self._work(self._receiver)
        except MqkitError as error:
            return error
        except Exception as error:
            log.exception("%s: the session met an error in mqkit itself", self._where)
            return BackendError(f"{type(error).__name__}: {error}")
        else:
            return None
        finally:
            self._lasted = self._ports.monotonic() - started > LASTING
            self._in_flight.drop(silence=self.silence)
            self._storing.drop()
            try:
                if self._receiver is not None:
                    await self._receiver.close()
            finally:
                self._receiver = None  # not before: who waits for the end sees by it that there is a good-bye to say

    async def _work(self, receiver: Receiver) -> None:
        while True:
            if self._stop and self._deadline is None:
                self._deadline = self._ports.monotonic() + self._grace
                self._storing.hurry()
            deliveries = await receiver.receive(0 if self._stop else self._room(), self._patience())
            silence, self.last_progress = self.silence, self._ports.monotonic()
            if deliveries and self._stop:
                await receiver.settle([(delivery.token, RELEASE) for delivery in deliveries])
            elif deliveries:
                self._in_flight.submit([unwrapped(d) if d.returned else d for d in deliveries], self._epoch)
            self._withdraw(receiver, silence)
            self._in_flight.hold()
            outcomes = self._due()
            await self._note(receiver)  # what is among the outcomes, too: it is noted before it goes back
            await self._act(receiver, outcomes)
            await self._begin(receiver)
            if self._deadline is not None and not self._storing and not self._in_flight:
                return
            if self._deadline is not None and self._ports.monotonic() >= self._deadline:
                await self._give_up(receiver)
                return

    def _withdraw(self, receiver: Receiver, silence: float) -> None:
        """Start nothing more of what was taken away. Of what is lost no copy is stored: its next owner sees to it."""
        for recall in receiver.recalled():
            number = self._in_flight.withdraw(recall, silence=silence)
            if recall.lost:
                number += self._storing.withdraw(recall)
                self._event("lease-lost", detail=f"{number} deliveries were taken away: they are delivered again")

    def _room(self) -> int:
        """How many more to ask for.

        What waits for its time, for another of its key or for its copy takes no place of those that could run, but its
        number and the bytes of all are bounded.
        """
        in_flight, storing = self._in_flight, self._storing
        aside = in_flight.aside + len(storing)
        size = in_flight.size + storing.size
        room = self._limit - (len(in_flight) - in_flight.aside)
        full = aside >= ASIDE or size >= self._subscription.prefetch_bytes
        if full and room > 0 and aside and not self._full:
            self._full = True
            detail = f"{aside:,} messages wait for their time, their key or their copy; {size:,} bytes are here in all"
            log.warning("%s: full: nothing more is taken: %s", self._where, detail)
            self._event("full", detail=detail)
        elif self._full and aside <= ASIDE * LOW and size <= self._subscription.prefetch_bytes * LOW:
            self._full = False
            log.info("%s: not full any more", self._where)
        return 0 if full else max(room, 0)

    def _patience(self) -> float:
        """Seconds until something has to be looked at again."""
        now = self._ports.monotonic()
        until = now + self._pulse
        if self._deadline is not None:
            until = min(until, self._deadline) if self._storing or self._in_flight else now
        return max(until - now, 0.0)

    def _due(self) -> list[Outcome]:
        return [outcome for outcome in self._in_flight.collect() if outcome.epoch == self._epoch]

    async def _give_up(self, receiver: Receiver) -> None:
        """The grace is over: what still runs is cancelled and given back, and what is not stored too."""
        if self._in_flight.running:
            log.warning("%s: %d handlers did not end within %g s", self._where, self._in_flight.running, self._grace)
        self._runner.cancel()
        tries = 0
        while self._in_flight.running and tries < 20:
            tries += 1
            await receiver.receive(0, MOMENT)
        outcomes = self._due()
        for outcome in outcomes:
            if not isinstance(outcome.verdict, Done):
                outcome.verdict = Release()
        await self._act(receiver, outcomes)
        until = self._ports.monotonic() + LAST_WORD
        while self._storing.sending and self._ports.monotonic() < until:
            await receiver.receive(0, MOMENT)
            await self._act(receiver, [])
        left = self._storing.take_back()
        for outcome in left:
            outcome.verdict = Release()
        await self._act(receiver, left)

    async def _note(self, receiver: Receiver) -> None:
        """Keep at the broker how many attempts were made in place, before there are more."""
        if self._ports.monotonic() < self._note_at and not self._stop:
            return
        items = self._in_flight.notes()
        if not items:
            return
        try:
            on_their_way = await receiver.note([(item.delivery.token, item.spent) for item in items])
        except LeaseLost as error:
            self._event("lease-lost", detail=str(error))
            on_their_way = None
        except ConnectionLost:
            raise
        except BackendError as error:
            log.warning("%s: attempts at %d messages cannot be noted yet: %s", self._where, len(items), error)
            self._note_at = self._ports.monotonic() + PULSE
            self._in_flight.not_noted(items)
            return
        late = frozenset(on_their_way or ())
        self._in_flight.noted(item for item in items if item.delivery.token not in late)
        self._in_flight.not_noted([item for item in items if item.delivery.token in late])

    async def _begin(self, receiver: Receiver) -> None:
        """Keep at the broker that a suspect starts, before it does."""
        item = self._in_flight.suspect()
        if item is None:
            return
        try:
            self._in_flight.begun(item, await receiver.begin(item.delivery.token))
        except LeaseLost as error:
            self._event("lease-lost", detail=str(error))
            self._in_flight.refused(item)
        except ConnectionLost:
            raise
        except BackendError as error:
            log.debug("%s: a message that was with lost workers is put off: %s", self._where, error)
            self._in_flight.put_off(item)

    async def _act(self, receiver: Receiver, outcomes: list[Outcome]) -> None:
        """Do what the verdicts say."""
        copied = [outcome for outcome in outcomes if needs_copy(outcome)]
        if copied:
            outcomes = [outcome for outcome in outcomes if not needs_copy(outcome)]
            self._storing.submit(copied)
        # Copies are confirmed, then their originals are settled: only what comes back from storing is.
        await self._settle(receiver, outcomes + self._storing.collect())

    async def _settle(self, receiver: Receiver, outcomes: list[Outcome]) -> None:
        if not outcomes:
            return
        settlements = [(o.delivery.token, RELEASE if isinstance(o.verdict, Release) else DONE) for o in outcomes]
        try:
            await receiver.settle(settlements)
        except LeaseLost as error:
            self._event("lease-lost", detail=str(error))
        told = self._heard() or log.isEnabledFor(logging.DEBUG)
        for outcome in outcomes:
            if told or not isinstance(outcome.verdict, QUIET):
                self._tell(outcome)

    async def _outage(self, error: MqkitError, failures: int) -> None:
        """Say once that the session is gone; wait longer each time, but not before the first try."""
        if self._lost_at is None:
            self._lost_at = self._ports.monotonic()
            log.warning("%s: disconnected: %s", self._where, error)
            self._event("disconnected", detail=str(error))
        if self._stop:
            return
        if isinstance(error, ConfigurationError) and self._declare is not None:
            await made_anew(self._declare, self._where, self._stopping)  # somebody deleted what we work on
        if failures:
            wait = min(5.0, 0.05 * 2.0 ** min(failures, 10)) * (0.5 + self._ports.draw() / 2)
            await self._stopping.wait(wait)

    def _back(self) -> None:
        if self._lost_at is None:
            self._event("started")
            return
        outage = self._ports.monotonic() - self._lost_at
        self._lost_at = None
        log.warning("%s: connected again after %.1f s", self._where, outage)
        self._event("connected", seconds=outage)

    def _notify(self, kind: Literal["rebalance", "connected", "disconnected"], text: str) -> None:
        def tell() -> None:
            log.log(logging.INFO if kind == "rebalance" else logging.WARNING, "%s: %s: %s", self._where, kind, text)
            self._event(kind, detail=text)

        self._ports.post(tell)

    def _wake(self) -> None:
        if self._receiver is not None:
            self._receiver.wake()

    def _stuck(self, outcome: Outcome) -> None:
        """A function that goes on after its time-out cannot be stopped: tell, so that people can."""
        log.warning(
            "%s: stuck: %s goes on after its time-out, id=%s attempt=%d; until it ends it counts as running",
            self._where, self._handler.name, outcome.id, outcome.attempt,
        )  # fmt: skip
        self._event("stuck", id=outcome.id, attempt=outcome.attempt, seconds=outcome.seconds, detail=self._handler.name)

    @property
    def _where(self) -> str:
        return f"{self._subscription.topic}.{self._subscription.group}"

    def _event(self, kind: Kind, **facts: Any) -> None:
        self._emit(Event(kind, self._subscription.topic, self._subscription.group, **facts))

    def _tell(self, outcome: Outcome) -> None:
        """One event and one log line for a verdict."""
        told = telling(outcome)
        topic, group = self._subscription.topic, self._subscription.group
        if log.isEnabledFor(told.level):
            log.log(
                told.level, "%s topic=%s group=%s id=%s attempt=%d %s",
                told.kind, topic, group, outcome.id, outcome.attempt, " ".join(told.detail.split())[:300],
                extra={"event": told.kind, "topic": topic, "group": group, "id": outcome.id,
                       "attempt": outcome.attempt},
            )  # fmt: skip
        self._emit(Event(told.kind, topic, group, outcome.id, outcome.attempt, told.seconds, told.detail))
