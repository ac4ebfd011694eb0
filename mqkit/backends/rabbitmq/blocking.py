"""The blocking colour: pika as the driver, on a thread of ours that owns the connections.

What is done there is written once, for both colours; here is only the way to that thread, one hop for a batch.
"""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from mqkit.backend import Capabilities, Counts, Notes, Notify, Recall, Settlements, Subscription
from mqkit.backends.rabbitmq import consuming, letters, pika_driver, publishing
from mqkit.backends.rabbitmq.bell import Bell
from mqkit.backends.rabbitmq.broker import RabbitBroker
from mqkit.backends.rabbitmq.io_thread import IoThread
from mqkit.errors import ClosedError
from mqkit.message import Delivery, Outgoing
from mqkit.topology import Finding, Topology


class RabbitSender:
    """The BlockingSender."""

    def __init__(self, thread: IoThread, sender: publishing.RabbitSender) -> None:
        self._thread = thread
        self._sender = sender

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        self._thread.run(self._sender.send, batch, timeout)

    def close(self) -> None:
        """As Sender.close."""
        with suppress(ClosedError):  # the backend was closed before, and all that it had
            self._thread.run(self._sender.close)


class RabbitReceiver:
    """The BlockingReceiver. Without order, what has arrived is taken, and settled, without waiting for a hop.

    In an ordered group what may be handed out hangs upon more than what has arrived, so it is asked for over there.
    """

    def __init__(self, thread: IoThread, receiver: consuming.RabbitReceiver) -> None:
        self._thread = thread
        self._receiver = receiver
        self._ordered = receiver.subscription.ordering == "key"
        self._bell = Bell()
        self._hungry = self._woken = False
        if not self._ordered:
            receiver.on_news = self._hear

    def _hear(self) -> None:
        if self._hungry or self._receiver.over:
            self._bell.ring()

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        if self._ordered:
            return self._thread.run(self._receiver.receive, limit, timeout)
        deadline = monotonic() + timeout
        self._hungry = limit > 0
        while True:
            found = self._receiver.at_hand(limit)
            left = deadline - monotonic()
            if found or self._woken or left <= 0:
                self._hungry = self._woken = False
                return found
            self._bell.wait(left)

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled."""
        return self._receiver.recalled()

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        if self._ordered or self._receiver.begun or not self._receiver.writable:
            self._thread.run(self._receiver.settle, settlements)
        else:
            self._receiver.settle_soon(settlements, self._thread.post)

    def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        return self._thread.run(self._receiver.note, notes)

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        return self._thread.run(self._receiver.begin, token)

    def wake(self) -> None:
        """As Receiver.wake."""
        if self._ordered:
            self._thread.post(self._receiver.wake)
        else:
            self._woken = True
            self._bell.ring()

    def close(self) -> None:
        """As Receiver.close."""
        with suppress(ClosedError):  # the backend was closed before, and all that it had
            self._thread.run(self._receiver.close)


class DeadReceiver:
    """The BlockingReceiver of dead letters."""

    def __init__(self, thread: IoThread, receiver: letters.DeadReceiver) -> None:
        self._thread = thread
        self._receiver = receiver

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        return self._thread.run(self._receiver.receive, limit, timeout)

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled."""
        return self._receiver.recalled()

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        self._thread.run(self._receiver.settle, settlements)

    def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        return self._thread.run(self._receiver.note, notes)

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        return self._thread.run(self._receiver.begin, token)

    def wake(self) -> None:
        """As Receiver.wake."""
        self._thread.post(self._receiver.wake)

    def close(self) -> None:
        """As Receiver.close."""
        with suppress(ClosedError):  # the backend was closed before, and all that it had
            self._thread.run(self._receiver.close)


class RabbitBackend:
    """The BlockingBackend.

    Raises:
        ConfigurationError: the URL makes no sense.
    """

    def __init__(self, url: str) -> None:
        self._broker = RabbitBroker(url, pika_driver.connect)
        self._thread = IoThread()
        self.capabilities: Capabilities = self._broker.capabilities

    def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return self._thread.run(self._broker.connect, timeout)

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        self._thread.run(self._broker.declare, topology)

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return self._thread.run(self._broker.examine, topology)

    def open_sender(self) -> RabbitSender:
        """As Backend.open_sender."""
        return RabbitSender(self._thread, self._thread.run(self._broker.open_sender))

    def open_receiver(self, subscription: Subscription, notify: Notify) -> RabbitReceiver | DeadReceiver:
        """As Backend.open_receiver."""
        receiver = self._thread.run(self._broker.open_receiver, subscription, notify)
        if isinstance(receiver, letters.DeadReceiver):
            return DeadReceiver(self._thread, receiver)
        return RabbitReceiver(self._thread, receiver)

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        return self._thread.run(self._broker.inspect, topic, group)

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        return self._thread.run(self._broker.groups, topic)

    def close(self) -> None:
        """As Backend.close."""
        with suppress(ClosedError):
            self._thread.run(self._broker.close)
        self._thread.close()
