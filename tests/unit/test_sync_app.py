"""App: the rooms put together without an event loop, on the memory broker."""

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from mqkit import (
    App,
    AsyncApp,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    Event,
    Message,
    Retry,
    SchemaError,
    Topic,
    hookimpl,
)
from mqkit.backends.memory import MemoryBroker


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


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.002)


def test_what_is_published_is_handled_in_threads(url: str) -> None:
    topic, app = orders(), App(url, service="shop")
    together = threading.Barrier(3)
    seen: list[Message[Order]] = []

    @app.subscribe(topic, group="billing", concurrency=3)
    def bill(order: Order, message: Message[Order]) -> None:
        together.wait(20)
        seen.append(message)

    with app.working():
        one = app.publish(topic, Order(customer="ann"), headers={"a": "b"})
        ids = app.publish_many(topic, [Order(customer="bob"), Order(customer="cy")])
        until(lambda: len(seen) == 3)
        assert {message.id for message in seen} == {one, *ids}
        first = next(message for message in seen if message.id == one)
        assert (first.payload, first.key, first.source) == (Order(customer="ann"), "ann", "shop")
        assert first.headers == {"a": "b"}
    with pytest.raises(ClosedError):
        app.publish(topic, Order(customer="ann"))


def test_many_threads_publish_through_one_app_and_each_keeps_its_order(url: str) -> None:
    topic, app = orders(), App(url)
    seen: dict[str, list[int]] = defaultdict(list)

    @app.subscribe(topic, group="billing", ordering="key", concurrency=16)
    def bill(order: Order) -> None:
        seen[order.customer].append(order.cds)

    def shop(name: str) -> None:
        for number in range(50):
            app.publish(topic, Order(customer=name, cds=number))

    with app.working():
        threads = [threading.Thread(target=shop, args=(f"c{i}",)) for i in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        until(lambda: sum(map(len, seen.values())) == 800)
    assert seen == {f"c{i}": list(range(50)) for i in range(16)}


def test_a_handler_may_publish_and_what_it_returns_is_published(url: str) -> None:
    topic, bills = orders(), Topic("bills", Order)
    log: Topic[str] = Topic("log", str)
    app = App(url)
    found: list[object] = []

    @app.subscribe(topic, group="billing", publish=bills)
    def bill(order: Order) -> Order | None:
        app.publish(log, f"billed {order.customer}")
        return order

    @app.subscribe(bills, group="post")
    def post(order: Order) -> None:
        found.append(order.customer)

    @app.subscribe(log, group="archive")
    def archive(text: str) -> None:
        found.append(text)

    with app.working():
        app.publish(topic, Order(customer="ann"))
        until(lambda: len(found) == 2)
    assert set(found) == {"ann", "billed ann"}


def test_async_functions_are_refused_when_they_are_registered(url: str) -> None:
    app: Any = App(url)

    async def bill(order: Order) -> None: ...

    class Caller:
        async def __call__(self, order: Order) -> None: ...

    for function in (bill, Caller()):
        with pytest.raises(ConfigurationError, match=r"is async, and App runs plain functions.*or use AsyncApp"):
            app.subscribe(orders(), group="billing")(function)

    async def tracing(message: Message[Any]) -> AsyncGenerator[None]:
        yield

    with pytest.raises(ConfigurationError, match=r"middleware .*tracing is async"):
        app.subscribe(orders(), group="billing", middleware=[tracing])
    assert not app.registrations


def test_middleware_is_around_the_handler_in_its_thread(url: str) -> None:
    topic, log = orders(), []

    def timing(message: Message[Any]) -> Generator[None]:
        log.append(("before", threading.get_ident()))
        yield
        log.append(("after", threading.get_ident()))

    app = App(url, middleware=[timing])

    @app.subscribe(topic, group="billing")
    def bill(order: Order) -> None:
        log.append(("during", threading.get_ident()))

    with app.working():
        app.publish(topic, Order(customer="ann"))
        until(lambda: len(log) == 3)
    assert [word for word, _ in log] == ["before", "during", "after"]
    assert len({thread for _, thread in log}) == 1


def test_a_slow_middleware_or_handler_keeps_nobody_else_from_working(url: str) -> None:
    topic, app = orders(), App(url)
    gate = threading.Event()

    def holding(message: Message[Any]) -> Generator[None]:
        if message.key == "slow":
            gate.wait(20)
        yield

    seen: list[str] = []

    @app.subscribe(topic, group="billing", middleware=[holding])
    def bill(order: Order) -> None:
        seen.append(order.customer)

    with app.working():
        app.publish(topic, Order(customer="slow"))
        app.publish(topic, Order(customer="quick"))
        until(lambda: seen == ["quick"])
        gate.set()
        until(lambda: len(seen) == 2)


def test_options_that_do_not_exist_are_told_with_those_that_do(url: str) -> None:
    kind: Any
    for kind in (App, AsyncApp):
        with pytest.raises(TypeError, match=r"no option 'graze'; it has url, service, .*grace"):
            kind(url, graze=3)
        with pytest.raises(TypeError, match="no option 'retries'; it has group, publish, retry"):
            kind(url).subscribe(orders(), group="billing", retries=3)


def test_run_works_until_it_is_stopped_from_any_thread(url: str) -> None:
    topic, app = orders(), App(url)
    kinds: list[str] = []

    @app.subscribe(topic, group="billing")
    def bill(order: Order) -> None:
        app.stop()

    @app.listen
    def hear(event: Event) -> None:
        kinds.append(event.kind)
        if event.kind == "started":
            app.publish(topic, Order(customer="ann"))

    app.run()
    assert kinds.count("done") == 1
    assert kinds[-1] == "stopped"
    with pytest.raises(ConfigurationError, match="nothing to run"):
        App(url).run()


def test_sigterm_ends_run_and_signals_do_afterwards_what_they_did_before(url: str) -> None:
    topic, app = orders(), App(url)
    ended: list[str] = []

    @app.subscribe(topic, group="billing")
    def bill(order: Order) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        ended.append(order.customer)

    @app.listen
    def hear(event: Event) -> None:
        if event.kind == "started":
            app.publish(topic, Order(customer="ann"))

    before = signal.getsignal(signal.SIGTERM)
    app.run()
    assert ended == ["ann"], "a running handler gets its grace"
    assert signal.getsignal(signal.SIGTERM) is before


def test_open_and_close_may_be_called_twice_and_leave_no_threads(url: str) -> None:
    app = App(url)
    topic = orders()
    for _ in range(2):
        app.open()
        app.open()
        app.publish(topic, Order(customer="ann"))
        app.close()
        app.close()
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("mqkit")])


