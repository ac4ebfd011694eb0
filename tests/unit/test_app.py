"""AsyncApp: the rooms put together, on the memory broker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from mqkit import (
    AsyncApp,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    Event,
    Message,
    Retry,
    SchemaError,
    Topic,
    TopologyError,
    Unroutable,
    hookimpl,
)
from mqkit.backends.memory import MemoryBackend
from mqkit.message import NOTHING
from mqkit.topology import TopicNeed, Topology


class Order(BaseModel):
    customer: str
    cds: int = 1


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}"


def orders() -> Topic[Order]:
    return Topic("orders", Order, key="customer", groups=["billing"])


async def until(fact: Callable[[], object]) -> None:
    end = asyncio.get_running_loop().time() + 20
    while not fact():
        assert asyncio.get_running_loop().time() < end, "did not happen"
        await asyncio.sleep(0.005)


def soon(work: Awaitable[None]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work, 30)

    asyncio.run(main())


def test_what_is_published_is_handled(url: str) -> None:
    topic, app = orders(), AsyncApp(url, service="shop")
    seen: list[Message[Order]] = []

    @app.subscribe(topic, group="billing")
    async def bill(order: Order, message: Message[Order]) -> None:
        seen.append(message)

    async def main() -> None:
        async with app.working():
            one = await app.publish(topic, Order(customer="ann"), headers={"a": "b"})
            ids = await app.publish_many(topic, [Order(customer="bob"), Order(customer="cy")])
            await until(lambda: len(seen) == 3)
            assert {message.id for message in seen} == {one, *ids}
            first = next(message for message in seen if message.id == one)
            assert (first.payload, first.key, first.source, first.type) == (
                Order(customer="ann"),
                "ann",
                "shop",
                "Order",
            )
            assert first.headers == {"a": "b"}
        with pytest.raises(ClosedError):
            await app.publish(topic, Order(customer="ann"))

    soon(main())


def test_an_id_and_a_key_may_be_given(url: str) -> None:
    topic, app = orders(), AsyncApp(url)
    seen: list[Message[Order]] = []
    app.subscribe(topic, group="billing")(lambda order, message: seen.append(message))

    async def main() -> None:
        async with app.working():
            assert await app.publish(topic, Order(customer="ann"), id="mine", key="other") == "mine"
            await until(lambda: seen)
            assert (seen[0].id, seen[0].key) == ("mine", "other")

    soon(main())


def test_headers_of_many_are_those_of_each(url: str) -> None:
    topic, app = orders(), AsyncApp(url)
    seen: list[Message[Order]] = []
    app.subscribe(topic, group="billing")(lambda order, message: seen.append(message))

    async def main() -> None:
        async with app.working():
            await app.publish_many(topic, [Order(customer="ann")] * 2, headers={"trace": "7"})
            await until(lambda: len(seen) == 2)
            assert [message.headers for message in seen] == [{"trace": "7"}] * 2

    soon(main())


def test_how_large_a_body_may_be_is_a_setting(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQKIT_MAX_BODY_BYTES", "20")
    topic, app, told = orders(), AsyncApp(url), list[str]()
    app.subscribe(topic, group="billing")(lambda order: None)
    app.listen(lambda event: told.append(event.detail) if event.kind == "dead-letter" else None)

    async def main() -> None:
        async with app.working():
            await app.publish(topic, Order(customer="x" * 30))
            await until(lambda: told)
            assert told[0].startswith("too-large")

    soon(main())


def test_wrong_payloads_are_told_before_anything_is_sent(url: str) -> None:
    topic, app = orders(), AsyncApp(url)
    wrong = Order(customer="ann")
    wrong.cds = "many"  # type: ignore[assignment] # that is the point

    async def main() -> None:
        async with app:
            with pytest.raises(SchemaError) as one:
                await app.publish(topic, wrong)
            assert [field.path for field in one.value.fields] == ["cds"]
            with pytest.raises(SchemaError) as many:
                await app.publish_many(topic, [Order(customer="ann"), wrong])
            assert [field.path for field in many.value.fields] == ["1.cds"]
            with pytest.raises(EncodeError, match="id"):
                await app.publish(topic, Order(customer="ann"), id="x" * 300)
            with pytest.raises(ValueError, match="delay"):
                await app.publish(topic, Order(customer="ann"), delay=-1)
            await app.publish(topic, Order(customer="ann"))
            assert (await app.inspect(topic, "billing")).ready == 1

    soon(main())


def test_none_is_none_to_the_handler_on_every_attempt_and_goes_as_what_brokers_have_for_nothing(url: str) -> None:
    topic, app = Topic("orders", Order | None, groups=["billing"]), AsyncApp(url)
    seen: list[tuple[int, str | None, Order | None]] = []

    @app.subscribe(topic, group="billing", retry=Retry(attempts=2, wait_initial=0.01))
    async def bill(order: Order | None, message: Message[Order | None]) -> None:
        seen.append((message.attempt, message.key, order))
        if message.attempt == 1:
            raise ValueError("once")

    async def main() -> None:
        async with app.working():
            assert app.engine.prepare(topic, None).message.properties == NOTHING
            assert not app.engine.prepare(topic, Order(customer="ann")).message.properties
            await app.publish(topic, None, key="42")
            await until(lambda: len(seen) == 2)
        assert seen == [(1, "42", None), (2, "42", None)]

    soon(main())


def test_publishing_to_nobody_raises(url: str) -> None:
    app = AsyncApp(url)

    async def main() -> None:
        async with app:
            with pytest.raises(Unroutable):
                await app.publish(Topic("nobody-listens"), 1)

    soon(main())


def test_a_handler_is_registered_once_for_a_topic_and_group(url: str) -> None:
    topic, app = orders(), AsyncApp(url)

    @app.subscribe(topic, group="billing")
    async def first(order: Order) -> None: ...

    with pytest.raises(ConfigurationError, match=r"group 'billing' has a handler for topic 'orders' already, .*first"):

        @app.subscribe(topic, group="billing")
        async def second(order: Order) -> None: ...

    app.subscribe(topic, group="other")(first)
    assert [(r.topic.name, r.group) for r in app.registrations] == [("orders", "billing"), ("orders", "other")]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"group": "a.b"}, "group name"),
        ({"group": "g", "concurrency": 0}, "concurrency"),
        ({"group": "g", "timeout": -1}, "timeout"),
        ({"group": "g", "ordering": "keys"}, "ordering"),
        ({"group": "g", "middleware": [print]}, "needs one yield"),
    ],
)
def test_options_that_make_no_sense_are_told_while_starting(options: dict[str, Any], named: str, url: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=named):
        AsyncApp(url).subscribe(orders(), **options)(lambda order: None)


def test_an_app_that_handles_nothing_has_nothing_to_run(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no @app\.subscribe"):
        soon(AsyncApp(url).run())


def test_run_works_until_it_is_stopped(url: str) -> None:
    topic, app = orders(), AsyncApp(url)
    seen: list[Order] = []
    app.subscribe(topic, group="billing")(seen.append)

    async def main() -> None:
        running = asyncio.create_task(app.run())
        await until(lambda: app.engine.is_open)
        await app.publish(topic, Order(customer="ann"))
        await until(lambda: seen)
        app.stop()
        await running
        with pytest.raises(ClosedError):
            app.backend  # noqa: B018 - raises

    soon(main())


def test_what_the_app_needs_is_declared_or_with_declare_off_demanded(url: str) -> None:
    topic = orders()
    strict = AsyncApp(url, declare=False)
    strict.subscribe(topic, group="stock")(lambda order: None)

    async def main() -> None:
        with pytest.raises(TopologyError, match="declare is off") as caught:
            async with strict:
                raise AssertionError("never open")
        assert "topic orders is missing" in caught.value.differences
        relaxed = AsyncApp(url)
        relaxed.subscribe(topic, group="stock")(lambda order: None)
        async with relaxed:
            assert {group for _, group in await relaxed.backend.groups("orders")} == {"billing", "stock"}
        async with strict:
            assert {finding.state for finding in await strict.examine()} == {"present"}

    soon(main())


def test_a_broker_that_is_not_there_is_told_at_the_start(url: str) -> None:
    app = AsyncApp(url)
    MemoryBackend.broker(url.removeprefix("memory://")).interrupt()

    async def main() -> None:
        with pytest.raises(ConnectionLost):
            async with app:
                raise AssertionError("never open")

    soon(main())


def test_an_outage_is_waited_out_and_told_once(url: str) -> None:
    topic = orders()
    events: list[Event] = []
    app = AsyncApp(url, listeners=[events.append])
    seen: list[str] = []
    app.subscribe(topic, group="billing")(lambda order: seen.append(order.customer))
    broker = MemoryBackend.broker(url.removeprefix("memory://"))

    async def main() -> None:
        async with app.working():
            await app.publish(topic, Order(customer="before"))
            await until(lambda: seen)
            broker.interrupt()
            publishing = asyncio.create_task(app.publish(topic, Order(customer="during")))
            await until(lambda: len([e for e in events if e.kind == "disconnected"]) == 2)
            broker.restore()
            await publishing
            await until(lambda: "during" in seen)
        kinds = [event.kind for event in events if event.kind in ("connected", "disconnected")]
        assert sorted(kinds) == ["connected", "connected", "disconnected", "disconnected"]

    soon(main())


class Plugin:
    """Brings all that does not come as a distribution."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @hookimpl
    def mqkit_startup(self, app: AsyncApp) -> None:
        self.log.append(f"startup {app.description}")

    @hookimpl
    def mqkit_shutdown(self) -> None:
        self.log.append("shutdown")

    @hookimpl
    def mqkit_listeners(self) -> Sequence[Callable[[Event], None]]:
        return [self.heard]

    @hookimpl
    def mqkit_topology(self) -> Sequence[TopicNeed]:
        return [TopicNeed("audit", frozenset({"auditors"}))]

    def heard(self, event: Event) -> None:
        self.log.append(event.kind)
        raise ValueError("a listener that raises harms nobody")


