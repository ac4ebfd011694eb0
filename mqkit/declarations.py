"""What an app has declared at its broker: all of its topology when it opens, and what it publishes to first later."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from mqkit.backend import Backend
from mqkit.errors import BackendError, ConnectionLost, MqkitError, TopologyError, Unroutable
from mqkit.message import Outgoing
from mqkit.ports import Job, Ports, Signal
from mqkit.producer import Producer
from mqkit.topic import Topic
from mqkit.topology import STEPS, TopicNeed, Topology

log = logging.getLogger("mqkit")

Declare: TypeAlias = Callable[[frozenset[float]], Awaitable[None]]
"""Makes the group's topology again; or, given steps, only where its messages wait these."""
TRIES: Final = 6
"""How often what was deleted is made again at once, while more of it is being deleted."""
LONGEST_WAIT: Final = 2.0
"""Seconds between two tries to declare a topic while the broker is away; the first pauses are shorter."""


class _UnderWay:
    """One topic that is being declared, and who waits for it."""

    __slots__ = ("error", "job", "trouble", "waiters")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.waiters: list[Signal] = []
        self.trouble: Exception | None = None
        """What the last try came to, which may be better the next time."""
        self.error: Exception | None = None
        """Why it ended without success."""


class Declarations:
    """Of one session of an app.

    Args:
        known: topics that were declared already.
        declare: whether that is for the app to do; if not, `send` only sends.
        topology: tells what else the app needs, so also which groups of a topic it works for.
    """

    def __init__(
        self,
        known: Iterable[Topic[Any]] = (),
        *,
        declare: bool = True,
        topology: Callable[[], Topology] = Topology,
    ) -> None:
        self._known = set(known)
        self._declare = declare
        self._topology = topology
        self._under_way: dict[Topic[Any], _UnderWay] = {}

    async def send(
        self,
        backend: Backend,
        ports: Ports,
        producer: Producer,
        topic: Topic[Any],
        batch: Sequence[Outgoing],
        timeout: float,
    ) -> dict[int, MqkitError]:
        """As Producer.send; a topic that is published to for the first time is declared before, in the same time.

        It is declared once more if nothing would receive a message: somebody deleted it, or its groups' queues.
        """
        if not self._declare:
            return await producer.send(batch, timeout)
        until = ports.monotonic() + timeout
        if topic not in self._known:
            await self.ensure(backend, ports, topic, timeout)
            timeout = max(0.0, until - ports.monotonic())
        errors = await producer.send(batch, timeout)
        nowhere = [i for i, error in errors.items() if isinstance(error, Unroutable)]
        if nowhere and backend.capabilities.routing_checked and any(need.groups for need in self._needs(topic).topics):
            self._known.discard(topic)
            await self.ensure(backend, ports, topic, max(0.0, until - ports.monotonic()))
            again = await producer.send([batch[i] for i in nowhere], max(0.0, until - ports.monotonic()))
            errors = {i: error for i, error in errors.items() if i not in nowhere}
            errors |= {nowhere[i]: error for i, error in again.items()}
        return errors

    def _needs(self, topic: Topic[Any]) -> Topology:
        own = TopicNeed(topic.name, frozenset(topic.groups), topic.options)
        return Topology((own,)).including(need for need in self._topology().topics if need.name == topic.name)

    async def ensure(self, backend: Backend, ports: Ports, topic: Topic[Any], timeout: float) -> None:
        """Declare `topic`, once, however many ask for it at the same time; while the broker is away, try again.

        Raises:
            ConnectionLost: that took more than `timeout` seconds. It goes on for whoever asks next.
            TopologyError: something is there with other settings.
        """
        if topic in self._known:
            return
        under_way = self._under_way.get(topic)
        if under_way is None:
            under_way = self._under_way[topic] = _UnderWay()
            under_way.job = ports.spawn(self._make(backend, ports, topic, under_way), f"mqkit declares {topic.name}")
        waiter = ports.signal()
        under_way.waiters.append(waiter)
        try:
            ended = await waiter.wait(timeout)
        finally:
            under_way.waiters.remove(waiter)
        if not ended:
            because = f": {under_way.trouble}" if under_way.trouble is not None else ""
            raise ConnectionLost(
                f"nothing was sent: topic {topic.name!r} could not be declared within {timeout:g} s{because}"
            ) from under_way.trouble
        if under_way.error is not None:
            raise under_way.error

    async def _make(self, backend: Backend, ports: Ports, topic: Topic[Any], under_way: _UnderWay) -> None:
        """Until it is there, or nobody waits for it any more."""
        wait = LONGEST_WAIT / 32
        under_way.error = ConnectionLost(f"declaring topic {topic.name!r} was interrupted")
        try:
            while True:
                try:
                    await backend.declare(self._needs(topic))
                except Exception as error:
                    if not (isinstance(error, BackendError) and error.retryable and under_way.waiters):
                        raise
                    under_way.trouble = error
                    await ports.signal().wait(wait * (0.5 + ports.draw() / 2))
                    wait = min(wait * 2, LONGEST_WAIT)
                else:
                    break
            self._known.add(topic)
            under_way.error = None
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            under_way.error = error
        finally:
            del self._under_way[topic]
            for waiter in under_way.waiters:
                waiter.set()

    async def close(self) -> None:
        """Declare nothing more; who waits hears that it was interrupted."""
        jobs = [under_way.job for under_way in self._under_way.values() if under_way.job is not None]
        for job in jobs:
            job.cancel()
        for job in jobs:
            await job.join()


async def settled(backend: Backend, topology: Topology, *, declare: bool) -> None:
    """See to it that all of `topology` is there: make what is missing, or, without `declare`, only look.

    Raises:
        TopologyError: it is not, or something is there with other settings.
    """
    if declare:
        await backend.declare(topology)
        return
    findings = await backend.examine(topology)
    if missing := [f"{f.kind} {f.name} is missing" for f in findings if f.lacking(declare=False)]:
        raise TopologyError("declare is off, and at the broker", missing)
    if wrong := [line for f in findings if f.state == "differs" for line in f.lines()]:
        raise TopologyError("at the broker", wrong)


async def declared(backend: Backend, topology: Topology, steps: frozenset[float]) -> None:
    """Make `topology` again; or, given steps, the places where its messages wait these, if they may be missing.

    Raises: as Backend.declare.
    """
    if not steps:
        await backend.declare(topology)
    elif backend.capabilities.steps_on_demand:
        await backend.declare(topology.waiting(steps))


async def made_anew(declare: Declare, where: str, stopping: Signal) -> None:
    """Make what somebody deleted; what is wrong is logged, and nothing is raised.

    Args:
        where: the group, for the log.
        stopping: is set when it is not worth waiting any more.
    """
    for attempt in range(TRIES):
        try:
            return await declare(frozenset())
        except MqkitError as refused:
            log.warning("%s: cannot be declared again: %s", where, refused)
            if isinstance(refused, ConnectionLost) or not getattr(refused, "retryable", False):
                return None
        except Exception:
            log.exception("%s: declaring it again met an error in mqkit itself", where)
            return None
        if await stopping.wait(LONGEST_WAIT / 2.0 ** (TRIES - attempt)):
            return None
    return None


async def complete(backend: Backend, topology: Topology) -> None:
    """Make all of `topology`, also what would be made when it is first needed. Raises as Backend.declare."""
    await declared(backend, topology, frozenset())
    await declared(backend, topology, frozenset(STEPS))
