"""Declaring a topic that is published to for the first time: once, in the publisher's time, and again while it may help."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from mqkit.declarations import TRIES, Declarations, made_anew
from mqkit.errors import BackendError, ConnectionLost, PublishError, TopologyError, Unroutable
from mqkit.message import Outgoing, WireMessage
from mqkit.producer import Producer
from mqkit.topic import Topic
from mqkit.topology import TopicNeed, Topology
from tests.unit.scripted import Script, Scripted
from tests.unit.virtual_time import VirtualPorts, run

ORDERS = Topic("orders", dict, groups=["billing"])


class Slow(Scripted):
    """Declaring takes `seconds`, and raises what `failures` has."""

    def __init__(self, seconds: float = 0.0, failures: list[Exception] | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.failures = failures or []
        self.asked: list[Topology] = []

    async def declare(self, topology: Topology) -> None:
        self.declared += 1
        self.asked.append(topology)
        await asyncio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)


def declaring(backend: Slow, work: Callable[[Callable[[float], Awaitable[None]]], Awaitable[None]]) -> None:
    async def main() -> None:
        declarations, ports = Declarations(), VirtualPorts()
        try:
            await work(lambda timeout: declarations.ensure(backend, ports, ORDERS, timeout))
        finally:
            await declarations.close()
            ports.close()

    run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_topic_is_declared_once_however_many_ask() -> None:
    backend = Slow(1)

    async def work(ensure: Callable[[float], Awaitable[None]]) -> None:
        await asyncio.gather(*(ensure(30) for _ in range(10)))
        await ensure(30)
        assert now() == 1

    declaring(backend, work)
    assert backend.declared == 1


def test_each_who_asks_has_a_time_of_his_own() -> None:
    backend = Slow(60)

    async def work(ensure: Callable[[float], Awaitable[None]]) -> None:
        patient = asyncio.ensure_future(ensure(100))
        with pytest.raises(ConnectionLost, match="nothing was sent: topic 'orders' could not be declared within 2 s"):
            await ensure(2)
        assert now() == 2
        await patient
        assert now() == 60
        await ensure(1)

    declaring(backend, work)
    assert backend.declared == 1


def test_while_the_broker_is_away_it_is_tried_again_until_the_time_is_over() -> None:
    backend = Slow(failures=[ConnectionLost("nobody there") for _ in range(1000)])

    async def work(ensure: Callable[[float], Awaitable[None]]) -> None:
        with pytest.raises(ConnectionLost, match="within 20 s: nobody there"):
            await ensure(20)
        assert now() == 20
        assert 10 < backend.declared < 40
        del backend.failures[2:]
        await ensure(20)
        assert now() < 25

    declaring(backend, work)


@pytest.mark.parametrize("error", [TopologyError("another type"), BackendError("no permission"), KeyError("a bug")])
def test_what_no_other_try_mends_is_raised_at_once_and_tried_for_the_next_who_asks(error: Exception) -> None:
    async def work(ensure: Callable[[float], Awaitable[None]]) -> None:
        both = await asyncio.gather(ensure(30), ensure(30), return_exceptions=True)
        assert list(both) == [error, error]
        assert now() == 0
        await ensure(30)

    declaring(Slow(failures=[error]), work)


def test_closing_ends_who_waits() -> None:
    async def main() -> None:
        declarations, ports = Declarations(), VirtualPorts()
        waiting = asyncio.ensure_future(declarations.ensure(Slow(60), ports, ORDERS, 30))
        await asyncio.sleep(1)
        await declarations.close()
        with pytest.raises(ConnectionLost, match="interrupted"):
            await waiting
        assert now() == 1
        ports.close()

    run(main())


def unroutable(times: int) -> Script:
    """Nothing would receive the second message, so many times."""
    left = [None] * times

    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        at = next((i for i, outgoing in enumerate(batch) if outgoing.message.body == b"2"), None)
        if left and at is not None:
            left.pop()
            raise PublishError({at: Unroutable("no queue")})

    return script


@pytest.mark.parametrize(
    ("topic", "others", "checked", "times", "left", "declared"),
    [
        (ORDERS, "elsewhere", True, 1, {}, 2),
        (ORDERS, "elsewhere", True, 9, {1}, 2),
        (ORDERS, "elsewhere", False, 1, {1}, 1),
        (Topic("orders", dict), "elsewhere", True, 1, {1}, 1),
        (Topic("orders", dict), "orders", True, 1, {}, 2),
    ],
    ids=[
        "is declared again",
        "but once",
        "not where a topic keeps its messages",
        "not without a group",
        "with the groups that the app works for itself",
    ],
)
def test_a_topic_whose_queues_somebody_deleted(
    topic: Topic[object],
    others: str,
    checked: bool,
    times: int,
    left: set[int],
    declared: int,
) -> None:
    async def main() -> None:
        own = Topology((TopicNeed(others, frozenset(["shipping"])),))
        backend, ports, declarations = Slow(), VirtualPorts(), Declarations(topology=lambda: own)
        backend.capabilities = replace(backend.capabilities, routing_checked=checked)
        backend.script = unroutable(times)
        producer = Producer(backend, ports)
        producer.start()
        batch = [Outgoing(WireMessage(body), "orders") for body in (b"1", b"2", b"3")]
        errors = await declarations.send(backend, ports, producer, topic, batch, 30)
        assert errors.keys() == set(left)
        assert backend.declared == declared
        assert all(("shipping" in need.groups) == (others == need.name) for one in backend.asked for need in one.topics)
        await producer.close()
        ports.close()

    run(main())


@pytest.mark.parametrize(
    ("failures", "declared"),
    [
        ([], 1),
        ([BackendError("it changed meanwhile", retryable=True)] * 3, 4),
        ([BackendError("it changed meanwhile", retryable=True)] * 100, TRIES),
        ([ConnectionLost("cut")] * 3, 1),
        ([TopologyError("it is there", ["otherwise"])] * 3, 1),
        ([ZeroDivisionError()] * 3, 1),
    ],
    ids=["once", "while more is being deleted", "to an end", "not without a connection", "not in vain", "not blindly"],
)
def test_what_somebody_deleted_is_made_anew(failures: list[Exception], declared: int) -> None:
    async def main() -> None:
        backend, ports = Slow(failures=failures), VirtualPorts()

        async def declare(steps: frozenset[float]) -> None:
            assert not steps
            await backend.declare(Topology())

        await made_anew(declare, "orders.billing", ports.signal())
        assert backend.declared == declared
        assert now() < 5
        ports.close()

    run(main())
