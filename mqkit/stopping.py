"""The end of work: waits for what was stopped or closed, and leaves what hangs because its broker does not answer."""

import logging
from collections.abc import Sequence
from typing import Final

from mqkit.backend import Backend
from mqkit.ports import Job, Ports, finished, joined
from mqkit.producer import Producer
from mqkit.pump import Pump

log = logging.getLogger("mqkit")

SETTLING: Final = 5.0
"""Seconds that a pump may take after its last handler ended, or the grace: for settling, and for good-byes."""
TOGETHER: Final = 0.02
"""More seconds for each that is stopped at the same time: hundreds say good-bye over one connection."""
OPENING: Final = 1.0
"""Seconds for one that had no session when it was stopped, and so has nothing to settle."""
PARTING: Final = 1.0
"""Seconds for one that was given up, and for a sender, to let go of what it holds."""
ANNOUNCING: Final = 2.0
"""Seconds that listeners get for the last events."""
FLUSHING: Final = 5.0
"""Seconds for what is still to be sent when an app is closed."""
CLOSING: Final = 3.5
"""Seconds for a good-bye to the broker."""
LOOK: Final = 0.05
"""Seconds between two looks."""


async def ended(ports: Ports, stopped: Sequence[tuple[Pump, Job]]) -> None:
    """Wait for the end of pumps that were stopped, of all at the same time, whatever their broker does.

    One that neither runs handlers within its grace nor ends soon is given up: its broker does not answer, and will
    deliver again what was not settled. As long as others end, it does answer, and hundreds take their time. Raises
    what a pump raised.
    """
    began = last = ports.monotonic()
    quiet = [began] * len(stopped)  # since when each runs no handler that still has grace
    given_up: dict[int, float] = {}
    left = list(range(len(stopped)))
    settling = SETTLING + TOGETHER * len(stopped)
    while left:
        for i in left:
            pump, job = stopped[i]
            if await job.over(0):
                continue  # while the others were looked at
            now = ports.monotonic()
            if pump.running and now - began < pump.grace:
                quiet[i] = now
            elif i not in given_up and now - max(quiet[i], last) > (settling if pump.connected else OPENING):
                log.warning("%s: its broker does not answer; what was not settled comes again", pump.where)
                given_up[i] = now
                job.cancel()
        await stopped[left[0]][1].over(LOOK)
        now = ports.monotonic()
        before = len(left)
        left = [
            i for i in left if not await stopped[i][1].over(0) and not (i in given_up and now - given_up[i] > PARTING)
        ]
        if len(left) < before and not given_up:
            last = now
    await ports.announced(ANNOUNCING)  # who stopped an app knows from its listeners that it did
    await joined([job for _, job in stopped if await job.over(0)])


async def hung_up(ports: Ports, producer: Producer) -> None:
    """Let listeners hear of the last events, and close `producer`; in some seconds, whatever the broker does."""
    await ports.announced(ANNOUNCING)
    limit = PARTING if producer.idle else FLUSHING + PARTING
    if not await finished(ports, producer.close(FLUSHING), "mqkit end of producer", limit):
        log.warning("the broker does not answer: publishing ends without a good-bye")


async def parted(ports: Ports, backend: Backend) -> None:
    """Close `backend`, in some seconds also when the broker does not answer."""
    if not await finished(ports, backend.close(), "mqkit end of backend", CLOSING):
        log.warning("the broker does not answer: it is left without a good-bye")
