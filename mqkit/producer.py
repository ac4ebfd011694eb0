"""Validate, encode, batch, send: from a payload to a confirmed message.

What is published while a batch is on its way goes together into the next: one message alone is sent at once, a
thousand go as one batch, and no timer adds latency. A lost connection leaves outcomes unknown; those messages are sent
again under the same ids, in their order, until each one's time is over. A time-out ends one message alone: those that
share its batch, and its session, go on. What waits, and for what, is the outbox's (outbox.py).
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from os import urandom
from typing import Final

from mqkit.backend import Backend, Sender
from mqkit.errors import ClosedError, ConnectionLost, MqkitError, PublishError
from mqkit.message import Outgoing
from mqkit.outbox import Mail, Outbox, Parcel, destination, no_room, told
from mqkit.ports import Job, Ports, Signal

log = logging.getLogger("mqkit")

VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""What stands for each random digit where a UUID says that it is one."""
PULSE = 0.25
"""Seconds between two looks at what waits too long, while anything waits."""


def new_id() -> str:
    """An id that nobody else has: a UUID of version 4 (RFC 9562), in less than half the time of `uuid.uuid4`."""
    bits = urandom(16).hex()
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{VARIANT[bits[16]]}{bits[17:20]}-{bits[20:]}"


class Producer:
    """Sends for a whole app, from as many tasks as like.

    Args:
        backend: where to.
        ports: the world.
        on_change: called with the error when the connection is lost, and with None when it is there again.
    """

    def __init__(
        self, backend: Backend, ports: Ports, on_change: Callable[[MqkitError | None], None] = lambda _: None
    ) -> None:
        self._backend = backend
        self._ports = ports
        self._on_change = on_change
        self._outbox = Outbox()
        self._flight: list[Parcel] = []
        """The batch on its way."""
        self._patience = 0.0
        """When the sender gives up on it."""
        self._todo = ports.signal()
        self._stir = ports.signal()
        """Something waits: the watch begins."""
        self._watching = False
        self._room: dict[bool, deque[Signal]] = {False: deque(), True: deque()}
        """Who waits for room: for all destinations, and for those that refuse."""
        self._sender: Sender | None = None
        self._job: Job | None = None
        self._watcher: Job | None = None
        self._closing = False
        self._end_by: float | None = None
        """When close() loses its patience."""
        self._down = False

    def start(self) -> None:
        """Begin to send."""
        self._job = self._ports.spawn(self._run(), "mqkit producer")
        self._watcher = self._ports.spawn(self._watch(self._job), "mqkit producer's watch")

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> dict[int, MqkitError]:
        """Send `batch`; return when each message is safe or has failed: position -> why, empty when all is well.

        Ends within about `timeout` seconds. A message that failed with ConnectionLost may be at the broker all the
        same: its outcome is unknown.

        Raises:
            ClosedError: the app is not started, or stopped.
        """
        if not batch:
            return {}
        deadline = self._ports.monotonic() + timeout
        mail = Mail(len(batch), self._ports.promise())
        parcels = [Parcel(outgoing, deadline, mail) for outgoing in batch]
        if self._is_open and self._outbox.add_all(parcels):
            self._begin()
        else:
            for parcel in parcels:
                refusal = None if self._has_room(parcel.outgoing) else await self._room_by(parcel.outgoing, deadline)
                if refusal is not None:
                    parcel.decide(refusal)
                    continue
                if not self._is_open:
                    raise ClosedError("the app is not connected: publish inside `async with app:` or while it runs")
                self._outbox.add(parcel)
                self._begin()
        try:
            await mail.promise.result()
        except BaseException:  # cancelled: what is not on its way need not go
            for parcel in parcels:
                parcel.mail = None
            raise
        return {i: parcel.error for i, parcel in enumerate(parcels) if parcel.error is not None}

    async def close(self, timeout: float = 5.0) -> None:
        """Send what is still waiting, at most for `timeout` seconds, and let go. Ends every send."""
        self._closing = True
        self._end_by = self._ports.monotonic() + timeout
        for parcel in (*self._flight, *self._outbox):
            parcel.deadline = min(parcel.deadline, self._end_by)
        for waiter in (*self._room[False], *self._room[True]):
            waiter.set()
        self._todo.set()
        self._stir.set()
        for job in (self._job, self._watcher):
            if job is not None:
                with suppress(Exception):  # one that died of a defect has been told of
                    await job.join()
        self._job = self._watcher = None
        for parcel in (*self._flight, *self._outbox):
            parcel.decide(parcel.error or ConnectionLost("the app was closed before this was confirmed"))
        await self._hang_up()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or confirmed."""
        return not self._outbox and all(parcel.mail is None for parcel in self._flight)

    @property
    def _is_open(self) -> bool:
        return self._job is not None and not self._closing

    def _begin(self) -> None:
        """Something waits to be sent."""
        self._todo.set()
        if not self._watching:
            self._stir.set()

    def _has_room(self, outgoing: Outgoing) -> bool:
        return self._closing or self._outbox.room(refusing=self._outbox.refuses(outgoing)) > 0

    async def _room_by(self, outgoing: Outgoing, deadline: float) -> MqkitError | None:
        """Wait for room for `outgoing`, at most until `deadline`; why there is none."""
        waiter = self._ports.signal()
        while not self._has_room(outgoing):
            refusing = self._outbox.refuses(outgoing)
            left = deadline - self._ports.monotonic()
            if left <= 0:
                return no_room(refusing=refusing)
            waiters = self._room[refusing]
            waiters.append(waiter)
            try:
                await waiter.wait(left)
            finally:
                if waiter in waiters:  # not woken: too late, or cancelled
                    waiters.remove(waiter)
        return None

    def _make_room(self) -> None:
        for refusing, waiters in self._room.items():
            if waiters:
                for _ in range(min(self._outbox.room(refusing=refusing), len(waiters))):
                    waiters.popleft().set()

    async def _run(self) -> None:
        failures = 0
        while self._outbox or not self._closing:
            now = self._ports.monotonic()
            if failures or self._closing:
                self._expire(now)
            batch = self._flight = self._outbox.take(now)
            self._make_room()
            if not batch:
                if self._outbox or not self._closing:
                    await self._todo.wait(self._outbox.pause(now))
                continue
            try:
                if self._sender is None:
                    self._sender = await self._backend.open_sender()
                lost = await self._send(self._sender, batch)
            except Exception as error:
                lost = error if isinstance(error, MqkitError) else ConnectionLost(f"{type(error).__name__}: {error}")
                if lost is not error:  # nobody can say what is at the broker
                    log.exception("the sender met an error in mqkit itself")
                for parcel in batch:
                    if parcel.mail is not None:
                        parcel.failed(lost)
            failures = failures + 1 if lost else 0
            self._changed(lost)
            if lost:
                await self._hang_up()
                self._outbox.lost([parcel for parcel in batch if parcel.mail is not None])
                self._flight = []
                await self._back_off(failures)

    async def _watch(self, job: Job) -> None:
        """End what waits too long while the loop is held up by a batch or a session that hangs."""
        while self._outbox or self._flight or not self._closing:
            self._watching = bool(self._outbox or self._flight)
            await self._stir.wait(PULSE if self._watching else None)
            now = self._ports.monotonic()
            self._expire(now)
            for parcel in self._flight:
                # when all of the batch is over, the sender knows why
                if parcel.deadline <= now and (parcel.deadline < self._patience or parcel.deadline + PULSE <= now):
                    parcel.decide(ConnectionLost("not confirmed by the broker within the time-out"))
            if self._end_by is not None and self._end_by + PULSE <= now:
                job.cancel()
                return

    async def _send(self, sender: Sender, batch: list[Parcel]) -> MqkitError | None:
        """Send `batch`, as long as one of it is waited for; what is refused for now goes back to the outbox.

        Returns:
            Why the session is over, if it is: then what is not decided of `batch` has to be sent again.
        """
        self._patience = max(parcel.deadline for parcel in batch)
        timeout = max(0.1, self._patience - self._ports.monotonic())
        refused: list[Parcel] = []
        try:
            await sender.send([parcel.outgoing for parcel in batch], timeout)
        except PublishError as error:
            refused, unknown = self._sorted(batch, error)
            if unknown or len(error.unknown) == len(batch):
                return ConnectionLost(str(error))
        else:
            for parcel in batch:
                parcel.decide(None)
        self._flight = []
        refusing, open_again = self._outbox.sent(batch, refused, self._ports.monotonic(), self._ports.draw())
        for place in refusing:
            reason = next(parcel.error for parcel in refused if destination(parcel.outgoing) == place)
            log.warning("publishing to %s waits: %s", told(place), reason)
        for place in open_again:
            log.warning("publishing to %s goes on", told(place))
        return None

    @staticmethod
    def _sorted(batch: Sequence[Parcel], error: PublishError) -> tuple[list[Parcel], list[Parcel]]:
        """Decide what is safe, or has failed for good; what was refused for now, and what is unknown.

        Whom nobody waits for any more is in neither: its answer, if there ever is one, changes nothing.
        """
        refused: list[Parcel] = []
        unknown: list[Parcel] = []
        for i, parcel in enumerate(batch):
            if (reason := error.unknown.get(i)) is not None:
                if parcel.mail is not None:
                    parcel.failed(reason if isinstance(reason, ConnectionLost) else ConnectionLost(str(reason)))
                    unknown.append(parcel)
                continue
            reason = error.rejected.get(i)
            if reason is None or not getattr(reason, "retryable", False):
                parcel.decide(reason)
            elif parcel.mail is not None:
                parcel.failed(reason)
                refused.append(parcel)
        return refused, unknown

    def _expire(self, now: float) -> None:
        """Give up on what waited too long."""
        late = self._outbox.expire(now)
        for parcel in late:
            parcel.decide(parcel.error or ConnectionLost("not sent to the broker within the time-out"))
        if late:
            self._make_room()
            self._todo.set()

    async def _back_off(self, failures: int) -> None:
        """Wait before the next session, at most until the first deadline; nothing before the first repetition."""
        if failures == 1:
            return
        wait = min(5.0, 0.05 * 2.0 ** min(failures, 10)) * (0.5 + self._ports.draw() / 2)
        until = self._ports.monotonic() + wait
        while (left := until - self._ports.monotonic()) > 0 and (self._outbox or not self._closing):
            self._expire(self._ports.monotonic())
            if self._outbox:
                left = min(left, min(parcel.deadline for parcel in self._outbox) - self._ports.monotonic())
            await self._todo.wait(max(left, 0.001))

    def _changed(self, error: MqkitError | None) -> None:
        down = error is not None
        if down != self._down:
            self._down = down
            self._on_change(error)

    async def _hang_up(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.close()


def published(errors: dict[int, MqkitError]) -> PublishError:
    """`errors` of Producer.send as one exception: what may be at the broker is unknown, all else is rejected."""
    unknown = {i: e for i, e in errors.items() if isinstance(e, ConnectionLost)}
    return PublishError({i: e for i, e in errors.items() if i not in unknown}, unknown)
