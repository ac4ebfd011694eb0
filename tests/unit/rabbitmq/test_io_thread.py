"""The thread that the blocking colour's connections live on: calls, ends, interruptions."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mqkit.backends.rabbitmq.io_thread import NAME, IoThread
from mqkit.errors import ClosedError


@pytest.fixture
def thread() -> Iterator[IoThread]:
    found = IoThread()
    yield found
    found.close()


def running() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == NAME]


async def name(*, fail: bool = False) -> str:
    await asyncio.sleep(0)
    if fail:
        raise ValueError("as asked")
    return threading.current_thread().name


def test_a_call_returns_or_raises_what_its_coroutine_does_over_there(thread: IoThread) -> None:
    assert thread.run(name) == NAME
    with pytest.raises(ValueError, match="as asked"):
        thread.run(name, fail=True)


def test_the_thread_starts_with_the_first_call_and_ends_with_close(thread: IoThread) -> None:
    assert not running()
    thread.run(name)
    assert len(running()) == 1
    assert running()[0].daemon
    thread.close()
    thread.close()
    assert not running()
    with pytest.raises(ClosedError, match="was closed"):
        thread.run(name)
    thread.post(lambda: pytest.fail("nobody is there to call it"))


def test_one_thread_serves_many(thread: IoThread) -> None:
    found: list[str] = []
    callers = [threading.Thread(target=lambda: found.append(thread.run(name))) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert found == [NAME] * 20


def test_what_is_under_way_when_it_closes_ends_with_an_error(thread: IoThread) -> None:
    under_way, caught = threading.Event(), []

    async def forever() -> None:
        under_way.set()
        await asyncio.Event().wait()

    def call() -> None:
        with pytest.raises(ClosedError) as found:
            thread.run(forever)
        caught.append(found.value)

    caller = threading.Thread(target=call)
    caller.start()
    assert under_way.wait(10)
    thread.close()
    caller.join(10)
    assert len(caught) == 1


def test_an_interrupted_call_is_cancelled_over_there(thread: IoThread) -> None:
    cancelled = threading.Event()

    async def forever() -> None:
        os.kill(os.getpid(), signal.SIGINT)  # while the caller waits
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        thread.run(forever)
    assert cancelled.wait(10)
    assert thread.run(name) == NAME


def test_what_is_posted_runs_over_there_in_turn(thread: IoThread) -> None:
    found: list[str] = []
    thread.run(name)
    thread.post(lambda: found.append(threading.current_thread().name))
    thread.run(name)
    assert found == [NAME]
