"""Keeping copies safe, beside the loop that receives: an outcome comes back from here when its copies are confirmed.

Each place that copies go to has a job of its own while there is something for it, so that one that is full, missing or
blocked holds up no other. What cannot be stored waits, longer each time; a place that is not known to be there is
declared before, and again where it turns out to be missing. What changed is logged, and not each try.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mqkit.backend import Recall
from mqkit.copies import Copies, instead, place, what
from mqkit.declarations import Declare
from mqkit.errors import BackendError, ClosedError, MqkitError, TopologyError, Unroutable
from mqkit.handler import Outcome
from mqkit.message import Outgoing
from mqkit.ports import Job, Ports
from mqkit.producer import Producer
from mqkit.topology import STEPS
from mqkit.wrapping import lies_in_the_form

log = logging.getLogger("mqkit")

STORE_TIMEOUT: Final = 5.0
"""Seconds for storing copies, after which they are tried again while the originals stay where they are."""
BATCH: Final = 500
"""Messages whose copies are stored together."""
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 5.0
"""Seconds between two tries, as long as each may succeed,"""
LONGEST_REFUSAL: Final = 60.0
"""and for what the broker refuses."""
WAITING: Final = frozenset({"retry", "delay"})
"""What is stored (copies.what) where messages wait a step of their way."""
REFUSED: Final = ("refused", None)
"""The place of messages that no form helps."""


class Shelf:
    """What waits to be stored at one place."""

    __slots__ = ("failures", "job", "name", "out", "over", "since", "stir", "told", "waiting")

    def __init__(self, name: tuple[str, object], ports: Ports) -> None:
        self.name = name
        self.waiting: deque[Outcome] = deque()
        self.out: list[Outcome] = []
        """Whose copies are on their way."""
        self.failures = 1 if name == REFUSED else 0
        """In a row; what is refused has failed before it comes here."""
        self.told = False
        """Whether the log knows of them,"""
        self.since = 0.0
        """and since when, on the monotonic clock."""
        self.over = False
        """Nobody waits for what is here any more."""
        self.stir = ports.signal()
        self.job: Job | None = None

    @property
    def step(self) -> float | None:
        """Seconds that messages wait at this place, as one step of their way; None: they do not."""
        kind, delay = self.name
        return delay if kind in WAITING and isinstance(delay, float) and delay > 0 else None


class Storing:
    """The outcomes of one group that need copies, until these are safe.

    Args:
        declare: makes what is missing; None if that is not for the app to do.
        on_news: called when there is something to collect.
        where: the group, for the log.
    """

    def __init__(
        self,
        *,
        copies: Copies,
        producer: Producer,
        ports: Ports,
        declare: Declare | None,
        on_news: Callable[[], None],
        where: str,
    ) -> None:
        self._copies = copies
        self._producer = producer
        self._ports = ports
        self._declare = declare
        self._steps = {*STEPS[:1]}
        """Those that are known to have a place."""
        self._on_news = on_news
        self._where = where
        self._shelves: dict[tuple[str, object], Shelf] = {}
        self._stored: list[Outcome] = []
        self._here = 0
        self._size = 0

    def __len__(self) -> int:
        """Outcomes that were submitted and neither collected nor taken back."""
        return self._here

    @property
    def size(self) -> int:
        """Bytes of the bodies of all of them."""
        return self._size

    @property
    def sending(self) -> bool:
        """Whether copies are on their way, or are about to be: those that have not failed yet."""
        return any(shelf.out or (shelf.waiting and not shelf.failures) for shelf in self._shelves.values())

    def submit(self, outcomes: Iterable[Outcome]) -> None:
        """The copies of these are to be stored."""
        for outcome in outcomes:
            self._here += 1
            self._size += len(outcome.delivery.message.body)
            self._put(place(outcome), outcome)

    def collect(self) -> list[Outcome]:
        """Those of which every copy is confirmed, since the last call."""
        stored, self._stored = self._stored, []
        self._forget(stored)
        return stored

    def hurry(self) -> None:
        """Try all at once that waits to be tried again."""
        for shelf in self._shelves.values():
            if shelf.failures:
                shelf.stir.set()

    def take_back(self) -> list[Outcome]:
        """Those that are not known to be stored; no more is done for them."""
        shelves, self._shelves = self._shelves, {}
        left: list[Outcome] = []
        for shelf in shelves.values():
            left += (*shelf.out, *shelf.waiting)
            shelf.over = True
            if shelf.job is not None:
                shelf.job.cancel()
        self._forget(left)
        return left

    def withdraw(self, recall: Recall) -> int:
        """Forget those that are lost, but for copies that are on their way; how many."""

        def stays(outcome: Outcome) -> bool:
            return not recall.covers(outcome.delivery.token)

        before = [*self._stored]
        self._stored = list(filter(stays, before))
        for shelf in self._shelves.values():
            before += shelf.waiting
            shelf.waiting = deque(filter(stays, shelf.waiting))
        gone = [outcome for outcome in before if not stays(outcome)]
        self._forget(gone)
        return len(gone)

    def drop(self) -> None:
        """Forget all: the session is gone, and its messages are delivered again."""
        self.take_back()
        self.collect()

    def _forget(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._here -= 1
            self._size -= len(outcome.delivery.message.body)

    def _put(self, name: tuple[str, object], outcome: Outcome) -> None:
        shelf = self._shelves.get(name)
        if shelf is None:
            shelf = self._shelves[name] = Shelf(name, self._ports)
        shelf.waiting.append(outcome)
        if shelf.job is None:
            shelf.job = self._ports.spawn(self._work(shelf), f"mqkit {shelf.name[0]} of {self._where}")

    async def _work(self, shelf: Shelf) -> None:
        """Store until nothing waits. Nobody else takes from this shelf."""
        while shelf.waiting and not shelf.over:
            if shelf.failures:
                longest = LONGEST_REFUSAL if shelf.name == REFUSED else LONGEST_WAIT
                wait = min(longest, FIRST_WAIT * 2.0 ** min(shelf.failures - 1, 10))
                await shelf.stir.wait(wait * (0.75 + self._ports.draw() / 4))
                if not shelf.waiting:
                    break  # all of it was lost meanwhile
            shelf.out = [shelf.waiting.popleft() for _ in range(min(BATCH, len(shelf.waiting)))]
            count = len(shelf.out)
            failed: list[tuple[Outcome, MqkitError]]
            try:
                await self._step_ready(shelf)
                failed = await self._store(shelf.out)
            except MqkitError as error:
                failed = [(outcome, error) for outcome in shelf.out]
            except Exception as error:
                log.exception("%s: storing %ss met an error in mqkit itself", self._where, shelf.name[0])
                wrong = BackendError(f"{type(error).__name__}: {error}", retryable=True)
                safe = set(map(id, self._stored))
                failed = [(outcome, wrong) for outcome in shelf.out if id(outcome) not in safe]
            if shelf.over:
                return
            shelf.out = []
            if failed:
                await self._failed(shelf, failed, progress=len(failed) < count)
            elif shelf.told:
                shelf.told = False
                log.warning(
                    "%s: %s: stored again after %.1f s",
                    self._where,
                    shelf.name[0],
                    self._ports.monotonic() - shelf.since,
                )
                shelf.failures = 0
        shelf.job = None
        if self._shelves.get(shelf.name) is shelf:
            del self._shelves[shelf.name]

    async def _store(self, outcomes: list[Outcome]) -> list[tuple[Outcome, MqkitError]]:
        """Publish the copies of these, each in whatever form is taken. Those that are not safe, and why."""
        failed: list[tuple[Outcome, MqkitError]] = []
        left = outcomes
        while left:
            batch: list[Outgoing] = []
            spans: list[tuple[Outcome, range]] = []
            now = self._ports.now()
            for outcome in left:
                copies = self._copies.of(outcome, now)
                spans.append((outcome, range(len(batch), len(batch) + len(copies))))
                batch.extend(copies)
            try:
                errors = await self._producer.send(batch, STORE_TIMEOUT)
            except ClosedError as closed:
                errors = dict.fromkeys(range(len(batch)), closed)
            left = []
            for outcome, span in spans:
                error = next((errors[i] for i in span if i in errors), None)
                if error is None:
                    self._stored.append(outcome)
                elif instead(outcome, error):
                    left.append(outcome)
                else:
                    failed.append((outcome, error))
            if self._stored:
                self._on_news()
        return failed

    async def _failed(self, shelf: Shelf, failed: list[tuple[Outcome, MqkitError]], *, progress: bool) -> None:
        """Keep these for another try, where they hold up nothing else; say so once."""
        stay: list[Outcome] = []
        why: MqkitError | None = None
        missing = False
        for outcome, error in failed:
            name = REFUSED if lies_in_the_form(error) else place(outcome)
            if name == shelf.name:
                stay.append(outcome)
                why, missing = why or error, missing or isinstance(error, Unroutable)
            else:
                if name == REFUSED:
                    log.error(
                        "%s: message %s stays where it is, its %s could not be stored in any form: %s",
                        self._where, outcome.id, what(outcome), error,
                    )  # fmt: skip
                self._put(name, outcome)
        if why is None:
            return
        shelf.waiting.extendleft(reversed(stay))
        shelf.failures = 1 if progress else shelf.failures + 1
        if shelf.name != REFUSED and not shelf.told:
            shelf.told, shelf.since = True, self._ports.monotonic()
            log.error(
                "%s: %d messages stay where they are, their %s could not be stored: %s",
                self._where, len(stay), shelf.name[0], why,
            )  # fmt: skip
        if missing and await self._declared_again(shelf) and shelf.failures == 1:
            shelf.stir.set()

    async def _step_ready(self, shelf: Shelf) -> None:
        """Make the place of the step that is waited here, before the first message goes there.

        Raises:
            TopologyError: it is there, and may not keep what waits.
        """
        step = shelf.step
        if self._declare is None or step is None or step in self._steps:
            return
        try:
            await self._declare(frozenset((step,)))
        except TopologyError:
            raise
        except MqkitError as error:  # it may be there all the same; if not, that is told
            log.debug("%s: no place could be made for a step of %g s: %s", self._where, step, error)
        else:
            self._steps.add(step)

    async def _declared_again(self, shelf: Shelf) -> bool:
        """Make anew what somebody deleted; whether that was possible."""
        if self._declare is None:
            return False
        try:
            await self._declare(frozenset())
            if shelf.step is not None:
                await self._declare(frozenset((shelf.step,)))
        except MqkitError as refused:
            log.warning("%s: cannot be declared again: %s", self._where, refused)
            return False
        return True
