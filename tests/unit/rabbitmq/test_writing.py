"""Notes on their way: what is asked for again is written once, and told when it is safe."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mqkit.backend import Notes
from mqkit.backends.rabbitmq.writing import Writing
from mqkit.errors import BackendError
from tests.unit.virtual_time import run


class Broker:
    """Takes notes when it is told to."""

    def __init__(self) -> None:
        self.written: list[Notes] = []
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()
        self.writing = Writing(self.write, self.news.set)

    async def write(self, notes: Notes) -> None:
        self.written.append(notes)
        await asyncio.shield(self.answer)


def at(test: Callable[[Broker], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Broker())

    run(main())


def test_what_is_asked_for_again_is_written_once_and_safe_when_there_are_news() -> None:
    async def test(broker: Broker) -> None:
        for _ in range(3):
            assert broker.writing.ask([("a", 1), ("b", 2)]) == ["a", "b"]
            await asyncio.sleep(1)
        assert broker.writing.ask([("a", 1), ("b", 2), ("c", 3)]) == ["a", "b", "c"]
        assert not broker.news.is_set()
        broker.answer.set_result(None)
        await broker.news.wait()
        assert broker.writing.ask([("a", 1), ("b", 2)]) == []
        assert broker.written == [[("a", 1), ("b", 2)], [("c", 3)]]

    at(test)


def test_another_number_is_another_note() -> None:
    async def test(broker: Broker) -> None:
        broker.answer.set_result(None)
        for spent in (1, 2, 2):
            assert broker.writing.ask([("a", spent)]) == ["a"]
            await broker.writing.end()
            assert broker.writing.ask([("a", spent)]) == []
        assert broker.written == [[("a", 1)], [("a", 2)], [("a", 2)]]

    at(test)


def test_what_failed_is_told_once_and_begun_anew() -> None:
    async def test(broker: Broker) -> None:
        broker.writing.ask([("a", 1)])
        broker.answer.set_exception(BackendError("an alarm is on", retryable=True))
        await broker.news.wait()
        with pytest.raises(BackendError, match="alarm"):
            broker.writing.ask([("a", 1)])
        broker.answer = asyncio.get_running_loop().create_future()
        assert broker.writing.ask([("a", 1)]) == ["a"]
        broker.answer.set_result(None)
        await broker.writing.end()
        assert broker.writing.ask([("a", 1)]) == []

    at(test)


def test_the_end_waits_for_what_is_on_its_way_but_not_for_ever() -> None:
    async def test(broker: Broker) -> None:
        broker.writing.ask([("a", 1)])
        started = asyncio.get_running_loop().time()
        await broker.writing.end()
        assert 1 < asyncio.get_running_loop().time() - started < 10
        assert asyncio.all_tasks() == {asyncio.current_task()}

    at(test)
