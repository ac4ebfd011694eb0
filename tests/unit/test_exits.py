"""A handler that means to end its process, its loop or its thread has only failed."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from mqkit import App, AsyncApp, Retry, Topic
from mqkit.event_loop import AsyncPorts, HandlersTasks
from mqkit.exits import typed
from tests.unit.virtual_time import until


class Own(BaseException):
    """Some library's."""


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}"


EXITS = [SystemExit(2), KeyboardInterrupt(), GeneratorExit(), Own("bye")]
topic = Topic[int]("orders")


def in_itself(error: BaseException) -> Callable[[int], Any]:
    async def handle(_: int) -> None:
        raise error

    return handle


def in_a_thread(error: BaseException) -> Callable[[int], Any]:
    def handle(_: int) -> None:
        raise error

    return handle


def in_a_task(error: BaseException) -> Callable[[int], Any]:
    async def handle(number: int) -> None:
        await asyncio.create_task(in_itself(error)(number))

    return handle


def in_a_task_of_a_group(error: BaseException) -> Callable[[int], Any]:
    async def handle(number: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(in_itself(error)(number))

    return handle


def in_a_task_of_its_task(error: BaseException) -> Callable[[int], Any]:
    async def handle(number: int) -> None:
        await asyncio.gather(in_a_task(error)(number))

    return handle


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "where",
    [in_itself, in_a_thread, in_a_task, in_a_task_of_a_group, in_a_task_of_its_task],
    ids=lambda where: where.__name__,
)
def test_the_attempt_has_failed_and_the_service_goes_on(
    where: Callable[[BaseException], Callable[[int], Any]], error: BaseException, url: str
) -> None:
    app, told = AsyncApp(url), []
    app.listen(lambda event: told.append((event.kind, event.attempt)))
    app.subscribe(topic, group="billing", retry=Retry(attempts=2, wait_initial=0))(where(error))

    async def main() -> None:
        async with app.working():
            await app.publish(topic, 1)
            await until(lambda: ("dead-letter", 2) in told)

    asyncio.run(main())
    assert [one for one in told if one[1]] == [("retry", 1), ("dead-letter", 2)]


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_a_middleware_that_means_to_end_more_fails_its_attempt(error: BaseException, url: str) -> None:
    app, told = AsyncApp(url), []
    app.listen(lambda event: told.append((event.kind, event.attempt)))

    async def leave(_: object) -> Any:
        yield
        raise error

    @app.subscribe(topic, group="billing", retry=Retry(attempts=1), middleware=[leave])
    async def handle(_: int) -> None: ...

    async def main() -> None:
        async with app.working():
            await app.publish(topic, 1)
            await until(lambda: ("dead-letter", 1) in told)

    asyncio.run(main())


def test_what_ends_a_task_that_a_middleware_started_ends_only_that(url: str) -> None:
    app, told = AsyncApp(url), []
    app.listen(lambda event: told.append((event.kind, event.attempt)))

    async def start(_: object) -> Any:
        await asyncio.create_task(in_itself(SystemExit(7))(1))
        yield

    @app.subscribe(topic, group="billing", retry=Retry(attempts=1), middleware=[start])
    async def handle(_: int) -> None: ...

    async def main() -> None:
        async with app.working():
            await app.publish(topic, 1)
            await until(lambda: ("dead-letter", 1) in told)

    asyncio.run(main())


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
def test_the_same_in_an_app_of_threads(error: BaseException, url: str) -> None:
    app, told = App(url), list[str]()

    @app.subscribe(topic, group="billing", retry=Retry(attempts=1))
    def handle(_: int) -> None:
        raise error

    async def main() -> None:
        with app.working():
            app.publish(topic, 1)
            await until(lambda: told)

    app.listen(lambda event: told.append(event.detail) if event.kind == "dead-letter" else None)
    asyncio.run(main())
    assert type(error).__name__ in told[0]


def test_tasks_that_no_handler_started_end_what_they_like(url: str) -> None:
    app = AsyncApp(url)

    async def main() -> None:
        async with app.working():
            await asyncio.create_task(in_itself(SystemExit(7))(1))

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_a_loop_makes_its_tasks_as_before_when_the_last_app_has_closed() -> None:
    def before(loop: Any, work: Any, **options: Any) -> Any:
        return asyncio.Task(work, loop=loop, **options)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(before)
        first, second = AsyncPorts(), AsyncPorts()
        first.close()
        found: object = loop.get_task_factory()
        assert isinstance(found, HandlersTasks)
        second.close()
        assert loop.get_task_factory() is before

    asyncio.run(main())


def test_a_real_ctrl_c_goes_on() -> None:
    """As on a loop that does not take the signal for itself."""
    loop = asyncio.new_event_loop()

    async def call() -> None:
        await AsyncPorts().call(in_itself(KeyboardInterrupt()), (1,), None)

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(call())
    finally:
        loop.close()


def test_only_the_interpreter_s_own_interrupt_is_one() -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        assert not typed(KeyboardInterrupt())
        assert not typed(SystemExit())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert typed(KeyboardInterrupt())
        assert not typed(SystemExit())
    finally:
        signal.signal(signal.SIGINT, before)
