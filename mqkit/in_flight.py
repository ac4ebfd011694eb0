"""The deliveries that this process has, and how each stands: which may start, in which order, what became of it.

What was with workers that were lost is a suspect (alone.py): it starts after it was kept at the broker that it does.

Who may start next is decided in lanes.py. `InFlight` is what the pump fills and empties; who runs the handlers is
`workers.py`, or the user's own loop: `pull.py`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from mqkit.alone import ABSENT, Alone
from mqkit.attributes import identity
from mqkit.backend import Recall
from mqkit.handler import Handler, Outcome
from mqkit.lanes import Item, Lanes
from mqkit.message import Delivery
from mqkit.ports import Ports, Timer
from mqkit.verdict import Again, DeadLetter, Release

NOWHERE: Final = -1
"""The epoch of what was lost: no session has it."""


class InFlight:
    """Deliveries between the pump and whoever runs the handlers. All is called from within the orchestration.

    An attempt that is to be repeated in place is held: its delivery stays with this process, and its key blocked. If
    it counts, that is noted at the broker first (`notes`, `noted`).

    Args:
        handler: what they are for.
        ports: the world.
        on_news: called when there is something to collect, or to note.
        on_again: called with the outcome of an attempt that is repeated in place.
        lease: as Capabilities.lease.
    """

    def __init__(
        self,
        handler: Handler,
        ports: Ports,
        *,
        on_news: Callable[[], None],
        on_again: Callable[[Outcome], None],
        lease: float | None = None,
    ) -> None:
        self.handler = handler
        self.on_startable: Callable[[], None] = lambda: None
        """Called when something may start."""
        self.burst = 1
        """How many are over before there is news; whoever takes from here sees to it that nothing waits for long."""
        self._ports = ports
        self._ordered = handler.options.ordering == "key"
        self._on_news = on_news
        self._on_again = on_again
        self._alone: Alone[Item] = Alone(ports, self._changed)
        self._lanes = Lanes(self._alone.waiting)
        self._held: dict[Item, Timer | None] = {}
        """Those that wait to be repeated; without a timer until they are noted."""
        self._unnoted: list[Item] = []
        self._running: set[Item] = set()
        self._outcomes: list[Outcome] = []
        self._bytes = 0
        self._told = False
        """Whether there is news of these."""
        self._stopped = False
        self._lease = lease
        self._ours_until = float("inf")
        """On the monotonic clock: until then nobody else can have what is here."""

    def __len__(self) -> int:
        """Deliveries that were submitted and not collected."""
        apart = self._unstarted is not None
        return len(self._lanes) + len(self._held) + len(self._running) + len(self._outcomes) + apart

    @property
    def aside(self) -> int:
        """How many of them could not run now: they wait for their time, or for another of their key."""
        return len(self._held) + self._lanes.behind

    @property
    def size(self) -> int:
        """Bytes of the bodies of all of them."""
        return self._bytes

    @property
    def running(self) -> int:
        """How many were started and are not over."""
        return len(self._running)

    @property
    def startable(self) -> int:
        """How many may start now."""
        if self._stopped or (self._lease is not None and self._ports.monotonic() >= self._ours_until):
            return 0  # if it stood still for so long, what this process has may be with another by now
        alone = self._alone
        if (alone.item is not None or alone.waiting) and alone.others_wait:
            return int(self._unstarted is not None and self._unstarted.begun)
        return len(self._lanes.ready)

    @property
    def _unstarted(self) -> Item | None:
        """The suspect that is alone, if it has not started."""
        item = self._alone.item
        return None if item in self._running else item

    # ---- the pump's side

    def submit(self, deliveries: Iterable[Delivery], epoch: int) -> None:
        """These came in."""
        for delivery in deliveries:
            message = delivery.message
            self._bytes += len(message.body)
            self._lanes.add(Item(delivery, epoch, message.key if self._ordered else None))
        self.on_startable()

    def hold(self) -> None:
        """The receiver was called just now, and still has what it gave: it may start, for half of the lease."""
        if self._lease is not None:
            now = self._ports.monotonic()
            late, self._ours_until = now >= self._ours_until, now + self._lease / 2
            if late:
                self.on_startable()

    def suspect(self) -> Item | None:
        """A suspect whose beginning is to be kept at the broker now: `begun`, `put_off` or `refused` must follow."""
        return None if self._stopped else self._alone.take(running=bool(self._running))

    def begun(self, item: Item, lost: int) -> None:
        """It is kept that this suspect begins; and was, how often it had begun before and nobody was heard of again."""
        item.begun = True
        item.lost = self._alone.really_lost(identity(item.delivery), lost)
        if self._stopped:
            self.refused(item)
        else:
            self._alone.begins()
            self.on_startable()

    def put_off(self, item: Item) -> None:
        """That cannot be kept now: others go on, and it is tried again."""
        if self._stopped:
            self.refused(item)
        else:
            self._alone.put_off()

    def refused(self, item: Item) -> None:
        """This suspect does not start here: it is given back."""
        self._lanes.finish(item)
        self._put(item, self.handler.released(item.delivery))
        self._alone.end()

    def collect(self) -> list[Outcome]:
        """What is over since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        self._told = False
        for outcome in outcomes:
            self._bytes -= len(outcome.delivery.message.body)
        return outcomes

    def notes(self) -> list[Item]:
        """Whose attempts in place are to be noted at the broker; before what was collected is settled."""
        items, self._unnoted = self._unnoted, []
        return [item for item in items if not item.stale]

    def noted(self, items: Iterable[Item]) -> None:
        """These are: they may be repeated when their time comes."""
        for item in items:
            if item in self._held:
                self._repeat(item)

    def not_noted(self, items: Iterable[Item]) -> None:
        """These are not, or not yet: as long as they wait to be repeated they are to be noted another time."""
        self._unnoted[:0] = [item for item in items if item in self._held]

    def stop(self) -> None:
        """Start nothing more: what has not started becomes a Release."""
        self._stopped = True
        if self._unstarted is not None and self._unstarted.begun:
            self.refused(self._unstarted)
        for item in (*self._take_held(), *self._lanes.clear()):
            self._put(item, self.handler.released(item.delivery))

    def withdraw(self, recall: Recall, *, silence: float = 0.0) -> int:
        """Start nothing of what is taken away; how many there are.

        What has not started becomes a Release, and so does what would be repeated in place; but nothing comes of what
        is lost already, even when it runs and ends.

        Args:
            silence: as of `drop`.
        """

        def covers(item: Item) -> bool:
            return recall.covers(item.delivery.token)

        back = [*self._take_held(covers), *self._lanes.take_out(covers)]
        if self._unstarted is not None and covers(self._unstarted):
            back.append(self._unstarted)
            self._lanes.finish(self._unstarted)
            self._alone.end()
        running = [item for item in self._running if covers(item)]
        for item in running:
            item.recalled = True
        number = len(back) + len(running)
        if recall.lost:
            number += self._lose(recall, back, running, present=silence < ABSENT)
            self._unnoted = [item for item in self._unnoted if not covers(item)]
        else:
            for item in back:
                self._put(item, self.handler.released(item.delivery))
            self.tell()
        if self.startable:
            self.on_startable()
        return number

    def _lose(self, recall: Recall, unstarted: list[Item], running: list[Item], *, present: bool) -> int:
        """Forget these, and what is over and not collected; how many there are of that."""
        for item in running:
            item.stale = True
            item.epoch = NOWHERE
            if item.begun and present:
                self._alone.survive(identity(item.delivery))
        gone = [outcome for outcome in self._outcomes if recall.covers(outcome.delivery.token)]
        self._outcomes = [outcome for outcome in self._outcomes if not recall.covers(outcome.delivery.token)]
        for delivery in (*(item.delivery for item in unstarted), *(outcome.delivery for outcome in gone)):
            self._bytes -= len(delivery.message.body)
        return len(gone)

    def drop(self, *, silence: float = 0.0) -> None:
        """Forget what has not started: its session is gone and it will be delivered again.

        Args:
            silence: seconds since this process last heard from the broker: a long one may be what ended the session.
        """
        for item in self._running if silence < ABSENT else ():
            if item.begun:
                self._alone.survive(identity(item.delivery))
        unstarted = () if self._unstarted is None else (self._unstarted,)
        for item in (*unstarted, *self._take_held(), *self._lanes.clear()):
            self._bytes -= len(item.delivery.message.body)
        self._alone.forget()
        self._unnoted.clear()
        for item in self._running:
            item.stale = True

    # ---- the side of who runs the handlers

    def start(self) -> Item | None:
        """The next that may start, if there is one."""
        if not self.startable:
            return None
        item = self._alone.item or self._lanes.ready.popleft()
        self._running.add(item)
        return item

    def over(self, item: Item, outcome: Outcome) -> None:
        """What became of an item that was started. Another of its key may be startable now: look."""
        self._running.discard(item)
        alone = self._alone
        was_alone = alone.item is item
        item.begun = False
        if isinstance(outcome.verdict, (Again, DeadLetter)):
            self._failed(item, outcome, outcome.verdict)
        if item not in self._held:
            if alone.survived and not item.stale:
                alone.settled(identity(item.delivery))
            self._lanes.finish(item)
            self._put(item, outcome)
        if was_alone or alone.waiting:
            self._over(was_alone=was_alone)

    def tell(self) -> None:
        """What is over has waited long enough for more."""
        if self._outcomes and not self._told:
            self._told = True
            self._on_news()

    # ---- inside

    def _changed(self) -> None:
        """A suspect may begin now, or others may start."""
        self._on_news()
        self.on_startable()

    def _over(self, *, was_alone: bool) -> None:
        """Something has ended, and others may have waited for that."""
        if was_alone:
            self._alone.end()
        elif not self._running:
            self._on_news()

    def _failed(self, item: Item, outcome: Outcome, verdict: Again | DeadLetter) -> None:
        """An attempt did not succeed: it is held to be repeated in place, if it can be."""
        counted = isinstance(verdict, DeadLetter) or verdict.counted
        if counted:
            now = self._ports.now()
            if item.first_failed is None:
                item.first_failed = now
            outcome.failed = (item.first_failed, now)
        if isinstance(verdict, DeadLetter) or item.stale or (counted and item.key is None):
            return
        item.spent += counted
        if counted:
            self._unnoted.append(item)
        if self._stopped or item.recalled:
            outcome.verdict = Release()
            return
        self._hold(item, verdict)
        self._on_again(outcome)

    def _put(self, item: Item, outcome: Outcome) -> None:
        outcome.epoch = item.epoch
        self._outcomes.append(outcome)
        if len(self._outcomes) >= self.burst:
            self.tell()

    def _hold(self, item: Item, verdict: Again) -> None:
        self._held[item] = None
        item.due = self._ports.monotonic() + verdict.delay
        if verdict.counted:
            self._on_news()
        else:
            self._repeat(item)

    def _repeat(self, item: Item) -> None:
        delay = max(0.0, item.due - self._ports.monotonic())
        self._held[item] = self._ports.later(delay, partial(self._resume, item))

    def _resume(self, item: Item) -> None:
        if item in self._held:
            del self._held[item]
            self._lanes.resume(item)
            self.on_startable()

    def _take_held(self, covers: Callable[[Item], bool] = lambda _: True) -> list[Item]:
        held = [item for item in self._held if covers(item)]
        for item in held:
            timer = self._held.pop(item)
            if timer is not None:
                timer.cancel()
            self._lanes.finish(item)
        return held
