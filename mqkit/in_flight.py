"""The deliveries that this process has, and how each stands: which may start, in which order, what became of it.

What was with workers that were lost is a suspect (alone.py): it starts after it was kept at the broker that it does.

`Lanes` decides who may start; it is plain data. `InFlight` is what the pump fills and empties; who runs the handlers
is `workers.py`, or the user's own loop: `pull.py`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from mqkit.alone import ABSENT, SUSPECT, Alone
from mqkit.attributes import identity
from mqkit.handler import Handler, Outcome
from mqkit.message import Delivery
from mqkit.ports import Ports, Timer
from mqkit.verdict import Again, DeadLetter, Release


class Item:
    """One delivery inside a worker process."""

    __slots__ = ("begun", "delivery", "due", "epoch", "first_failed", "key", "lost", "spent", "stale", "suspect")

    def __init__(self, delivery: Delivery, epoch: int, key: bytes | None) -> None:
        self.delivery = delivery
        self.epoch = epoch
        self.key = key
        self.spent = delivery.spent
        """Attempts that happened in place."""
        self.suspect = delivery.redelivered >= SUSPECT
        self.begun = False
        """It is kept at the broker that this one, a suspect, starts."""
        self.lost = 0
        """How often it had begun before, alone, and nobody was heard of again."""
        self.due = 0.0
        """When it is repeated, on the monotonic clock."""
        self.first_failed: float | None = None
        """When an attempt at it failed first, in seconds since the epoch."""
        self.stale = False
        """Its session is gone: it will be delivered again, so nothing is repeated in place."""


class Lanes:
    """Which item may start next. Items of one key start in the order they came, one at a time."""

    def __init__(self, suspects: deque[Item] | None = None) -> None:
        self._ready: deque[Item] = deque()
        self._suspects: deque[Item] = deque() if suspects is None else suspects
        """Those that could start now, but for being suspects."""
        self._lanes: dict[bytes, deque[Item]] = {}
        """For each key with an item that started or may start: those behind it."""
        self._behind = 0

    def __len__(self) -> int:
        """Items that have not started, held ones aside."""
        return len(self._ready) + len(self._suspects) + self._behind

    @property
    def startable(self) -> int:
        """Items that could start now."""
        return len(self._ready)

    @property
    def behind(self) -> int:
        """Items that wait for another of their key, whether that runs, is held, or may start."""
        return self._behind

    def add(self, item: Item) -> None:
        """`item` came in, after all others."""
        if item.key is not None:
            lane = self._lanes.get(item.key)
            if lane is not None:
                lane.append(item)
                self._behind += 1
                return
            self._lanes[item.key] = deque()
        self.resume(item)

    def start(self) -> Item:
        """The next item; IndexError if none may start."""
        return self._ready.popleft()

    def resume(self, item: Item) -> None:
        """`item`, which had started, is to start again; its key stayed blocked."""
        (self._suspects if item.suspect else self._ready).append(item)

    def finish(self, item: Item) -> None:
        """`item` is over: the next of its key may start."""
        if item.key is None:
            return
        lane = self._lanes[item.key]
        if lane:
            self._behind -= 1
            self.resume(lane.popleft())
        else:
            del self._lanes[item.key]

    def clear(self) -> list[Item]:
        """Take out all that has not started, in an order that keeps each key's."""
        left: list[Item] = []
        for item in (*self._suspects, *self._ready):
            left.append(item)
            if item.key is not None:
                left.extend(self._lanes.pop(item.key))
        self._suspects.clear()
        self._ready.clear()
        for lane in self._lanes.values():
            left.extend(lane)
            lane.clear()
        self._behind = 0
        return left


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
        if self._stopped:
            return 0
        if self._lease is not None and self._ports.monotonic() >= self._ours_until:
            return 0  # this process stood still: what it has may be with another by now
        alone = self._alone
        if (alone.item is not None or alone.waiting) and alone.others_wait:
            return int(self._unstarted is not None and self._unstarted.begun)
        return self._lanes.startable

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
        """These are not: they wait on, and are to be noted another time."""
        self._unnoted[:0] = items

    def stop(self) -> None:
        """Start nothing more: what has not started becomes a Release."""
        self._stopped = True
        if self._unstarted is not None and self._unstarted.begun:
            self.refused(self._unstarted)
        for item in (*self._take_held(), *self._lanes.clear()):
            self._put(item, self.handler.released(item.delivery))

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

    def start(self) -> Item:
        """The next that may start; IndexError if there is none."""
        alone = self._alone.item
        item = self._lanes.start() if alone is None or alone in self._running else alone
        self._running.add(item)
        return item

    def over(self, item: Item, outcome: Outcome) -> None:
        """What became of an item that was started. Another of its key may be startable now: look."""
        self._running.discard(item)
        alone = self._alone
        was_alone = alone.item is item
        item.begun = False
        verdict = outcome.verdict
        if isinstance(verdict, DeadLetter) or (isinstance(verdict, Again) and verdict.counted):
            now = self._ports.now()
            if item.first_failed is None:
                item.first_failed = now
            outcome.failed = (item.first_failed, now)
        if isinstance(verdict, Again) and (not verdict.counted or item.key is not None) and not item.stale:
            item.spent += verdict.counted
            if verdict.counted:
                self._unnoted.append(item)
            if not self._stopped:
                self._hold(item, verdict)
                self._on_again(outcome)
                if was_alone or alone.waiting:
                    self._over(was_alone=was_alone)
                return
            outcome.verdict = Release()
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

    def _take_held(self) -> list[Item]:
        held = list(self._held)
        for item, timer in self._held.items():
            if timer is not None:
                timer.cancel()
            self._lanes.finish(item)
        self._held.clear()
        return held
