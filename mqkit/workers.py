"""Where handlers run, and in which order: lanes by key, and tasks that take from them.

`Lanes` decides who may start; it is plain data. `TaskWorkers` runs handlers on an event loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from mqkit.handler import Handler, Outcome
from mqkit.message import Delivery
from mqkit.retry import failure
from mqkit.verdict import Again, Release

log = logging.getLogger("mqkit")


class Item:
    """One delivery inside a worker process."""

    __slots__ = ("delivery", "epoch", "id", "key", "spent", "stale")

    def __init__(self, delivery: Delivery, epoch: int, key: bytes | None) -> None:
        self.delivery = delivery
        self.epoch = epoch
        self.key = key
        self.spent = 0
        """Attempts that happened in place."""
        self.id: str | None = None
        """Of the message, once it was read."""
        self.stale = False
        """Its session is gone: it will be delivered again, so nothing is repeated in place."""


class Lanes:
    """Which item may start next. Items of one key start in the order they came, one at a time."""

    def __init__(self) -> None:
        self._ready: deque[Item] = deque()
        self._lanes: dict[bytes, deque[Item]] = {}
        """For each key with an item that started or may start: those behind it."""
        self._behind = 0

    def __len__(self) -> int:
        """Items that have not started, held ones aside."""
        return len(self._ready) + self._behind

    @property
    def startable(self) -> int:
        """Items that could start now."""
        return len(self._ready)

    def add(self, item: Item) -> None:
        """`item` came in, after all others."""
        if item.key is not None:
            lane = self._lanes.get(item.key)
            if lane is not None:
                lane.append(item)
                self._behind += 1
                return
            self._lanes[item.key] = deque()
        self._ready.append(item)

    def start(self) -> Item:
        """The next item; IndexError if none may start."""
        return self._ready.popleft()

    def resume(self, item: Item) -> None:
        """`item`, which had started, is to start again; its key stayed blocked."""
        self._ready.append(item)

    def finish(self, item: Item) -> None:
        """`item` is over: the next of its key may start."""
        if item.key is None:
            return
        lane = self._lanes[item.key]
        if lane:
            self._behind -= 1
            self._ready.append(lane.popleft())
        else:
            del self._lanes[item.key]

    def clear(self) -> list[Item]:
        """Take out all that has not started, in an order that keeps each key's."""
        left: list[Item] = []
        for item in self._ready:
            left.append(item)
            if item.key is not None:
                left.extend(self._lanes.pop(item.key))
        self._ready.clear()
        for lane in self._lanes.values():
            left.extend(lane)
            lane.clear()
        self._behind = 0
        return left


class Workers(Protocol):
    """Runs handlers for a pump. All methods are called by the thread that owns the app."""

    def submit(self, deliveries: Iterable[Delivery], epoch: int) -> None:
        """Work at these when their turn comes."""
        ...

    def collect(self) -> list[Outcome]:
        """What finished since the last call."""
        ...

    @property
    def outstanding(self) -> int:
        """Deliveries that were submitted and not collected."""
        ...

    @property
    def running(self) -> int:
        """Handlers that run now."""
        ...

    def stop(self) -> None:
        """Start nothing more: what has not started becomes a Release."""
        ...

    def drop(self) -> None:
        """Forget what has not started: its session is gone and it will be delivered again."""
        ...

    def cancel(self) -> None:
        """End the running handlers: each becomes a Release."""
        ...


class TaskWorkers:
    """Handlers as tasks on the running event loop, at most `concurrency` at once.

    Args:
        handler: what to run.
        on_outcome: called when there is something to collect.
        on_again: called with the outcome of an attempt that is repeated in place.
    """

    def __init__(self, handler: Handler, on_outcome: Callable[[], None], on_again: Callable[[Outcome], None]) -> None:
        self._handler = handler
        self._ordered = handler.options.ordering == "key"
        self._concurrency = handler.options.concurrency
        self._on_outcome = on_outcome
        self._on_again = on_again
        self._loop = asyncio.get_running_loop()
        self._lanes = Lanes()
        self._held: dict[Item, asyncio.TimerHandle] = {}
        self._running: dict[Item, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []
        self._stopped = False

    @property
    def outstanding(self) -> int:
        """As Workers.outstanding."""
        return len(self._lanes) + len(self._held) + len(self._running) + len(self._outcomes)

    @property
    def running(self) -> int:
        """As Workers.running."""
        return len(self._running)

    def submit(self, deliveries: Iterable[Delivery], epoch: int) -> None:
        """As Workers.submit."""
        for delivery in deliveries:
            self._lanes.add(Item(delivery, epoch, delivery.message.key if self._ordered else None))
        self._staff()

    def collect(self) -> list[Outcome]:
        """As Workers.collect."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def stop(self) -> None:
        """As Workers.stop."""
        self._stopped = True
        for item in (*self._take_held(), *self._lanes.clear()):
            self._give_back(item)

    def drop(self) -> None:
        """As Workers.drop."""
        self._take_held()
        self._lanes.clear()
        for item in self._running:
            item.stale = True

    def cancel(self) -> None:
        """As Workers.cancel."""
        for task in self._tasks:
            task.cancel()

    def _take_held(self) -> list[Item]:
        held = list(self._held)
        for item, timer in self._held.items():
            timer.cancel()
            self._lanes.finish(item)
        self._held.clear()
        return held

    def _give_back(self, item: Item) -> None:
        outcome = self._handler.released(item.delivery)
        outcome.epoch = item.epoch
        self._put(outcome)

    def _put(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if len(self._outcomes) == 1:
            self._on_outcome()

    def _staff(self) -> None:
        """Enough tasks for what may start. A task takes one item after the other and ends when there is none."""
        for _ in range(min(self._lanes.startable, self._concurrency - len(self._tasks))):
            task = self._loop.create_task(self._work(), name=f"mqkit {self._handler.name}")
            self._tasks.add(task)
            task.add_done_callback(self._gone)

    def _gone(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not self._stopped:
            self._staff()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while self._lanes.startable and not self._stopped:
            item = self._lanes.start()
            self._running[item] = task
            try:
                outcome = await self._handler.process(item.delivery, item.spent, item.id)
            except asyncio.CancelledError:
                outcome = self._handler.released(item.delivery)
            except Exception as error:
                log.exception("a delivery of %s met an error in mqkit itself", item.delivery.topic)
                outcome = self._handler.released(item.delivery)
                outcome.verdict = Again(1.0, failure(error), inline=True, counted=False)
            finally:
                del self._running[item]
            outcome.epoch = item.epoch
            self._over(item, outcome)

    def _over(self, item: Item, outcome: Outcome) -> None:
        verdict = outcome.verdict
        if isinstance(verdict, Again) and (verdict.inline or item.key is not None) and not item.stale:
            if self._stopped:
                outcome.verdict = Release()
            else:
                item.id = outcome.id or None
                item.spent += verdict.counted
                self._held[item] = self._loop.call_later(verdict.delay, self._resume, item)
                self._on_again(outcome)
                return
        self._lanes.finish(item)
        self._put(outcome)

    def _resume(self, item: Item) -> None:
        del self._held[item]
        self._lanes.resume(item)
        self._staff()