def test_a_broker_that_is_not_there_is_told_and_nothing_stays_behind() -> None:
    app = App("amqp://127.0.0.1:1/")
    for _ in range(2):
        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:1"):
            app.open()
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("mqkit")])


@contextmanager
def outage(url: str) -> Generator[None]:
    broker = MemoryBroker.named(url.removeprefix("memory://"))
    broker.interrupt()
    try:
        yield
    finally:
        broker.restore()


def test_an_outage_is_waited_out_by_handlers_and_publishers(url: str) -> None:
    topic, app = orders(), App(url, publish_timeout=20)
    seen: list[str] = []

    @app.subscribe(topic, group="billing", retry=Retry(wait_initial=0.01))
    def bill(order: Order) -> None:
        seen.append(order.customer)

    with app.working():
        with outage(url):
            publishing = threading.Thread(target=app.publish, args=(topic, Order(customer="ann")))
            publishing.start()
            with pytest.raises(Exception, match="unknown outcome"):
                app.publish(topic, Order(customer="bob"), timeout=0.2)
        publishing.join(20)
        until(lambda: "ann" in seen)


def test_wrong_payloads_are_told_with_their_fields(url: str) -> None:
    wrong: Any = {"customer": 5}
    with App(url) as app, pytest.raises(SchemaError) as caught:
        app.publish(orders(), wrong)
    assert [field.path for field in caught.value.fields] == ["customer"]


def test_dead_letters_are_listed_replayed_and_purged(url: str) -> None:
    topic, app = orders(), App(url)
    mended = threading.Event()
    seen: list[str] = []

    @app.subscribe(topic, group="billing", retry=Retry(attempts=1))
    def bill(order: Order) -> None:
        if not mended.is_set():
            raise ValueError("a bug")
        seen.append(order.customer)

    with app.working():
        app.publish_many(topic, [Order(customer="ann"), Order(customer="bob")])
        letters = app.dead_letters(topic, "billing")
        until(lambda: letters.count() == 2)
        assert {letter.error for letter in letters.list()} == {"a bug"}
        mended.set()
        assert len(letters.replay(limit=1)) == 1
        until(lambda: len(seen) == 1)
        assert len(letters.purge()) == 1
        assert letters.count() == 0
        assert app.inspect(topic, "billing").dead == 0


def test_plugins_hear_of_start_and_end(url: str) -> None:
    heard: list[object] = []

    class Plugin:
        @hookimpl
        def mqkit_startup(self, app: object) -> None:
            heard.append(app)

        @hookimpl
        def mqkit_shutdown(self) -> None:
            heard.append("end")

    app = App(url, plugins=[Plugin()])
    with app:
        assert app.description
        assert app.topology().topics == ()
        assert not [finding for finding in app.examine() if finding.state == "missing"]
    assert heard == [app, "end"]


def test_tools_may_use_the_same_service_on_an_event_loop(url: str) -> None:
    app = App(url)

    @app.subscribe(orders(), group="billing")
    def bill(order: Order) -> None: ...

    twin = AsyncApp.of(app)
    assert twin.topology() == app.topology()
    assert twin.registrations == app.registrations
