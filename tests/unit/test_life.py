"""The life of an app, in both colours: who opens it and who closes it, what ends a run, and what is told of it."""

import asyncio
import contextlib
import gc
import logging
import logging.config
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mqkit import App, AsyncApp, ClosedError, ConfigurationError, Event, Topic, hookimpl
from mqkit.pump import Pump

TOPIC = Topic("orders", int, groups=["g"])
PATIENCE = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}"


@pytest.fixture
def silent() -> Generator[socket.socket]:
    """Accepts connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


def address(server: socket.socket) -> str:
    return f"amqp://127.0.0.1:{server.getsockname()[1]}/"


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.002)


async def until_async(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not fact():  # noqa: ASYNC110 - any fact, also of threads
            await asyncio.sleep(0.002)


def soon(work: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work, PATIENCE)

    asyncio.run(main())


def run(app: App | AsyncApp) -> None:
    if isinstance(app, App):
        app.run()
    else:
        soon(app.run())


@pytest.fixture(params=[App, AsyncApp])
def of(request: pytest.FixtureRequest) -> Any:
    return request.param


def service(of: Any, url: str, **options: Any) -> Any:
    """An app that handles what is published, and writes it down in `handled`."""
    app = of(url, **options)
    app.handled = []
    app.subscribe(TOPIC, group="g")(app.handled.append)
    return app


class TestOpening:
    def test_the_last_context_that_is_left_closes_it(self, url: str) -> None:
        app = App(url)
        with app:
            with app, app.working():
                pass
            app.publish(TOPIC, 1)
        with pytest.raises(ClosedError):
            app.publish(TOPIC, 2)

        async def main() -> None:
            app = AsyncApp(url)
            async with app:
                async with app, app.working():
                    pass
                await app.publish(TOPIC, 1)
            with pytest.raises(ClosedError):
                await app.publish(TOPIC, 2)

        soon(main())

    def test_who_opened_it_without_a_context_closes_it(self, url: str) -> None:
        app = App(url)
        app.open()
        with app:
            pass
        app.publish(TOPIC, 1)
        with app:
            app.close()
        with pytest.raises(ClosedError):
            app.publish(TOPIC, 2)

    def test_many_threads_may_open_and_close_it_at_the_same_time(self, url: str) -> None:
        app, errors = App(url), []

        def work() -> None:
            try:
                for number in range(10):
                    with app:
                        app.publish(TOPIC, number)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == []
        assert not app.engine.is_open

    def test_many_tasks_may_open_and_close_it_at_the_same_time(self, url: str) -> None:
        async def main() -> None:
            before = asyncio.all_tasks()
            app = AsyncApp(url)

            async def work() -> None:
                for number in range(10):
                    async with app:
                        await app.publish(TOPIC, number)

            await asyncio.gather(*(work() for _ in range(8)))
            assert not app.engine.is_open
            await until_async(lambda: asyncio.all_tasks() == before)

        soon(main())

    def test_handlers_run_until_the_last_who_wants_that_leaves(self, url: str) -> None:
        app = service(App, url)
        with app.working():
            with app.working():
                pass
            app.publish(TOPIC, 1)
            until(lambda: app.handled)
            assert len(app.engine._pumps) == 1
        assert app.engine._pumps == []

    def test_it_may_be_opened_on_one_event_loop_after_the_other_also_if_one_ended_with_it_open(self, url: str) -> None:
        app = AsyncApp(url)

        async def main(*, leave: bool) -> None:
            await app.__aenter__()
            await app.publish(TOPIC, 1)
            if leave:
                await app.__aexit__(None, None, None)

        for leave in (True, False, True):
            soon(main(leave=leave))
        gc.collect()
        until(lambda: not [each for each in threading.enumerate() if each.name == "mqkit-sender"])


class TestHome:
    """An AsyncApp belongs to the event loop on which it was opened."""

    def test_what_is_awaited_elsewhere_is_refused_before_anything_is_sent(self, url: str) -> None:
        async def main() -> None:
            app = AsyncApp(url)
            async with app:
                await app.publish(TOPIC, 0)
                letters, consumer = app.dead_letters(TOPIC, "g"), app.consumer(TOPIC, group="g")
                for work in (
                    lambda: app.publish(TOPIC, 1),
                    lambda: app.publish_many(TOPIC, [1]),
                    lambda: app.inspect(TOPIC, "g"),
                    lambda: app.examine(),  # noqa: PLW0108 - the others are alike
                    lambda: letters.list(),  # noqa: PLW0108
                    lambda: letters.purge(),  # noqa: PLW0108
                    lambda: consumer.__aenter__(),  # noqa: PLW0108
                    lambda: app.__aenter__(),  # noqa: PLW0108
                ):
                    with pytest.raises(RuntimeError, match=r"another thread, use app\.from_thread\.publish"):
                        await asyncio.to_thread(asyncio.run, work())
                assert (await app.inspect(TOPIC, "g")).ready == 1

        soon(main())

    def test_a_plain_handler_publishes_from_its_thread(self, url: str) -> None:
        second, seen = Topic("second", int, groups=["g"]), list[int]()

        async def main() -> None:
            app = AsyncApp(url)

            @app.subscribe(TOPIC, group="g")
            def handle(number: int) -> None:
                app.from_thread.publish(second, number)
                app.from_thread.publish_many(second, [number + 1, number + 2])

            app.subscribe(second, group="g")(seen.append)
            async with app.working():
                await app.publish(TOPIC, 1)
                await until_async(lambda: len(seen) == 3)
                with pytest.raises(RuntimeError, match="would block an event loop"):
                    app.from_thread.publish(second, 4)

        soon(main())
        assert sorted(seen) == [1, 2, 3]
        with pytest.raises(ClosedError):
            AsyncApp(url).from_thread.publish(second, 4)


class TestStop:
    def test_before_the_run_ends_the_run_before_it_connects(self, of: Any, silent: socket.socket) -> None:
        before, app = set(threading.enumerate()), service(of, address(silent))
        app.stop()
        run(app)
        until(
            lambda: not [thread for thread in threading.enumerate() if "mqkit" in thread.name and thread not in before]
        )
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()

    def test_one_that_was_asked_for_twice_does_not_end_the_next_run(self, of: Any, url: str) -> None:
        app, kinds = service(of, url), []

        def hear(event: Event) -> None:
            kinds.append(event.kind)
            if event.kind == "started":
                app.stop()
                app.stop()

        app.listen(hear)
        run(app)
        run(app)
        assert kinds == ["started", "stopped"] * 2

    def test_a_signal_while_it_connects_ends_it_soon_and_signals_do_what_they_did(
        self, of: Any, silent: socket.socket
    ) -> None:
        app = service(of, address(silent))
        before = [signal.getsignal(number) for number in SIGNALS]
        connections = []

        def interrupt() -> None:
            connections.append(silent.accept())
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=interrupt)
        thread.start()
        began = time.monotonic()
        run(app)
        assert time.monotonic() - began < app.settings.connect_timeout
        thread.join(PATIENCE)
        assert [signal.getsignal(number) for number in SIGNALS] == before
        assert not app.engine.is_open
        for connection, _ in connections:
            connection.close()

    def test_from_any_thread(self, of: Any, url: str) -> None:
        app = service(of, url)

        def stop() -> None:
            until(lambda: app.engine._pumps)
            app.stop()

        thread = threading.Thread(target=stop)
        thread.start()
        run(app)
        thread.join(PATIENCE)

    def test_a_second_run_beside_the_first_is_refused(self, of: Any, url: str) -> None:
        app, told = service(of, url), []

        def handle(number: int) -> None:
            try:
                run(app)
            except RuntimeError as error:
                told.append(str(error))
            app.stop()

        def hear(event: Event) -> None:
            if event.kind == "started" and event.group == "second":
                with App(url) as other:
                    other.publish(TOPIC, 1)

        app.subscribe(TOPIC, group="second")(handle)
        app.listen(hear)
        run(app)
        assert "runs already" in told[0]


class TestDeath:
    def test_a_pump_that_dies_ends_the_run_with_its_error(
        self, of: Any, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def dies(self: Pump) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Pump, "_session", dies)
        with pytest.raises(ZeroDivisionError):
            run(service(of, url))
        assert "pump of orders.g met an error in mqkit itself" in caplog.text

    def test_so_does_a_producer(
        self, of: Any, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def dies(*_: Any) -> None:
            raise ZeroDivisionError

        app = service(of, url)
        monkeypatch.setattr("mqkit.producer.Producer._run", dies)
        with pytest.raises(ZeroDivisionError):
            run(app)
        assert "producer met an error in mqkit itself" in caplog.text
        assert not app.engine.is_open

    def test_an_error_while_declaring_again_does_not_end_a_pump(
        self, of: Any, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, sessions = service(of, url), []
        session = Pump._session

        async def once_missing(self: Pump) -> Any:
            sessions.append(1)
            if len(sessions) > 1:
                return await session(self)

            async def declare(steps: frozenset[float]) -> None:
                raise ZeroDivisionError

            self._declare = declare
            return ConfigurationError("there is no queue")

        monkeypatch.setattr(Pump, "_session", once_missing)
        app.listen(lambda event: app.stop() if event.kind == "connected" else None)
        run(app)
        assert len(sessions) == 2

    def test_closing_an_app_ends_its_run(self, url: str) -> None:
        app = service(App, url)
        app.listen(lambda event: app.close() if event.kind == "started" else None)
        runner = threading.Thread(target=app.run, daemon=True)
        runner.start()
        runner.join(PATIENCE)
        assert not runner.is_alive(), "it idles, and nothing of it works"
        with app:
            app.publish(TOPIC, 1)

    def test_a_context_that_was_never_entered_is_not_counted(self, url: str) -> None:
        app = App(url)
        app.__exit__(None, None, None)
        with app:
            pass
        with pytest.raises(ClosedError):
            app.publish(TOPIC, 1)


class TestListening:
    def test_a_listener_of_app_may_use_the_app_whatever_waits_for_it(self, url: str) -> None:
        second, kinds = Topic("second", int, groups=["g"]), []
        app = service(App, url)

        def hear(event: Event) -> None:
            kinds.append(event.kind)
            if event.kind == "done":
                publisher = threading.Thread(target=app.publish, args=(second, 1), kwargs={"timeout": PATIENCE})
                publisher.start()
                publisher.join(PATIENCE)
                assert app.inspect(second, "g").ready == 1

        app.listen(hear)
        with app.working():
            app.publish(TOPIC, 1)
            until(lambda: "done" in kinds)
        assert kinds == ["started", "done", "stopped"], "in their order, and all of them before it is closed"

    def test_async_listeners_are_refused(self, of: Any, url: str) -> None:
        async def hear(event: Event) -> None: ...

        class Hears:
            async def __call__(self, event: Event) -> None: ...

        for listener in (hear, Hears()):
            with pytest.raises(ConfigurationError, match=r"is async, and nobody awaits it"):
                of(url).listen(listener)
            with pytest.raises(ConfigurationError, match=r"is async, and nobody awaits it"):
                of(url, listeners=[listener])

    def test_what_a_listener_returns_unawaited_is_told(
        self, of: Any, url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def hear(event: Event) -> None: ...

        app = service(of, url)
        app.listen(lambda event: hear(event))  # noqa: PLW0108 - nobody can tell that from outside
        app.listen(lambda event: app.stop() if event.kind == "started" else None)
        run(app)
        assert "a coroutine, which nobody awaits" in caplog.text


class AsyncPlugin:
    def __init__(self) -> None:
        self.log: list[str] = []

    @hookimpl
    async def mqkit_startup(self, app: AsyncApp) -> None:
        await asyncio.sleep(0)
        self.log.append(app.description)

    @hookimpl
    async def mqkit_shutdown(self, app: AsyncApp) -> None:
        await app.publish(TOPIC, 1)
        self.log.append("end")


class TestHooks:
    def test_async_ones_are_awaited_by_async_app(self, url: str) -> None:
        plugin = AsyncPlugin()

        async def main() -> None:
            async with AsyncApp(url, plugins=[plugin]) as app:
                assert plugin.log == [app.description]

        soon(main())
        assert plugin.log[1:] == ["end"]

    def test_a_plain_one_may_still_publish_at_the_end(self, url: str) -> None:
        sent: list[str] = []

        class Plugin:
            @hookimpl
            def mqkit_shutdown(self, app: App) -> None:
                sent.append(app.publish(TOPIC, 1))

        with App(url, plugins=[Plugin()]):
            pass
        assert sent

    @pytest.mark.parametrize("moment", ["mqkit_startup", "mqkit_shutdown"])
    def test_they_use_the_app_and_have_it_as_a_context(self, url: str, moment: str) -> None:
        """Who opens or closes the app waits for the hook, so the hook cannot wait for that."""
        done: list[str] = []

        def plain(self: object, app: App) -> None:
            app.open()
            with app, app:
                done.append(app.publish(TOPIC, 1))
            done.append(app.description)

        async def in_tasks(self: object, app: AsyncApp) -> None:
            async def work() -> None:
                async with app:
                    done.append(await app.publish(TOPIC, 1))

            await asyncio.create_task(work())
            done.append(app.description)

        def plugin(function: Any) -> object:
            return type("Plugin", (), {moment: hookimpl(function)})()

        def plainly(app: App) -> None:
            with app:
                pass

        async def main() -> None:
            async with (later := AsyncApp(url, plugins=[plugin(in_tasks)])):
                pass
            with pytest.raises(ClosedError):
                await later.publish(TOPIC, 2)

        app = App(url, plugins=[plugin(plain)])
        opener = threading.Thread(target=plainly, args=(app,), daemon=True)
        opener.start()
        opener.join(PATIENCE)
        soon(main())
        assert len(done) == 4
        with pytest.raises(ClosedError):
            app.publish(TOPIC, 2)

    def test_one_that_closes_its_app_is_named(self, url: str) -> None:
        class Plugin:
            @hookimpl
            def mqkit_startup(self, app: App) -> None:
                app.close()

        with pytest.raises(
            ConfigurationError, match=r"Plugin' failed in mqkit_startup: .* a hook cannot close the app"
        ):
            App(url, plugins=[Plugin()]).open()

    def test_app_refuses_them_by_name(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"plugin 'AsyncPlugin': its mqkit_startup is async, .* AsyncApp"):
            App(url, plugins=[AsyncPlugin()])

    def test_nobody_awaits_those_that_are_called_when_an_app_is_made(self, of: Any, url: str) -> None:
        class Plugin:
            @hookimpl
            async def mqkit_middleware(self) -> list[Any]:
                return []

        with pytest.raises(ConfigurationError, match=r"plugin '.*Plugin': its mqkit_middleware is async"):
            of(url, plugins=[Plugin()])


class ConfiguresLogging:
    @hookimpl
    def mqkit_startup(self) -> None:
        logging.config.dictConfig({"version": 1})
        assert logging.getLogger("mqkit").disabled


@pytest.mark.parametrize("plugins", [[], [ConfiguresLogging()]], ids=["before", "in a hook"])
def test_what_mqkit_warns_of_is_heard_although_the_service_disabled_all_loggers(
    of: Any, url: str, caplog: pytest.LogCaptureFixture, plugins: list[object]
) -> None:
    app = service(of, url, plugins=plugins)
    app.listen(lambda event: app.stop() if event.kind == "started" else None)
    logging.getLogger("mqkit.part").disabled = False
    before = [logger.handlers[:] for logger in (logging.getLogger(),)]
    try:
        logging.config.dictConfig({"version": 1})  # and its default: disable_existing_loggers
        assert logging.getLogger("mqkit").disabled
        run(app)
        assert not logging.getLogger("mqkit").disabled
        assert not logging.getLogger("mqkit.part").disabled
    finally:
        for name in list(logging.root.manager.loggerDict):
            with contextlib.suppress(AttributeError):
                logging.getLogger(name).disabled = False
        logging.getLogger().handlers[:] = before[0]


def test_a_group_may_have_a_grace_of_its_own(url: str) -> None:
    app = AsyncApp(url, grace=10 * PATIENCE)

    @app.subscribe(TOPIC, group="g", grace=0.01)
    async def endless(payload: int) -> None:
        app.stop()
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with app:
            await app.publish(TOPIC, 1)
        await app.run()

    soon(main())