def test_plugins_hear_see_and_add(url: str) -> None:
    plugin = Plugin()
    topic, app = orders(), AsyncApp(url, plugins=[plugin])

    @app.subscribe(topic, group="billing", retry=Retry(attempts=1))
    async def bill(order: Order) -> None:
        raise ValueError

    async def main() -> None:
        async with app.working():
            assert ("audit", "auditors") in await app.backend.groups()
            await app.publish(topic, Order(customer="ann"))
            await until(lambda: "dead-letter" in plugin.log)
            (letter,) = await app.dead_letters(topic, "billing").list()
            assert letter.error_type == "ValueError"

    soon(main())
    assert plugin.log[0].startswith("startup memory")
    assert plugin.log[-1] == "shutdown"


def test_a_plugin_that_fails_to_start_is_named_and_leaves_nothing_open(url: str) -> None:
    class Failing:
        @hookimpl
        def mqkit_startup(self) -> None:
            raise ZeroDivisionError("oops")

    app = AsyncApp(url, plugins=[Failing()])

    async def main() -> None:
        with pytest.raises(
            ConfigurationError, match=r"plugin '.*Failing' failed in mqkit_startup: ZeroDivisionError: oops"
        ):
            async with app:
                raise AssertionError("never open")
        with pytest.raises(ClosedError):
            await app.inspect("orders", "billing")

    soon(main())


def test_many_tasks_publish_through_one_app(url: str) -> None:
    topic, app = orders(), AsyncApp(url)

    async def main() -> None:
        async with app:
            ids = await asyncio.gather(*(app.publish(topic, Order(customer=str(i))) for i in range(500)))
            assert len(set(ids)) == 500
            assert (await app.inspect(topic, "billing")).ready == 500

    soon(main())


def test_a_topic_is_declared_once_however_many_publish_to_it_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    sound = MemoryBackend.declare

    def declare(self: MemoryBackend, topology: Topology) -> None:
        declared.extend(need.name for need in topology.topics)
        time.sleep(0.05)
        if len(declared) == 1:
            raise TopologyError("just now")
        sound(self, topology)

    async def main() -> None:
        async with AsyncApp(url) as app:
            monkeypatch.setattr(MemoryBackend, "declare", declare)
            topic = orders()
            publishing = [app.publish(topic, Order(customer=str(i))) for i in range(100)]
            results = await asyncio.gather(*publishing, return_exceptions=True)
            assert all(isinstance(result, TopologyError) for result in results), "all hear why"
            await asyncio.gather(*(app.publish(topic, Order(customer=str(i))) for i in range(100)))

    soon(main())
    assert declared == ["orders", "orders"]
