"""How a topology is made: all of it durable, several things at once, and with a time for each alone."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, cast

import pytest

from mqkit.backends.rabbitmq.channels import Declared, NotFound
from mqkit.backends.rabbitmq.declaring import CHANNELS, PATIENCE, Declaring
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.management import Management
from mqkit.backends.rabbitmq.options import parse_url
from mqkit.backends.rabbitmq.topology import Wanted, wanted
from mqkit.errors import BackendError, ConnectionLost
from mqkit.topology import TopicNeed, Topology
from tests.unit.virtual_time import run

MANY = Topology(tuple(TopicNeed(f"topic-{n}", frozenset({"g"})) for n in range(500)))


class Scribe:
    """A link and all of its channels: writes down what it is asked for. A queue takes `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.url = parse_url("amqp://here")
        self.seconds = seconds
        self.is_closed = False
        self.exchanges: dict[str, tuple[str, bool, Mapping[str, object]]] = {}
        self.queues: dict[str, tuple[bool, bool, bool, Mapping[str, object]]] = {}
        self.bindings: set[tuple[str, str, str]] = set()
        self.at_once = self.most_at_once = 0

    calling = Link.calling

    async def channel(self) -> "Scribe":
        return self

    async def drop(self, channel: object) -> None:
        """Nothing is held."""

    async def exchange_declare(
        self, exchange: str, kind: str, *, durable: bool, arguments: Mapping[str, object]
    ) -> None:
        self.exchanges[exchange] = kind, durable, arguments

    async def queue_declare(
        self,
        queue: str,
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, object],
    ) -> Declared:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        self.queues[queue] = durable, exclusive, auto_delete, arguments
        return Declared(queue, 0, 0)

    async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        self.bindings.add((exchange, queue, routing_key))

    async def exchange_bind(self, destination: str, source: str, routing_key: str) -> None:
        self.bindings.add((source, destination, routing_key))


def declared(topology: Topology, scribe: Scribe) -> Coroutine[Any, Any, None]:
    return Declaring(cast("Link", scribe), Management(scribe.url)).declare(wanted(topology))


def test_all_that_is_made_is_as_it_is_wanted_and_outlives_the_broker() -> None:
    scribe, need = Scribe(), wanted(Topology((TopicNeed("orders", frozenset({"g"})),)))
    run(declared(Topology((TopicNeed("orders", frozenset({"g"})),)), scribe))
    assert scribe.exchanges == {one.name: (one.type, True, dict(one.arguments)) for one in need.exchanges}
    assert scribe.queues == {one.name: (True, False, False, dict(one.arguments)) for one in need.queues}
    assert scribe.bindings == {(one.exchange, one.target, one.key) for one in need.bindings}


def test_a_large_topology_takes_as_long_as_it_takes_and_some_of_it_is_made_at_once() -> None:
    scribe = Scribe(seconds=0.5)

    async def main() -> float:
        await declared(MANY, scribe)
        return asyncio.get_running_loop().time()

    assert run(main()) > 5 * PATIENCE
    assert len(scribe.queues) == len(wanted(MANY).queues)
    assert scribe.most_at_once == CHANNELS


def test_what_is_never_answered_ends_it_in_the_time_of_one_thing() -> None:
    async def main() -> float:
        with pytest.raises(ConnectionLost, match=f"did not answer within {PATIENCE:g} s"):
            await declared(MANY, Scribe(seconds=10_000))
        return asyncio.get_running_loop().time()

    assert run(main()) == PATIENCE


def test_what_is_deleted_while_it_is_declared_is_to_be_declared_again() -> None:
    class Emptied(Scribe):
        async def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
            raise NotFound("NOT_FOUND - no exchange")

    with pytest.raises(BackendError, match="changed while its things were declared: NOT_FOUND") as caught:
        run(declared(Topology((TopicNeed("orders", frozenset({"g"})),)), Emptied()))
    assert caught.value.retryable


def test_nothing_wanted_is_nothing_asked() -> None:
    scribe = Scribe()
    run(Declaring(cast("Link", scribe), Management(scribe.url)).declare(Wanted((), (), ())))
    assert not scribe.exchanges
    assert not scribe.queues


def test_while_it_takes_long_the_log_tells_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "mqkit"):
        run(declared(Topology((TopicNeed("orders", frozenset({"g"})),)), Scribe()))
        assert not caplog.records
        run(declared(MANY, Scribe(seconds=1.0)))
    told = [record.getMessage() for record in caplog.records]
    total = len(wanted(MANY).queues)
    assert told[0].endswith(f"of {total} queues are declared")
    assert total / CHANNELS / 10 < len(told) < total / CHANNELS / 3, "a line every few seconds"
