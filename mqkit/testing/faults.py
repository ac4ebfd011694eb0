"""A seam that breaks on demand: any backend behind a wrapper that notes what passes, in order, and can refuse it.

`Faults(url)` gives a URL and a plugin for an app; the app then works on the broker of `url` through the wrapper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from itertools import count
from typing import Any, ClassVar, Literal

from mqkit.backend import (
    BackendSpec,
    Counts,
    Notes,
    Notify,
    Recall,
    Receiver,
    Sender,
    Settlement,
    Settlements,
    Subscription,
)
from mqkit.errors import BackendError, MqkitError, PublishError
from mqkit.hookspecs import hookimpl
from mqkit.immediate import run_now
from mqkit.message import Delivery, Outgoing
from mqkit.plugins import Plugins
from mqkit.registry import scheme_of
from mqkit.testing.colours import backend_of
from mqkit.topology import Finding, Topology


@dataclass(frozen=True, slots=True)
class Passed:
    """Something that passed the seam: messages that became safe, or deliveries that were settled or noted."""

    kind: Literal["sent", "settled", "noted"]
    sent: tuple[Outgoing, ...] = ()
    settled: tuple[tuple[Delivery, Settlement], ...] = ()
    noted: tuple[tuple[Delivery, int], ...] = ()


def let_pass(_: object) -> None:
    """No fault."""


def refusal(*, retryable: bool = False) -> MqkitError:
    """What a broker says that stores nothing."""
    return BackendError("refused by the test", retryable=retryable)


class Faults:
    """What a test does to the seam of one service, and what it saw there.

    Attributes:
        sending: called with each batch before it is sent; what it raises, the sender raises, and nothing is sent.
        refusing: asked about each message of it: an error refuses that message alone.
        settling: called with what is about to be settled; what it raises is what the receiver raises.
        noting: called with what is about to be noted; what it raises, the receiver raises, and nothing is noted.
        passed: what passed, in order.
    """

    _numbers: ClassVar = count(1)
    _known: ClassVar[dict[str, "Faults"]] = {}

    def __init__(self, url: str) -> None:
        self.behind = url
        self.scheme = f"faulty-{next(self._numbers)}"
        self.url = f"{self.scheme}+{url}"
        self.sending: Callable[[Sequence[Outgoing]], object] = let_pass
        self.refusing: Callable[[Outgoing], MqkitError | None] = let_pass
        self.settling: Callable[[Sequence[tuple[Delivery, Settlement]]], object] = let_pass
        self.noting: Callable[[Sequence[tuple[Delivery, int]]], object] = let_pass
        self.passed: list[Passed] = []
        self._known[self.scheme] = self

    @hookimpl
    def mqkit_backends(self) -> Sequence[BackendSpec]:
        """The wrapper, as a backend of its own."""
        return (
            BackendSpec(
                name=self.scheme,
                summary="Another backend, with faults.",
                schemes=(f"{self.scheme}+{scheme_of(self.behind)}",),
                example_url=self.url,
                capabilities=Plugins().backends.spec(self.behind).capabilities,
                asynchronous="mqkit.testing.faults:FaultyBackend",
                blocking="mqkit.testing.faults:blocking",
            ),
        )

    @classmethod
    def of(cls, url: str) -> "Faults":
        """Those that made `url`."""
        return cls._known[url.partition("+")[0]]


class FaultyBackend:
    """As Backend."""

    def __init__(self, url: str, colour: str = "AsyncApp") -> None:
        self._faults = Faults.of(url)
        self._behind = backend_of(self._faults.behind, colour)
        self.capabilities = self._behind.capabilities

    async def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return await self._behind.connect(timeout)

    async def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        await self._behind.declare(topology)

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        return await self._behind.examine(topology)

    async def open_sender(self) -> "FaultySender":
        """As Backend.open_sender."""
        return FaultySender(self._faults, await self._behind.open_sender())

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> "FaultyReceiver":
        """As Backend.open_receiver."""
        return FaultyReceiver(self._faults, await self._behind.open_receiver(subscription, notify))

    async def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        return await self._behind.inspect(topic, group)

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        return await self._behind.groups(topic)

    async def close(self) -> None:
        """As Backend.close."""
        await self._behind.close()


class FaultySender:
    """As Sender."""

    def __init__(self, faults: Faults, behind: Sender) -> None:
        self._faults = faults
        self._behind = behind

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send."""
        self._faults.sending(batch)
        refusals = self._refusals(batch)
        taken = tuple(outgoing for i, outgoing in enumerate(batch) if i not in refusals)
        if taken:
            await self._behind.send(taken, timeout)
            self._faults.passed.append(Passed("sent", sent=taken))
        if refusals:
            raise PublishError(refusals)

    def _refusals(self, batch: Sequence[Outgoing]) -> dict[int, MqkitError]:
        """By position; what is refused for now keeps back those behind it that have its key and destination."""
        refusals: dict[int, MqkitError] = {}
        held: set[tuple[object, ...]] = set()
        for i, outgoing in enumerate(batch):
            row = (outgoing.topic, outgoing.group, outgoing.dead, outgoing.delay, outgoing.message.key)
            error = refusal(retryable=True) if row in held else self._faults.refusing(outgoing)
            if error is not None:
                refusals[i] = error
                if outgoing.message.key is not None and getattr(error, "retryable", False):
                    held.add(row)
        return refusals

    async def close(self) -> None:
        """As Sender.close."""
        await self._behind.close()


class FaultyReceiver:
    """As Receiver."""

    def __init__(self, faults: Faults, behind: Receiver) -> None:
        self._faults = faults
        self._behind = behind
        self._out: dict[int, Delivery] = {}
        """By the identity of the token, which need not be hashable."""

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        deliveries = await self._behind.receive(limit, timeout)
        self._out.update((id(delivery.token), delivery) for delivery in deliveries)
        return deliveries

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled."""
        return self._behind.recalled()

    async def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        named = tuple((self._out.pop(id(token)), settlement) for token, settlement in settlements)
        self._faults.settling(named)
        self._faults.passed.append(Passed("settled", settled=named))
        await self._behind.settle(settlements)

    async def note(self, notes: Notes) -> Sequence[object] | None:
        """As Receiver.note."""
        named = tuple((self._out[id(token)], spent) for token, spent in notes)
        self._faults.noting(named)
        on_their_way = await self._behind.note(notes)
        late = frozenset(on_their_way or ())
        safe = tuple(one for one, (token, _) in zip(named, notes, strict=True) if token not in late)
        if safe:
            self._faults.passed.append(Passed("noted", noted=safe))
        return on_their_way

    async def begin(self, token: object) -> int:
        """As Receiver.begin."""
        return await self._behind.begin(token)

    def wake(self) -> None:
        """As Receiver.wake."""
        self._behind.wake()

    async def close(self) -> None:
        """As Receiver.close."""
        await self._behind.close()


class Blocking:
    """What is written as `async def` and never suspends, with the same methods as plain ones."""

    def __init__(self, behind: object) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        """The same, plain; of a session that is opened, too."""
        found = getattr(self._behind, name)
        if not iscoroutinefunction(found):
            return found

        def call(*args: Any) -> Any:
            result = run_now(found(*args))
            return Blocking(result) if name.startswith("open_") else result

        return call


def blocking(url: str) -> Blocking:
    """The wrapper, as a blocking backend around one."""
    return Blocking(FaultyBackend(url, "App"))
