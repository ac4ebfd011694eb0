"""Jobs that run handlers: each takes what may start, one after the other, and ends when there is nothing.

While a handler is quick, one job does it all and the pump hears of many at once: handing over to another thread, or
settling one by one, would cost more than the handler does. A look now and then sees to it that nothing waits for one
that turns out slow.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final, Protocol

from mqkit.handler import Outcome
from mqkit.in_flight import InFlight
from mqkit.lanes import Item
from mqkit.ports import Job, Ports, Timer
from mqkit.retry import failure
from mqkit.verdict import Again

log = logging.getLogger("mqkit")

QUICK: Final = 0.0001
"""Seconds: what takes longer is worth a job of its own."""
LOOK: Final = 0.002
"""Seconds between two looks. Behind a handler that is quick as a rule, messages may wait for two of them."""


class Pace:
    """Whether a handler is quick: nearly all of its last attempts were."""

    def __init__(self) -> None:
        self._slow = 0.0
        self.quick = True
        """Until the contrary is known."""

    def took(self, seconds: float) -> None:
        """Another attempt did."""
        self._slow += ((seconds > QUICK) - self._slow) / 16
        self.quick = self._slow < 0.25


class Runner(Protocol):
    """Who takes what may start from an InFlight, and tells it what became of that."""

    def cancel(self) -> None:
        """End what runs, where that can be done: each becomes a Release."""
        ...


class Workers:
    """Runs handlers, at most `concurrency` at once.

    Args:
        in_flight: what there is to do.
        ports: the world.
        on_stuck: called with the outcome of an attempt whose function goes on after its time-out.
    """

    def __init__(self, in_flight: InFlight, ports: Ports, on_stuck: Callable[[Outcome], None]) -> None:
        self._in_flight = in_flight
        self._handler = in_flight.handler
        self._concurrency = self._handler.options.concurrency
        self._ports = ports
        self._on_stuck = on_stuck
        self._jobs: dict[int, Job] = {}
        self._numbers = count()
        self._pace = Pace()
        self._burst = max(1, (self._concurrency + self._handler.options.prefetch) // 8)
        self._attempts = 0
        self._timer: Timer | None = None
        self._context = ports.context()
        """Of where the app was started: each message gets a copy."""
        in_flight.on_startable = self._staff

    def cancel(self) -> None:
        """As Runner.cancel."""
        for job in list(self._jobs.values()):
            job.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _staff(self, *, enough: bool = False) -> None:
        """Begin with what may start: with one job while the handler is quick, else with as many as are of use."""
        useful = min(self._in_flight.startable, self._concurrency - len(self._jobs))
        one_will_do = self._pace.quick and not enough
        for _ in range(min(useful, 0 if self._jobs else 1) if one_will_do else useful):
            number = next(self._numbers)
            self._jobs[number] = self._ports.spawn(self._work(number), f"mqkit {self._handler.name}")
        if one_will_do and self._jobs:
            self._watch()

    def _watch(self) -> None:
        """Look soon, if nobody does."""
        if self._timer is None:
            self._timer = self._ports.later(LOOK, partial(self._look, self._attempts))

    def _look(self, before: int) -> None:
        """Nothing waits for long: more jobs, if not one attempt ended meanwhile; the pump is told what is over."""
        self._timer = None
        self._in_flight.tell()
        self._staff(enough=self._attempts == before)

    async def _work(self, number: int) -> None:
        try:
            while item := self._in_flight.start():
                await self._attempt(item)
        finally:
            self._jobs.pop(number, None)
            self._in_flight.tell()
            self._staff()

    async def _attempt(self, item: Item) -> None:
        still: Job | None = None
        outcome: Outcome | None = None
        try:
            process = self._handler.process(item.delivery, item.spent, item.lost)
            outcome = await self._ports.apart(process, self._context)
            if outcome.still is not None:
                still = outcome.still
                self._on_stuck(outcome)
                if item.key is not None:  # nothing of one key overlaps
                    await _end_of(still)
        except self._ports.cancelled:
            pass
        except Exception as error:
            log.exception("a delivery of %s met an error in mqkit itself", item.delivery.topic)
            outcome = self._handler.released(item.delivery)
            outcome.verdict = Again(1.0, failure(error), counted=False)
        finally:
            outcome = outcome or self._handler.released(item.delivery)
            self._attempts += 1
            self._pace.took(outcome.seconds)
            self._in_flight.burst = self._burst if self._pace.quick else 1
            self._in_flight.over(item, outcome)
            if self._pace.quick and self._timer is None:
                self._watch()
        if still is not None:
            await _end_of(still)  # until then it counts among those that run at once


async def _end_of(still: Job) -> None:
    """Wait for the end of a function, whatever it comes to."""
    with suppress(Exception):
        await still.join()
