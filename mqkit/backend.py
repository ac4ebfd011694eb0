"""THE SEAM: what a backend is. Nothing else stands between mqkit and a broker.

The docstrings are the specification, each sentence tested by `mqkit.testing.conformance`. Two colours, the same
words: `Backend` for an async driver, `BlockingBackend` for one that blocks; write one, `bridge.py` gives the other.

Rules for every adapter: it **never** retries, reconnects, sleeps, or reads a body. A Sender or Receiver belongs to one
task or thread at a time: the caller guarantees it; only `wake()` may come from anywhere. Driver exceptions never pass:
they are mapped by `errors.map_errors`. A session (sender or receiver) that raised ConnectionLost is finished: the
caller closes it, which must not raise, and opens another on the same backend.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Literal, Protocol, TypeAlias

from mqkit.message import Delivery, Outgoing
from mqkit.topology import Finding, Topology


class Settlement(Enum):
    """What a delivery is settled as."""

    DONE = "done"
    """Finished: never deliver it to this group again."""
    RELEASE = "release"
    """Give it back: deliver it again soon, to any member; in order, if it had an order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend gives. Checked when an app starts, and used to choose which promises are tested.

    Each is True where the promise holds, by the broker or by the adapter.
    """

    persistent: bool = True
    """What was published outlives the processes."""
    shared: bool = True
    """Several processes can work at the same group."""
    remote: bool = False
    """There is a server that can go away and come back."""
    delay: bool = True
    """`Outgoing.delay`."""
    exact_delay: bool = True
    """`Outgoing.delay` is waited for as a whole; where False, one step of it at a time: `topology.step`."""
    steps_on_demand: bool = False
    """`declare` leaves out the places of most steps until a topology names them: `TopicNeed.steps`."""
    ordering: bool = True
    """`Subscription.ordering="key"`: deliveries of one key come in the order of publication, also after a restart."""
    routing_checked: bool = True
    """Publishing to a topic without any group raises Unroutable; where False, the topic keeps it for later groups."""
    history: bool = False
    """A new group sees what was published before it existed."""
    typed_headers: bool = False
    """Header values other than text keep their type."""
    lag: bool = False
    """`Counts.lag` is known."""
    attribute_prefix: str = "ce_"
    """What CloudEvents attributes in headers begin with, by the protocol binding of this broker."""
    lease: float | None = None
    """Seconds after which another gets what a receiver holds that nobody called meanwhile, though it would not know;
    None: it knows by its session, and nothing else ends a claim."""
    max_message_bytes: int | None = None
    """The largest body by default, where there is one; a broker may be configured otherwise."""

    def lacking(self, needs: frozenset[str]) -> frozenset[str]:
        """Which of the named capabilities are not there."""
        known = {f.name for f in fields(self)}
        return frozenset(need for need in needs if need not in known or not getattr(self, need))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a receiver shall receive."""

    topic: str
    group: str
    source: Literal["group", "dead", "tail"] = "group"
    """group: the group's messages, with its retries and replays. tail: what is published to the topic from now on,
    seen by nobody else, gone when closed; `group` is then only a name for people. dead: its dead letters, each until
    settled DONE, the oldest first, and all of them, however many are out: `prefetch` and `prefetch_bytes` bound what
    is read ahead alone. Where the adapter can tell that there are no more, `receive` returns without waiting."""
    prefetch: int = 100
    """At most this many deliveries are out at once; the adapter asks the broker for no more than it must,"""
    aside: int = 0
    """but so many more as soon as they are received for: what waits for its time, or for another of its key, is not
    to stand in the way of what could run."""
    prefetch_bytes: int = 64 * 1024 * 1024
    """No more deliveries are handed out while the bodies of those that are out have so many bytes, and the adapter
    asks the broker for no more than about so many. One message is handed out whatever its size."""
    ordering: Literal["key", "none"] = "none"
    options: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How a group stands. None: this broker, or this way to it, cannot tell."""

    ready: int | None
    """Waiting for a member, now."""
    in_flight: int | None
    """With a member, not settled."""
    waiting: int | None
    """Waiting for the time of a retry or a delay."""
    dead: int | None
    lag: int | None = None
    """How many messages of the topic's log the group has not finished, where there is a log."""


