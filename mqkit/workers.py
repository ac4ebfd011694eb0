"""Jobs that run handlers: each takes what may start, one after the other, and ends when there is nothing."""

import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Protocol

from mqkit.handler import Outcome
from mqkit.in_flight import InFlight, Item
from mqkit.ports import Job, Ports
from mqkit.retry import failure
from mqkit.verdict import Again

log = logging.getLogger("mqkit")


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
        in_flight.on_startable = self._staff

    def cancel(self) -> None:
        """As Runner.cancel."""
        for job in list(self._jobs.values()):
            job.cancel()

    def _staff(self) -> None:
        """Enough jobs for what may start."""
        for _ in range(min(self._in_flight.startable, self._concurrency - len(self._jobs))):
            number = next(self._numbers)
            self._jobs[number] = self._ports.spawn(self._work(number), f"mqkit {self._handler.name}")

    async def _work(self, number: int) -> None:
        try:
            while self._in_flight.startable:
                await self._attempt(self._in_flight.start())
        finally:
            self._jobs.pop(number, None)
            self._staff()

    async def _attempt(self, item: Item) -> None:
        still: Job | None = None
        outcome = self._handler.released(item.delivery)
        try:
            outcome = await self._ports.apart(self._handler.process(item.delivery, item.spent, item.id))
            if outcome.still is not None:
                still = outcome.still
                self._on_stuck(outcome)
                if item.key is not None:  # nothing of one key overlaps
                    await _end_of(still)
        except self._ports.cancelled:
            outcome = self._handler.released(item.delivery)
        except Exception as error:
            log.exception("a delivery of %s met an error in mqkit itself", item.delivery.topic)
            outcome.verdict = Again(1.0, failure(error), counted=False)
        finally:
            self._in_flight.over(item, outcome)
        if still is not None:
            await _end_of(still)  # until then it counts among those that run at once


async def _end_of(still: Job) -> None:
    """Wait for the end of a function, whatever it comes to."""
    with suppress(Exception):
        await still.join()
