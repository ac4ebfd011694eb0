"""Which suspect is alone now. A suspect was with workers that were lost; one of those may be what ended its worker.

It starts when what runs has ended, and others start when it has: so the next loss is its own. Neither waits for longer
than a few seconds, since what ends a worker does it soon, and a handler may take hours.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from mqkit.ports import Ports, Timer

T = TypeVar("T")

SUSPECT: Final = 2
"""So many workers were lost with it: one alone is a deployment, a broker that restarted."""
ALONE: Final = 5.0
"""Seconds that a suspect waits for the end of what runs, and others for its end."""
ABSENT: Final = 3.0
"""Seconds without a word to or from the broker after which a lost session may be this process's own fault."""
AGAIN, AT_LAST = 0.5, 8.0
"""Seconds after which a suspect that could not begin tries again, while others start: at first, and at most."""


class Alone(Generic[T]):
    """The suspects of one group in this process.

    Args:
        ports: the world.
        on_change: called when another may begin, or others may start.
    """

    def __init__(self, ports: Ports, on_change: Callable[[], None]) -> None:
        self._ports = ports
        self._on_change = on_change
        self.waiting: deque[T] = deque()
        """Those that could start now, but for being suspects."""
        self.item: T | None = None
        """The one that is about to begin, or began just now; others wait."""
        self._waited = False
        """Whether it was waited long enough for what runs."""
        self._patience: Timer | None = None
        self._put_off: Timer | None = None
        self._pause = AGAIN
        self._survived: dict[str, int] = {}
        """By name: how often one had begun here when its session was lost, and this process lived on."""

    @property
    def others_wait(self) -> bool:
        """Whether nothing else may start."""
        return self.item is not None or (bool(self.waiting) and self._put_off is None)

    def take(self, *, running: bool) -> T | None:
        """The next one, if its beginning is to be kept at the broker now: `begins`, `put_off` or `end` must follow."""
        if self.item is not None or self._put_off is not None or not self.waiting:
            return None
        if running and not self._waited:
            if self._patience is None:
                self._patience = self._ports.later(ALONE, self._waited_enough)
            return None
        self._be_patient()
        self.item = self.waiting.popleft()
        return self.item

    def begins(self) -> None:
        """It is kept at the broker that it begins."""
        self._pause = AGAIN
        self._patience = self._ports.later(ALONE, self.end)

    def put_off(self) -> None:
        """That cannot be kept now: others may start, and it is tried again."""
        if self.item is not None:
            self.waiting.appendleft(self.item)
        self._put_off = self._ports.later(self._pause, self._try_again)
        self._pause = min(2 * self._pause, AT_LAST)
        self.end()

    def end(self) -> None:
        """It is over, or has lived for long enough: others may start."""
        self._be_patient()
        self.item = None
        self._on_change()

    def forget(self) -> None:
        """The session is gone, and all suspects with it."""
        self._be_patient()
        self.item = None
        self.waiting.clear()

    # ---- what this process knows better than the broker

    def survive(self, name: str) -> None:
        """The session of one that had begun was lost, but not this process."""
        if name:
            self._survived[name] = self._survived.get(name, 0) + 1

    def really_lost(self, name: str, lost: int) -> int:
        """How many of the `lost` beginnings of a message were not of this process, which lives."""
        return max(0, lost - self._survived.get(name, 0))

    def settled(self, name: str) -> None:
        """A message is over."""
        self._survived.pop(name, None)

    @property
    def survived(self) -> bool:
        """Whether there is any such message."""
        return bool(self._survived)

    # ---- inside

    def _waited_enough(self) -> None:
        self._patience = None
        self._waited = True
        self._on_change()

    def _be_patient(self) -> None:
        self._waited = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _try_again(self) -> None:
        self._put_off = None
        self._on_change()