Notify: TypeAlias = Callable[[Literal["rebalance", "connected", "disconnected"], str], None]
"""What an adapter calls, from any thread, when something changed that people want to know; with a short text."""

Settlements: TypeAlias = Sequence[tuple[object, Settlement]]
Notes: TypeAlias = Sequence[tuple[object, int]]
"""Tokens, and the attempts that were spent in place on each of those messages so far, all sessions together."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Some deliveries of a session are taken away, and the session goes on with its others."""

    covers: Callable[[object], bool]
    """Whether the delivery with this token is one of them."""
    lost: bool
    """False: they go when none of them is with a handler, or soon in any case. What has not started is settled as
    RELEASE, and what runs is settled as ever when it ends. True: they are gone, and settling one raises LeaseLost."""


def nothing_recalled() -> Sequence[Recall]:
    """`Receiver.recalled` of a session that keeps all that it has, or loses all at once."""
    return ()


class Sender(Protocol):
    """A session for sending. Opened by `Backend.open_sender`."""

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """Return when every message of the batch is safe at the broker (see the contract, A1), never before.

        Ends within about `timeout` seconds, one way or the other. Several calls may be in flight at once; messages of
        one key reach the broker in the order of the calls and of the batch: where one is refused for now (the
        rejection is `retryable`), none behind it with the same key and destination may become safe in this call or in
        one that is in flight; it is rejected, too.

        Raises:
            PublishError: not all are safe: names which are rejected and which are unknown, by position. Rejections
                hold the reason: Unroutable, MessageTooLarge, BackendError. The session goes on: what is unknown
                because its time was over may still become safe.
            ConnectionLost: nothing of the batch was sent at all, or all of it is unknown.
            ClosedError: after close().
        """
        ...

    async def close(self) -> None:
        """Let go of the session; idempotent; never raises; ends within a few seconds."""
        ...


class Receiver(Protocol):
    """A session for receiving. Opened by `Backend.open_receiver`."""

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """Up to `limit` deliveries, as soon as there is one; none after `timeout` seconds or when woken.

        `limit=0` only keeps the session alive (heartbeats, group membership) and returns early when woken; it is
        called at least every second while handlers run. Deliveries of one key come in order of publication.

        It returns early, too, when there is a recall. If the caller did not call for so long that its leases may have
        ended (a process that was stopped), it first finds out whether they have.

        Raises:
            ConnectionLost: the session ended; what was not settled is delivered again, to whoever asks.
            ClosedError: after close().
        """
        ...

    def recalled(self) -> Sequence[Recall]:
        """What was taken away during the last calls, each told once. Never blocks or raises.

        Asked for after each receive: none of what a recall covers may start from then on. A session that loses all
        it has at once raises ConnectionLost instead.
        """
        ...

    async def settle(self, settlements: Settlements) -> None:
        """Tell the broker about deliveries of this session, in any order. Never settles any other delivery.

        Returns when the broker was told; where telling is not confirmed (AMQP acknowledgements, Kafka's commits in
        the background), a crash right after it may deliver again.

        Raises:
            LeaseLost: some of these no longer belong to this session; all others were settled.
            ConnectionLost: the session ended; unsettled is whatever the broker did not hear of.
        """
        ...

    async def note(self, notes: Notes) -> Sequence[object] | None:
        """Keep with each of these deliveries how many attempts were spent on it in place.

        Where that can take long it goes on beside the session: `receive` returns early when something has come of it,
        and the same notes are asked for again. What was settled or given back meanwhile is noted all the same.
        Whoever gets the message next, after any crash, finds the latest note in `Delivery.spent`; a message that is
        settled DONE takes its note with it. Asked for with ordering="key" alone.

        Returns:
            The tokens of those whose notes are still on their way. All others are safe.

        Raises:
            LeaseLost: some of these no longer belong to this session; all others were noted.
            BackendError: the broker takes no notes now, and the session goes on: it will be asked again.
            ConnectionLost: the session ended; of the notes some, all or none are kept.
        """
        ...

    async def begin(self, token: object) -> int:
        """Keep with this delivery that its handler is about to be called; returns when that is safe.

        Asked for where a handler may be what ends its worker, so only of what was `redelivered`: that says it of all
        that a worker had, this of one.

        Returns:
            How often it was begun before, by any member, and nobody was heard of again. One is heard of when `settle`
            or `note` names the delivery, or when the session is closed in order.

        Raises:
            LeaseLost: it does not belong to this session any more.
            BackendError: not now, and the session goes on: another member has begun one, or the broker takes no notes.
            ConnectionLost: the session ended; the beginning may have been kept or not.
        """
        ...

    def wake(self) -> None:
        """Make a pending receive, or the next one, return at once. From any thread; never blocks or raises."""
        ...

    async def close(self) -> None:
        """Flush what was settled, give back what was not, leave. Idempotent, never raises, ends in a few seconds."""
        ...


