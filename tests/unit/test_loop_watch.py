"""Who blocks the event loop is named, while it does and when it is over."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from mqkit import loop_watch
from mqkit.event_loop import AsyncPorts
from mqkit.ports import Ports

PATIENCE = 20.0


def wait_here(fact: Callable[[], object]) -> None:
    """Block until it is true."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def test_the_handler_that_blocks_is_named_and_for_how_long(caplog: pytest.LogCaptureFixture) -> None:
    def lines(word: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if word in record.getMessage()]

    def compute() -> None:
        wait_here(lambda: lines("has been blocked"))

    async def bill(_: int) -> None:
        compute()

    async def main() -> None:
        ports: Ports = AsyncPorts()
        watch = loop_watch.LoopWatch(asyncio.get_running_loop(), every=0.01, blocked=0.05)
        await ports.call(bill, (1,), None)
        while not lines("goes on"):  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)
        watch.stop()
        ports.close()

    with caplog.at_level(logging.WARNING, "mqkit"):
        asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))
    (told,), (over,) = lines("has been blocked"), lines("goes on")
    for line in (told, over):
        assert f"{__name__}.test_the_handler_that_blocks_is_named_and_for_how_long.<locals>.bill" in line
        assert __file__ in line


def test_a_loop_that_answers_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        watch = loop_watch.LoopWatch(asyncio.get_running_loop(), every=0.001, blocked=PATIENCE)
        await asyncio.sleep(0.05)
        watch.stop()

    with caplog.at_level(logging.WARNING, "mqkit"):
        asyncio.run(main())
    assert not caplog.records
