"""How many messages RabbitMQ may have out with one consumer: as many as are asked for, and about so many bytes. Pure.

AMQP's prefetch counts messages alone, and what was once allowed is sent at once. So a consumer begins with one message,
and its prefetch grows as the sizes that were seen allow. A consumer that is cancelled and begins anew with the same tag
on its channel keeps what it has out, in its order (tried on 4.0.5 and 4.3.6); with less than that it gets one more for
each that is settled, so to have fewer out it pauses.

Not so where the order counts. RabbitMQ puts what is given back behind what was given back before and is not out again.
So a consumer must have out all of that, whatever it weighs, before it may give back anything: it begins with the whole
prefetch, unless there is nothing in the queue, has more as long as only such messages come, and never becomes smaller.
"""

from typing import Final

GROWTH: Final = 16
"""Times as many messages, at most, after a full window of known sizes."""
AGAIN: Final = 4
"""Times as many, as long as all that comes was out before."""
WORTH: Final = 1.25
"""What is worth asking again: so many times as much."""
LOW: Final = 0.5
"""Of the bytes: a consumer that paused begins again."""
MOST: Final = 65_535
"""What AMQP can say."""
NEVER: Final = 1 << 62


class Window:
    """The prefetch of one consumer, and what is out with it.

    Args:
        wanted: messages.
        aside: as many more, once they are asked for.
        most_bytes: of all that is out; None for any.
        ordered: whether all that is given back must come again in its order.
    """

    __slots__ = (
        "_aside", "_most", "_ordered", "_typical", "_wanted", "behind", "hungry", "limit", "out_bytes", "size",
        "trigger",
    )  # fmt: skip

    def __init__(self, wanted: int, aside: int, most_bytes: int | None, *, ordered: bool) -> None:
        self._wanted = min(wanted, MOST)
        self._aside = min(aside, MOST - self._wanted)
        self._most = most_bytes
        self._ordered = ordered
        self.limit = NEVER if ordered or most_bytes is None else int(most_bytes * WORTH)
        """With more bytes out than these, fewer are to be."""
        self._typical = 0.0
        self.hungry = 0
        """How many more are asked for, since the consumer began, while all that is out waits for something."""
        self.out_bytes = 0
        self.size = 0
        """The prefetch; 0 while there is no consumer."""
        self.trigger = NEVER
        """With so many out it is worth looking for a better size."""
        self.behind = False
        """There may be more in the queue that was out before: giving back anything now would put it behind that."""
        self.clear()

    def clear(self, *, empty: bool = False) -> None:
        """Nothing is out, and there is no consumer yet; whether the queue is known to hold nothing either."""
        self.out_bytes = self.hungry = 0
        self.behind = self._ordered and not empty
        self.began(self._wanted if self._most is None or self.behind else 1)

    def began(self, size: int) -> None:
        """The consumer has this prefetch from now on."""
        self.size = size
        self.hungry = 0
        self._set_trigger()

    def _set_trigger(self) -> None:
        short = self._most is not None and self.size < self._wanted
        self.trigger = self.size if short or self.behind else NEVER

    def fresh(self) -> None:
        """What came was never out before, and so all that was is out by now."""
        self.behind = False
        self._set_trigger()

    @property
    def waits(self) -> bool:
        """When something is settled, it is worth looking for a better size."""
        return self._most is not None and not self._ordered and (not self.size or self.size > self._wanted)

    @property
    def over(self) -> bool:
        """More bytes are out than there should be, and fewer can be."""
        return self.out_bytes > self.limit

    def starve(self, limit: int, out: int) -> bool:
        """`limit` more are asked for, and nothing is at hand; whether it is worth looking for a better size."""
        if not self._aside or limit <= 0 or not 0 < self.size <= out:
            return False
        self.hungry = limit
        return True

    def better(self, out: int) -> int | None:
        """The prefetch to have with `out` messages out, 0 for none at all; None if this one is well.

        While more than none is allowed to be on its way, an ordered one is left alone: that would be given back.
        """
        if self._ordered and out < self.size:
            return None
        if self.behind:
            return min(self.size * AGAIN, MOST) if self.size < MOST else None
        if self._most is None:
            return None
        if out:
            self._typical = self.out_bytes / out
        room = max(0, self._most - self.out_bytes)
        more = int(room / self._typical) if self._typical >= 1 else self._wanted
        wanted = self._wanted
        if self.hungry:  # twice as many, or else each few more would be asked for
            wanted = max(wanted, min(out + max(self.hungry, out), wanted + self._aside))
        allowed = max(1, min(wanted, out + more))
        if self.size == 0:
            return allowed if self.out_bytes <= self._most * LOW else None
        if self.over and self.size > 1:
            return 0
        if out >= self.size:
            following = min(allowed, self.size * GROWTH)
            worth = following >= self.size * WORTH or following in {self._wanted, self._wanted + self._aside}
            return following if worth and following > self.size else None
        if self.size > self._wanted and out <= self._wanted // 2:  # nothing waits aside any more
            return self._wanted
        return None