class Backend(Protocol):
    """One broker, named by a URL. The constructor takes the URL as `str`, does no I/O, and raises ConfigurationError
    for a URL that makes no sense (also for unknown query options).
    """

    capabilities: Capabilities

    async def connect(self, timeout: float) -> str:
        """Make sure that the broker is there and lets us in; what it is, in a few words: `RabbitMQ 4.3.6`.

        Raises:
            ConnectionLost: not reachable within `timeout` seconds; the text names host, port and reason.
            AuthenticationFailed: it does not let us in.
        """
        ...

    async def declare(self, topology: Topology) -> None:
        """Create what is missing. Idempotent, safe from many processes at once; returns when it can be used.

        Raises:
            TopologyError: something exists with other settings; names each difference; that thing is left alone.
        """
        ...

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """One finding for each thing that declare would create or check, now or on demand. Changes nothing."""
        ...

    async def open_sender(self) -> Sender:
        """A new session for sending. Raises ConnectionLost, AuthenticationFailed."""
        ...

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> Receiver:
        """A new session for receiving what `subscription` names, which was declared before.

        Raises ConnectionLost, AuthenticationFailed, and ConfigurationError if it does not exist.
        """
        ...

    async def inspect(self, topic: str, group: str) -> Counts:
        """How the group stands. An empty group is all zeros.

        Raises:
            ConfigurationError: there is no such topic or group; names it, and those that exist where that is known.
        """
        ...

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """(topic, group) of each group that exists at the broker; of one topic if given.

        Raises:
            ConfigurationError: that cannot be known as things are set up; says what to change.
        """
        ...

    async def close(self) -> None:
        """Close what the backend itself holds; its sessions were closed before. Idempotent, never raises."""
        ...


class BlockingSender(Protocol):
    """`Sender`, for a driver that blocks: one thread at a time."""

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        ...

    def close(self) -> None:
        """As Sender.close."""
        ...


class BlockingReceiver(Protocol):
    """`Receiver`, for a driver that blocks: always called from the one thread that opened it, but for `wake`."""

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        ...

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled."""
        ...

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        ...

    def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        ...

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        ...

    def wake(self) -> None:
        """As Receiver.wake."""
        ...

    def close(self) -> None:
        """As Receiver.close."""
        ...


class BlockingBackend(Protocol):
    """`Backend`, for a driver that blocks. Its methods may be called from several threads."""

    capabilities: Capabilities

    def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        ...

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        ...

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        ...

    def open_sender(self) -> BlockingSender:
        """As Backend.open_sender."""
        ...

    def open_receiver(self, subscription: Subscription, notify: Notify) -> BlockingReceiver:
        """As Backend.open_receiver."""
        ...

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        ...

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        ...

    def close(self) -> None:
        """As Backend.close."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """How a backend presents itself to mqkit, without importing its driver."""

    name: str
    summary: str
    """One line for people."""
    schemes: tuple[str, ...]
    """Of its URLs: `("amqp", "amqps")`."""
    example_url: str
    capabilities: Capabilities
    asynchronous: str | None = None
    """`module:Class` of a Backend, imported when first used. At least one colour must be given."""
    blocking: str | None = None
    """`module:Class` of a BlockingBackend."""
    extra: str | None = None
    """The extra of the distribution that brings the driver, for the error when it is missing."""
