"""Between the colours: a backend of either one, for an event loop or for threads.

| | blocking driver | async driver |
| --- | --- | --- |
| AsyncApp | Threaded: a thread of its own for each session, one hop for a batch | as it is |
| App | Immediate: no hop | Portal: an event loop in a thread, one hop for a batch |
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar, cast

from mqkit.backend import (
    Backend,
    BlockingBackend,
    BlockingReceiver,
    BlockingSender,
    Counts,
    Notes,
    Notify,
    Recall,
    Receiver,
    Sender,
    Settlements,
    Subscription,
)
from mqkit.daemons import Daemons
from mqkit.errors import ClosedError
from mqkit.event_loop import answer
from mqkit.message import Delivery, Outgoing
from mqkit.session_thread import SessionThread
from mqkit.threads import ThreadPorts
from mqkit.topology import Finding, Topology

P = ParamSpec("P")
R = TypeVar("R")
CLOSE_TIMEOUT = 5.0
"""Seconds for a call that is on its way when its session is closed."""


class ThreadedSender:
    """A blocking sender on its thread."""

    def __init__(self, thread: SessionThread, sender: BlockingSender) -> None:
        self._thread = thread
        self._sender = sender

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        await self._thread.run(self._sender.send, batch, timeout)

    async def close(self) -> None:
        """As Sender.close."""
        await self._thread.end(self._sender.close)


class ThreadedReceiver:
    """A blocking receiver on its thread."""

    def __init__(self, thread: SessionThread, receiver: BlockingReceiver) -> None:
        self._thread = thread
        self._receiver = receiver

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        return await self._thread.run(self._receiver.receive, limit, timeout)

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled: without a hop, since nothing else is called meanwhile."""
        return self._receiver.recalled()

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        await self._thread.run(self._receiver.settle, settlements)

    async def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        return await self._thread.run(self._receiver.note, notes)

    async def begin(self, token: object) -> int:
        """As Receiver.begin."""
        return await self._thread.run(self._receiver.begin, token)

    def wake(self) -> None:
        """As Receiver.wake."""
        self._receiver.wake()

    async def close(self) -> None:
        """As Receiver.close."""
        self._receiver.wake()
        await self._thread.end(self._receiver.close)


