"""Validate, encode, batch, send: from a payload to a confirmed message.

What is published while a batch is on its way goes together into the next: one message alone is sent at once, a
thousand go as one batch, and no timer adds latency. A lost connection leaves outcomes unknown; those messages are sent
again under the same ids, in their order, until each one's time is over.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from os import urandom
from typing import Final

from mqkit.backend import Backend, Sender
from mqkit.errors import ClosedError, ConnectionLost, MqkitError, PublishError
from mqkit.message import Outgoing
from mqkit.ports import Job, Ports, Promise, Signal

log = logging.getLogger("mqkit")

LARGEST_BATCH = 1_000
LARGEST_BATCH_BYTES = 4 * 1024 * 1024
ROOM = 10_000
"""Messages that may wait to be sent; whoever publishes more waits for room."""
ROOM_BYTES = 64 * 1024 * 1024
VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""What stands for each random digit where a UUID says that it is one."""
PULSE = 0.25
"""Seconds between two looks at what waits too long, while anything waits."""


def new_id() -> str:
    """An id that nobody else has: a UUID of version 4 (RFC 9562), in less than half the time of `uuid.uuid4`."""
    bits = urandom(16).hex()
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{VARIANT[bits[16]]}{bits[17:20]}-{bits[20:]}"


class Parcel:
    """One outgoing message, its deadline, and who waits for it."""

    __slots__ = ("deadline", "error", "mail", "outgoing")

    def __init__(self, outgoing: Outgoing, deadline: float, mail: "Mail") -> None:
        self.outgoing = outgoing
        self.deadline = deadline
        self.mail: Mail | None = mail
        """None once it is decided."""
        self.error: MqkitError | None = None
        """Why it is not safe so far."""


