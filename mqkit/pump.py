"""Receive, work, collect, publish copies, settle: the loop of one group, and how it comes back after an outage.

Handlers decide, only the pump acts. `_act` holds the two calls that everything rests on: the copy is confirmed, then
the original is settled; if the first fails, the second is not reached. Free of asyncio: it waits through its ports.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.envelope import buried, postponed, retried
from mqkit.errors import BackendError, ConfigurationError, LeaseLost, MessageTooLarge, MqkitError
from mqkit.events import Event, Kind
from mqkit.handler import Handler, Outcome
from mqkit.message import Outgoing
from mqkit.ports import Ports
from mqkit.producer import Producer
from mqkit.retry import failure
from mqkit.verdict import Again, DeadLetter, Done, Failure, Postpone, Release
from mqkit.workers import Workers

log = logging.getLogger("mqkit")

PULSE = 1.0
"""Seconds: how long a receive may wait, so that leases and group memberships are kept alive."""
MOMENT = 0.05
LASTING = 5.0
"""Seconds after which a session counts as one that worked, so that its successor is opened at once."""
STORE_TIMEOUT = 5.0
"""Seconds for storing copies, after which they are tried again while the originals stay where they are."""

KINDS: dict[type, Kind] = {
    Done: "done",
    Again: "retry",
    Postpone: "postponed",
    DeadLetter: "dead-letter",
    Release: "released",
}


class Pump:
    """Works one subscription until it is stopped; no outage ends it.

    Args:
        workers: makes the workers, given what to call when there is something to collect, and on a retry in place.
        declare: makes the topology again, for when somebody deleted it.
        emit: takes every event.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        handler: Handler,
        workers: Callable[[Callable[[], None], Callable[[Outcome], None]], Workers],
        producer: Producer,
        ports: Ports,
        emit: Callable[[Event], None],
        service: str,
        grace: float,
        declare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._backend = backend
        self._handler = handler
        self._producer = producer
        self._ports = ports
        self._emit = emit
        self._service = service
        self._grace = grace
        self._declare = declare
        self._prefix = backend.capabilities.attribute_prefix
        options = handler.options
        self._limit = options.concurrency + options.prefetch
        self._subscription = Subscription(
            topic=handler.topic.name,
            group=handler.group,
            prefetch=self._limit,
            ordering=options.ordering,
            options=handler.topic.options,
        )
        self._workers = workers(self._wake, self._repeated)
        self._receiver: Receiver | None = None
        self._epoch = 0
        self._unstored: list[Outcome] = []
        self._store_at = 0.0
        self._stopping = ports.signal()
        self._stop = False
        self._deadline: float | None = None
        self._lost_at: float | None = None
        self._lasted = False
        self.last_progress = ports.monotonic()
        """When this pump last heard from the broker, on the monotonic clock."""

    def stop(self) -> None:
        """Start no more handlers, let the running ones end within the grace, settle, and return from `run`."""
        self._stop = True
        self._stopping.set()
        self._wake()

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._receiver is not None

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return self._workers.running

    async def run(self) -> None:
        """Work until stopped."""
        failures = 0
        while not self._stop:
            lost = await self._session()
            if lost is None:
                break
            failures = 0 if self._lasted else failures
            await self._outage(lost, failures)
            failures += 1
        self._workers.stop()
        await self._let_end()
        self._workers.cancel()
        self._event("stopped")

    async def _let_end(self) -> None:
        """The rest of the grace for handlers that outlived their session; what they did will be done again."""
        deadline = self._ports.monotonic() + self._grace if self._deadline is None else self._deadline
        while self._workers.running and self._ports.monotonic() < deadline:
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
            receiver, self._receiver = self._receiver, None
            self._workers.drop()
            self._unstored.clear()
            if receiver is not None:
                await receiver.close()

    async def _work(self, receiver: Receiver) -> None:
        while True:
            if self._stop and self._deadline is None:
                self._deadline = self._ports.monotonic() + self._grace
                self._workers.stop()
            room = 0 if self._stop else self._limit - self._workers.outstanding - len(self._unstored)
            deliveries = await receiver.receive(max(room, 0), self._patience())
            self.last_progress = self._ports.monotonic()
            if deliveries and self._stop:
                await receiver.settle([(delivery.token, Settlement.RELEASE) for delivery in deliveries])
            elif deliveries:
                self._workers.submit(deliveries, self._epoch)
            await self._act(receiver, self._due())
            if self._deadline is not None and not self._unstored and not self._workers.outstanding:
                return
            if self._deadline is not None and self._ports.monotonic() >= self._deadline:
                await self._give_up(receiver)
                return

    def _patience(self) -> float:
        """Seconds until something has to be looked at again."""
        now = self._ports.monotonic()
        until = now + PULSE
        if self._unstored:
            until = min(until, self._store_at)
        if self._deadline is not None:
            until = min(until, self._deadline) if self._unstored or self._workers.outstanding else now
        return max(until - now, 0.0)

    def _due(self) -> list[Outcome]:
        outcomes = [outcome for outcome in self._workers.collect() if outcome.epoch == self._epoch]
        if self._unstored and (self._stop or self._ports.monotonic() >= self._store_at):
            outcomes = self._unstored + outcomes
            self._unstored = []
        return outcomes

    async def _give_up(self, receiver: Receiver) -> None:
        """The grace is over: what still runs is cancelled and given back."""
        log.warning("%s: %d handlers did not end within %g s", self._where, self._workers.running, self._grace)
        self._workers.cancel()
        tries = 0
        while self._workers.running and tries < 20:
            tries += 1
            await receiver.receive(0, 0.05)
        outcomes = self._due()
        for outcome in outcomes:
            if not isinstance(outcome.verdict, Done):
                outcome.verdict = Release()
        await self._act(receiver, outcomes)

    async def _act(self, receiver: Receiver, outcomes: list[Outcome]) -> None:
        """Do what the verdicts say, and keep for later what could not be stored."""
        await self._settle(receiver, [outcome for outcome in outcomes if not _needs_copy(outcome)])
        copied = [outcome for outcome in outcomes if _needs_copy(outcome)]
        if not copied:
            return
        # The copies are confirmed, then the originals are settled. Nothing stands between, and nothing settles first.
        stored = await self._store(copied)
        await self._settle(receiver, stored)

    async def _settle(self, receiver: Receiver, outcomes: list[Outcome]) -> None:
        if not outcomes:
            return
        settlements = [
            (o.delivery.token, Settlement.RELEASE if isinstance(o.verdict, Release) else Settlement.DONE)
            for o in outcomes
        ]
        try:
            await receiver.settle(settlements)
        except LeaseLost as error:
            self._event("lease-lost", detail=str(error))
        for outcome in outcomes:
            self._tell(outcome)

    async def _store(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Publish the copies of these; those of which every copy is safe. The others are kept for another try."""
        batch: list[Outgoing] = []
        spans: list[tuple[Outcome, range]] = []
        for outcome in outcomes:
            copies = self._copies(outcome)
            spans.append((outcome, range(len(batch), len(batch) + len(copies))))
            batch.extend(copies)
        errors = await self._producer.send(batch, STORE_TIMEOUT)
        stored = []
        for outcome, span in spans:
            wrong = [errors[i] for i in span if i in errors]
            if not wrong:
                stored.append(outcome)
                continue
            log.error(
                "%s: message %s stays where it is, its %s could not be stored: %s",
                self._where, outcome.id, _what(outcome), wrong[0],
            )  # fmt: skip
            self._instead(outcome, wrong[0])
            self._unstored.append(outcome)
            self._store_at = self._ports.monotonic() + PULSE
        return stored

    @staticmethod
    def _instead(outcome: Outcome, error: MqkitError) -> None:
        """What cannot be stored as it is: a dead letter goes without its traceback, all else becomes a dead letter."""
        verdict = outcome.verdict
        if isinstance(verdict, DeadLetter) and isinstance(error, MessageTooLarge):
            slim = Failure(verdict.failure.error, verdict.failure.text[:100])
            outcome.verdict = DeadLetter(verdict.reason, slim)
        elif isinstance(verdict, (Again, Postpone)) and isinstance(error, MessageTooLarge):
            outcome.verdict = DeadLetter("too-large", failure(error))
        elif isinstance(verdict, Done) and not getattr(error, "retryable", False):
            outcome.verdict = DeadLetter("result", failure(error))

    def _copies(self, outcome: Outcome) -> tuple[Outgoing, ...]:
        """The messages that must be safe before this one is settled."""
        verdict, delivery, now = outcome.verdict, outcome.delivery, self._ports.now()
        if isinstance(verdict, Done):
            return verdict.publish
        if isinstance(verdict, Again):
            wire = retried(
                delivery, self._prefix, outcome.id,
                attempts=outcome.attempt, failure=verdict.failure, now=now, delay=verdict.delay,
            )  # fmt: skip
            return (Outgoing(wire, delivery.topic, delivery.group, delay=verdict.delay),)
        if isinstance(verdict, Postpone):
            assert outcome.envelope is not None
            wire = postponed(delivery, self._prefix, outcome.envelope)
            return (Outgoing(wire, delivery.topic, delivery.group, delay=verdict.delay),)
        if isinstance(verdict, DeadLetter):
            wire = buried(
                delivery, self._prefix, outcome.id,
                reason=verdict.reason, attempts=outcome.attempt, failure=verdict.failure, now=now,
                handler=self._handler.name, service=self._service,
            )  # fmt: skip
            return (Outgoing(wire, delivery.topic, delivery.group, dead=True),)
        return ()

    async def _outage(self, error: MqkitError, failures: int) -> None:
        """Say once that the session is gone; wait longer each time, but not before the first try."""
        if self._lost_at is None:
            self._lost_at = self._ports.monotonic()
            log.warning("%s: disconnected: %s", self._where, error)
            self._event("disconnected", detail=str(error))
        if self._stop:
            return
        if isinstance(error, ConfigurationError) and self._declare is not None:
            try:
                await self._declare()  # somebody deleted what we work on
            except MqkitError as refused:
                log.warning("%s: cannot be declared again: %s", self._where, refused)
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

    def _repeated(self, outcome: Outcome) -> None:
        if outcome.epoch in (0, self._epoch):
            self._tell(outcome)

    @property
    def _where(self) -> str:
        return f"{self._subscription.topic}.{self._subscription.group}"

    def _event(self, kind: Kind, *, seconds: float = 0.0, detail: str = "") -> None:
        self._emit(Event(kind, self._subscription.topic, self._subscription.group, seconds=seconds, detail=detail))

    def _tell(self, outcome: Outcome) -> None:
        """One event and one log line for a verdict."""
        verdict = outcome.verdict
        kind = "skipped" if isinstance(verdict, Done) and verdict.skipped else KINDS[type(verdict)]
        detail = ""
        seconds = outcome.seconds
        level = logging.DEBUG
        if isinstance(verdict, Again):
            detail, seconds, level = f"{verdict.failure.error}: {verdict.failure.text}", verdict.delay, logging.INFO
        elif isinstance(verdict, DeadLetter):
            detail = f"{verdict.reason}: {verdict.failure.error}: {verdict.failure.text}"
            level = logging.WARNING
        if log.isEnabledFor(level):
            log.log(
                level, "%s topic=%s group=%s id=%s attempt=%d %s",
                kind, self._subscription.topic, self._subscription.group, outcome.id, outcome.attempt,
                " ".join(detail.split())[:300],
                extra={"event": kind, "topic": self._subscription.topic, "group": self._subscription.group,
                       "id": outcome.id, "attempt": outcome.attempt},
            )  # fmt: skip
        self._emit(
            Event(
                kind, self._subscription.topic, self._subscription.group, outcome.id, outcome.attempt, seconds, detail
            )
        )


def _needs_copy(outcome: Outcome) -> bool:
    verdict = outcome.verdict
    return bool(verdict.publish) if isinstance(verdict, Done) else not isinstance(verdict, Release)


def _what(outcome: Outcome) -> str:
    return {Again: "retry", Postpone: "delay", DeadLetter: "dead letter", Done: "result"}[type(outcome.verdict)]