class ThreadedBackend:
    """A blocking backend for an event loop."""

    def __init__(self, backend: BlockingBackend) -> None:
        self._backend = backend
        self._daemons = Daemons("mqkit-backend")
        self.capabilities = backend.capabilities

    async def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """In a thread that no process waits for at its end: a broker that is frozen may hold it for long."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._daemons.start(partial(answer, future, partial(call, *args, **kwargs)))
        return await future

    async def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return await self._run(self._backend.connect, timeout)

    async def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        await self._run(self._backend.declare, topology)

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return await self._run(self._backend.examine, topology)

    async def open_sender(self) -> Sender:
        """As Backend.open_sender."""
        thread = SessionThread("mqkit-sender")
        sender: BlockingSender = await thread.opened(self._backend.open_sender, lambda sender: sender.close())
        return ThreadedSender(thread, sender)

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> Receiver:
        """As Backend.open_receiver."""
        thread = SessionThread(f"mqkit-{subscription.topic}.{subscription.group}")
        open_ = partial(self._backend.open_receiver, subscription, notify)
        receiver: BlockingReceiver = await thread.opened(open_, lambda receiver: receiver.close())
        return ThreadedReceiver(thread, receiver)

    async def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        return await self._run(self._backend.inspect, topic, group)

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        return await self._run(self._backend.groups, topic)

    async def close(self) -> None:
        """As Backend.close."""
        try:
            await self._run(self._backend.close)
        finally:
            self._daemons.close()


class ImmediateSender:
    """A blocking sender, called in the thread that awaits it. It belongs to one at a time."""

    def __init__(self, ports: ThreadPorts, sender: BlockingSender) -> None:
        self._ports = ports
        self._sender = sender
        self._busy = Lock()

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        with self._ports.away(), self._busy:
            self._sender.send(batch, timeout)

    async def close(self) -> None:
        """As Sender.close. One that hangs in a call is left alone: its thread ends with the process."""
        with self._ports.away():
            if self._busy.acquire(timeout=CLOSE_TIMEOUT):
                try:
                    self._sender.close()
                finally:
                    self._busy.release()


class ImmediateReceiver:
    """A blocking receiver, called in the thread that awaits it."""

    def __init__(self, ports: ThreadPorts, receiver: BlockingReceiver) -> None:
        self._ports = ports
        self._receiver = receiver
        self.wake = receiver.wake
        self.recalled = receiver.recalled

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        with self._ports.away():
            return self._receiver.receive(limit, timeout)

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        with self._ports.away():
            self._receiver.settle(settlements)

    async def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        with self._ports.away():
            return self._receiver.note(notes)

    async def begin(self, token: object) -> int:
        """As Receiver.begin."""
        with self._ports.away():
            return self._receiver.begin(token)

    async def close(self) -> None:
        """As Receiver.close."""
        with self._ports.away():
            self._receiver.close()


class ImmediateBackend:
    """A blocking backend for orchestration that runs in threads: no await suspends, each blocks outside its lock."""

    def __init__(self, ports: ThreadPorts, backend: BlockingBackend) -> None:
        self._ports = ports
        self._backend = backend
        self.capabilities = backend.capabilities

    async def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return await self._ports.outside(partial(self._backend.connect, timeout))

    async def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        await self._ports.outside(partial(self._backend.declare, topology))

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return await self._ports.outside(partial(self._backend.examine, topology))

    async def open_sender(self) -> Sender:
        """As Backend.open_sender."""
        with self._ports.away():
            return ImmediateSender(self._ports, self._backend.open_sender())

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> Receiver:
        """As Backend.open_receiver."""
        with self._ports.away():
            return ImmediateReceiver(self._ports, self._backend.open_receiver(subscription, notify))

    async def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        with self._ports.away():
            return self._backend.inspect(topic, group)

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        with self._ports.away():
            return self._backend.groups(topic)

    async def close(self) -> None:
        """As Backend.close."""
        with self._ports.away():
            self._backend.close()


class _Portal:
    """An event loop in a thread, and the way into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="mqkit-portal", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """What `work` returns or raises on the loop."""
        if self._loop.is_closed():
            work.close()
            raise ClosedError("the backend is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the loop; idempotent."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class PortalSender:
    """An async sender on its loop."""

    def __init__(self, portal: _Portal, sender: Sender) -> None:
        self._portal = portal
        self._sender = sender

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        self._portal.run(self._sender.send(batch, timeout))

    def close(self) -> None:
        """As Sender.close."""
        self._portal.run(self._sender.close())


class PortalReceiver:
    """An async receiver on its loop."""

    def __init__(self, portal: _Portal, receiver: Receiver) -> None:
        self._portal = portal
        self._receiver = receiver
        self.wake = receiver.wake
        self.recalled = receiver.recalled

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        return self._portal.run(self._receiver.receive(limit, timeout))

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        self._portal.run(self._receiver.settle(settlements))

    def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        return self._portal.run(self._receiver.note(notes))

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        return self._portal.run(self._receiver.begin(token))

    def close(self) -> None:
        """As Receiver.close."""
        self._portal.run(self._receiver.close())


class PortalBackend:
    """An async backend as a blocking one: it lives on an event loop of its own, in a thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._portal = _Portal()
        self.capabilities = backend.capabilities

    def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return self._portal.run(self._backend.connect(timeout))

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        self._portal.run(self._backend.declare(topology))

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return self._portal.run(self._backend.examine(topology))

    def open_sender(self) -> PortalSender:
        """As Backend.open_sender."""
        return PortalSender(self._portal, self._portal.run(self._backend.open_sender()))

    def open_receiver(self, subscription: Subscription, notify: Notify) -> PortalReceiver:
        """As Backend.open_receiver."""
        return PortalReceiver(self._portal, self._portal.run(self._backend.open_receiver(subscription, notify)))

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        return self._portal.run(self._backend.inspect(topic, group))

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        return self._portal.run(self._backend.groups(topic))

    def close(self) -> None:
        """As Backend.close."""
        with suppress(ClosedError):
            self._portal.run(self._backend.close())
        self._portal.close()


def for_event_loop(colour: str, backend: Backend | BlockingBackend) -> Backend:
    """`backend` as an event loop can use it, whatever colour it has."""
    return cast("Backend", backend) if colour == "asynchronous" else ThreadedBackend(cast("BlockingBackend", backend))


def for_threads(ports: ThreadPorts, colour: str, backend: Backend | BlockingBackend) -> Backend:
    """`backend` as orchestration in threads can use it, whatever colour it has."""
    blocking: BlockingBackend = (
        PortalBackend(cast("Backend", backend)) if colour == "asynchronous" else cast("BlockingBackend", backend)
    )
    return ImmediateBackend(ports, blocking)
