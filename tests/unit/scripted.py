"""A backend that does what a test tells it, and writes down what it was asked for, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mqkit.backend import Capabilities, Counts, Notes, Notify, Recall, Settlement, Settlements, Subscription
from mqkit.errors import ClosedError, ConnectionLost, LeaseLost
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import Finding, Topology

TOPIC, GROUP = "orders", "billing"
Script = Callable[[Sequence[Outgoing], float], Awaitable[None]]


async def accept(batch: Sequence[Outgoing], timeout: float) -> None:
    """The broker takes everything."""


class Scripted:
    """Hands out what `give` was given, again in each session until it is settled as done."""

    def __init__(self) -> None:
        self.capabilities = Capabilities()
        self.log: list[tuple[str, Any]] = []
        """("sent", Outgoing), ("done", token), ("release", token), ("noted", (token, spent)), ("begun", token), ("opened", n),
        ("closed", n)."""
        self.sends: list[list[Outgoing]] = []
        """Each call of send, also those that failed."""
        self.script: Script = accept
        self.scripts: deque[Script] = deque()
        """For the next sends; `script` for those after."""
        self.refuse_open: deque[Exception] = deque()
        self.refuse_sender: deque[Exception] = deque()
        self.lost_leases: set[object] = set()
        self.recalls: deque[Recall] = deque()
        self.notes_wait = False
        """They are on their way, and stay there."""
        self.refuse_note: deque[Exception] = deque()
        self.refuse_begin: deque[Exception] = deque()
        self.begun: dict[int, int] = {}
        """How often each was begun; nobody is heard of again, but by a test that takes it from here."""
        self.pending: dict[int, Delivery] = {}
        self.receivers: list[ScriptedReceiver] = []
        self.senders: list[ScriptedSender] = []
        self.declared = 0
        self.steps_declared: list[frozenset[float]] = []
        self.refuse_declare: deque[Exception] = deque()
        self._tokens = 0

    def give(self, body: bytes = b"{}", *, key: bytes | None = None, id: str | None = None, **rest: Any) -> int:
        """One more message for the group; its token."""
        self._tokens += 1
        headers = rest.pop("headers", {}) if id is None else {"ce_id": id, **rest.pop("headers", {})}
        wire = WireMessage(body, headers, key=key, content_type=rest.pop("content_type", None))
        self.pending[self._tokens] = Delivery(wire, self._tokens, TOPIC, GROUP, **rest)
        for receiver in self.receivers:
            receiver.offer(self._tokens)
        return self._tokens

    def lose(self, error: Exception | None = None) -> None:
        """End the receiver's session."""
        self.receivers[-1].fail(error or ConnectionLost("the cable was cut"))

    def recall(self, *tokens: int, lost: bool = False) -> None:
        """Take these away from the receiver's session."""
        self.recalls.append(Recall(frozenset(tokens).__contains__, lost))
        self.receivers[-1].wake()
        if lost:
            self.lost_leases.update(tokens)

    def of(self, kind: str) -> list[Any]:
        return [what for which, what in self.log if which == kind]

    async def connect(self, timeout: float) -> str:
        return "scripted"

    async def declare(self, topology: Topology) -> None:
        self.declared += 1

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        return ()

    async def open_sender(self) -> "ScriptedSender":
        if self.refuse_sender:
            raise self.refuse_sender.popleft()
        self.senders.append(ScriptedSender(self))
        return self.senders[-1]

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> "ScriptedReceiver":
        if self.refuse_open:
            raise self.refuse_open.popleft()
        self.receivers.append(ScriptedReceiver(self, subscription))
        self.log.append(("opened", len(self.receivers)))
        return self.receivers[-1]

    async def inspect(self, topic: str, group: str) -> Counts:
        return Counts(len(self.pending), None, None, None)

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        return [(TOPIC, GROUP)]

    async def close(self) -> None:
        """Nothing is held."""


class ScriptedSender:
    def __init__(self, home: Scripted) -> None:
        self._home = home
        self.closed = False

    async def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        home = self._home
        if self.closed:
            raise ClosedError("closed")
        home.sends.append(list(batch))
        await (home.scripts.popleft() if home.scripts else home.script)(batch, timeout)
        home.log += [("sent", outgoing) for outgoing in batch]

    async def close(self) -> None:
        self.closed = True


class ScriptedReceiver:
    def __init__(self, home: Scripted, subscription: Subscription) -> None:
        self._home = home
        self.subscription = subscription
        self._ready = deque(home.pending)
        self._out: set[int] = set()
        self._stir = asyncio.Event()
        self._error: Exception | None = None
        self.limits: list[int] = []
        self.closed = False

    def offer(self, token: int) -> None:
        self._ready.append(token)
        self._stir.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._stir.set()

    async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        self.limits.append(limit)
        if not self._error and not (limit and self._ready):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), timeout)
        self._stir.clear()
        if self._error:
            raise self._error
        taken = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        self._out.update(taken)
        assert len(self._out) <= self.subscription.prefetch + self.subscription.aside
        return [replace(self._home.pending[token], token=token) for token in taken]

    def recalled(self) -> Sequence[Recall]:
        recalls = list(self._home.recalls)
        self._home.recalls.clear()
        return recalls

    async def settle(self, settlements: Settlements) -> None:
        if self._error:
            raise self._error
        lost = []
        for token, settlement in settlements:
            assert isinstance(token, int)
            assert token in self._out, f"{token} is not out with this session"
            self._out.discard(token)
            if token in self._home.lost_leases:
                lost.append(token)
                continue
            self._home.log.append((settlement.value, token))
            if settlement is Settlement.DONE:
                del self._home.pending[token]
        if lost:
            raise LeaseLost(f"lost {lost}")

    async def note(self, notes: Notes) -> Sequence[object]:
        if self._error:
            raise self._error
        if self._home.notes_wait:
            return [token for token, _ in notes]
        if self._home.refuse_note:
            raise self._home.refuse_note.popleft()
        lost = []
        for token, spent in notes:
            assert isinstance(token, int)
            assert token in self._out, f"{token} is not out with this session"
            if token in self._home.lost_leases:
                lost.append(token)
                continue
            self._home.log.append(("noted", (token, spent)))
            self._home.pending[token] = replace(self._home.pending[token], spent=spent)
        if lost:
            raise LeaseLost(f"lost {lost}")
        return []

    async def begin(self, token: object) -> int:
        if self._error:
            raise self._error
        if self._home.refuse_begin:
            raise self._home.refuse_begin.popleft()
        assert isinstance(token, int)
        assert token in self._out, f"{token} is not out with this session"
        before = self._home.begun.get(token, 0)
        self._home.begun[token] = before + 1
        self._home.log.append(("begun", token))
        return before

    def wake(self) -> None:
        self._stir.set()

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._home.log.append(("closed", self._home.receivers.index(self) + 1))