class Mail:
    """All that one call sends; its promise is kept when the last of it is decided."""

    __slots__ = ("left", "promise")

    def __init__(self, count: int, promise: Promise) -> None:
        self.left = count
        self.promise = promise

    def decided(self) -> None:
        """One more of it is."""
        self.left -= 1
        if not self.left:
            self.promise.resolve(None)


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
        self._queue: deque[Parcel] = deque()
        self._bytes = 0
        self._flight: list[Parcel] = []
        """The batch on its way; what of it is decided leaves it."""
        self._todo = ports.signal()
        self._stir = ports.signal()
        """Something waits: the watch begins."""
        self._watching = False
        self._room: deque[Signal] = deque()
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
        for parcel in parcels:
            if self._full and not await self._room_by(deadline):
                self._decide(parcel, ConnectionLost("too much waits to be sent, and the broker takes nothing"))
                continue
            if self._job is None or self._closing:
                raise ClosedError("the app is not connected: publish inside `async with app:` or while it runs")
            self._queue.append(parcel)
            self._bytes += len(parcel.outgoing.message.body)
            self._todo.set()
            if not self._watching:
                self._stir.set()
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
        for parcel in (*self._flight, *self._queue):
            parcel.deadline = min(parcel.deadline, self._end_by)
        for waiter in self._room:
            waiter.set()
        self._todo.set()
        self._stir.set()
        for job in (self._job, self._watcher):
            if job is not None:
                await job.join()
        self._job = self._watcher = None
        for parcel in (*self._flight, *self._queue):
            self._decide(parcel, parcel.error or ConnectionLost("the app was closed before this was confirmed"))
        await self._hang_up()

    @property
    def _full(self) -> bool:
        return not self._closing and (len(self._queue) >= ROOM or self._bytes >= ROOM_BYTES)

    async def _room_by(self, deadline: float) -> bool:
        """Wait for room, at most until `deadline`; whether there is some."""
        waiter = self._ports.signal()
        while self._full:
            left = deadline - self._ports.monotonic()
            if left <= 0:
                return False
            self._room.append(waiter)
            try:
                await waiter.wait(left)
            finally:
                if waiter in self._room:  # not woken: too late, or cancelled
                    self._room.remove(waiter)
        return True

    def _make_room(self) -> None:
        if not self._full:
            for _ in range(min(ROOM - len(self._queue), len(self._room))):
                self._room.popleft().set()

    async def _run(self) -> None:
        failures = 0
        while self._queue or not self._closing:
            if failures or self._closing:
                self._expire()
            if not self._queue:
                if not self._closing:
                    await self._todo.wait()
                continue
            batch = self._flight = self._take()
            if not batch:
                continue
            try:
                if self._sender is None:
                    self._sender = await self._backend.open_sender()
                error = await self._send(self._sender, batch)
            except Exception as lost:
                error = lost if isinstance(lost, MqkitError) else ConnectionLost(f"{type(lost).__name__}: {lost}")
                if error is not lost:  # nobody can say what is at the broker
                    log.exception("the sender met an error in mqkit itself")
                await self._hang_up()
                self._changed(error)
            else:
                self._changed(None)
            failures = failures + 1 if error else 0
            if error:
                self._put_back(batch, error)
                await self._back_off(failures)

    async def _watch(self, job: Job) -> None:
        """End what waits too long while the loop is held up by a batch or a session that hangs."""
        while self._queue or self._flight or not self._closing:
            self._watching = bool(self._queue or self._flight)
            await self._stir.wait(PULSE if self._watching else None)
            self._expire()
            now = self._ports.monotonic()
            for parcel in self._flight:
                if parcel.deadline + PULSE <= now:
                    self._decide(parcel, ConnectionLost("not confirmed by the broker within the time-out"))
            if self._end_by is not None and self._end_by + PULSE <= now:
                job.cancel()
                return

    async def _send(self, sender: Sender, batch: list[Parcel]) -> MqkitError | None:
        """Send `batch`, and leave in it what has to be sent again; why it has to.

        Raises:
            BackendError: the session is over.
        """
        timeout = max(0.1, min(parcel.deadline for parcel in batch) - self._ports.monotonic())
        try:
            await sender.send([parcel.outgoing for parcel in batch], timeout)
        except PublishError as error:
            again = []
            for i, parcel in enumerate(batch):
                reason = error.rejected.get(i) or error.unknown.get(i)
                if reason is None or not (i in error.unknown or getattr(reason, "retryable", False)):
                    self._decide(parcel, reason)
                    continue
                if i in error.unknown and not isinstance(reason, ConnectionLost):
                    reason = ConnectionLost(str(reason))
                self._failed(parcel, reason)
                again.append(parcel)
            batch[:] = again
            if error.unknown:
                raise ConnectionLost(str(error)) from error
            return again[0].error if again else None
        for parcel in batch:
            self._decide(parcel, None)
        batch.clear()
        return None

    def _take(self) -> list[Parcel]:
        batch: list[Parcel] = []
        size = 0
        while self._queue and len(batch) < LARGEST_BATCH and size < LARGEST_BATCH_BYTES:
            parcel = self._queue.popleft()
            size += len(parcel.outgoing.message.body)
            if parcel.mail is not None:
                batch.append(parcel)
        self._bytes -= size
        self._make_room()
        return batch

    def _put_back(self, batch: list[Parcel], error: MqkitError) -> None:
        for parcel in reversed(batch):
            if parcel.mail is not None:
                self._failed(parcel, error)
                self._queue.appendleft(parcel)
                self._bytes += len(parcel.outgoing.message.body)
        self._flight = []

    @staticmethod
    def _failed(parcel: Parcel, error: MqkitError) -> None:
        """`parcel` is to be sent again; what was unknown once stays so."""
        if not isinstance(parcel.error, ConnectionLost):
            parcel.error = error

    def _expire(self) -> None:
        """Give up on what waited too long. Only what failed before can be this old."""
        now = self._ports.monotonic()
        kept: deque[Parcel] = deque()
        while self._queue:
            parcel = self._queue.popleft()
            if parcel.deadline > now:
                kept.append(parcel)
            else:
                self._bytes -= len(parcel.outgoing.message.body)
                self._decide(parcel, parcel.error or ConnectionLost("not sent to the broker within the time-out"))
        self._queue = kept
        self._make_room()

    async def _back_off(self, failures: int) -> None:
        """Wait before the next try, at most until the first deadline; nothing before the first repetition."""
        if failures == 1:
            return
        wait = min(5.0, 0.05 * 2.0 ** min(failures, 10)) * (0.5 + self._ports.draw() / 2)
        until = self._ports.monotonic() + wait
        while (left := until - self._ports.monotonic()) > 0 and (self._queue or not self._closing):
            self._expire()
            if self._queue:
                left = min(left, min(p.deadline for p in self._queue) - self._ports.monotonic())
            await self._todo.wait(max(left, 0.001))

    @staticmethod
    def _decide(parcel: Parcel, error: MqkitError | None) -> None:
        mail, parcel.mail = parcel.mail, None
        if mail is not None:
            parcel.error = error
            mail.decided()

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
