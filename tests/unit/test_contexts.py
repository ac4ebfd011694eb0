"""Context variables: each message has its own, from where the app was started, with what middleware sets."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar, copy_context
from typing import Any
from uuid import uuid4

import pytest

from mqkit import App, AsyncApp, Message, Topic
from mqkit.contexts import inside

TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")
TOPIC = Topic("orders", int, groups=["g"])
NUMBERS = range(6)


def plain_middleware(message: Message[Any]) -> Generator[None]:
    TENANT.set(f"{TENANT.get()}, {message.payload}")
    yield


async def async_middleware(message: Message[Any]) -> AsyncGenerator[None]:
    TENANT.set(f"{TENANT.get()}, {message.payload}")
    yield


def handler(seen: list[str]) -> Callable[[int], None]:
    def handle(number: int) -> None:
        seen.append(TENANT.get())
        TENANT.set("somebody else's")

    return handle


def async_handler(seen: list[str]) -> Callable[[int], Any]:
    async def handle(number: int) -> None:
        seen.append(TENANT.get())
        TENANT.set("somebody else's")
        await asyncio.sleep(0)
        assert await asyncio.create_task(told()) == "somebody else's"

    async def told() -> str:
        return TENANT.get()

    return handle


EXPECTED = sorted(f"the starter's, {number}" for number in NUMBERS)


@pytest.mark.parametrize("timeout", [None, 20])
def test_no_message_sees_what_another_left_under_app(timeout: float | None) -> None:
    seen: list[str] = []
    app = App(f"memory://{uuid4().hex}", middleware=[plain_middleware])
    app.subscribe(TOPIC, group="g", concurrency=2, timeout=timeout)(handler(seen))

    def main() -> None:
        TENANT.set("the starter's")
        with app.working():
            TENANT.set("later")
            app.publish_many(TOPIC, NUMBERS)
            end = time.monotonic() + 20
            while len(seen) < len(NUMBERS):
                assert time.monotonic() < end, "did not happen"
                time.sleep(0.002)

    copy_context().run(main)
    assert sorted(seen) == EXPECTED


@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("middleware", [plain_middleware, async_middleware])
@pytest.mark.parametrize("make", [handler, async_handler])
def test_no_message_sees_what_another_left_under_async_app(
    make: Callable[[list[str]], Callable[[int], Any]], middleware: Any, timeout: float | None
) -> None:
    seen: list[str] = []
    app = AsyncApp(f"memory://{uuid4().hex}", middleware=[middleware])
    app.subscribe(TOPIC, group="g", concurrency=2, timeout=timeout)(make(seen))

    async def main() -> None:
        TENANT.set("the starter's")
        async with asyncio.timeout(20), app.working():
            TENANT.set("later")
            await app.publish_many(TOPIC, NUMBERS)
            while len(seen) < len(NUMBERS):  # noqa: ASYNC110 - plain handlers know no asyncio.Event
                await asyncio.sleep(0.002)

    asyncio.run(main())
    assert sorted(seen) == EXPECTED


class TestInside:
    def test_all_steps_run_there_and_what_it_awaits_comes_back(self) -> None:
        async def work() -> str:
            TENANT.set("inner")
            await asyncio.sleep(0)
            try:
                await asyncio.wait_for(asyncio.Event().wait(), 0.001)
            except TimeoutError:
                return TENANT.get()
            return "not cancelled"

        async def main() -> None:
            assert await inside(copy_context(), work()) == "inner"
            assert TENANT.get() == "nobody"

        asyncio.run(main())

    def test_what_it_raises_and_what_cancels_it_pass(self) -> None:
        ended: list[str] = []

        async def fails() -> None:
            await asyncio.sleep(0)
            raise KeyError("no")

        async def waits() -> None:
            TENANT.set("inner")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(TENANT.get())

        async def main() -> None:
            with pytest.raises(KeyError):
                await inside(copy_context(), fails())

            async def task() -> None:
                await inside(copy_context(), waits())

            waiting = asyncio.create_task(task())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(main())
        assert ended == ["inner"]

    def test_what_is_closed_amid_its_work_closes_it_there(self) -> None:
        ended: list[str] = []

        async def waits() -> None:
            TENANT.set("inner")
            try:
                await asyncio.sleep(0)
            finally:
                ended.append(TENANT.get())

        async def outer() -> None:
            await inside(copy_context(), waits())

        work = outer()
        work.send(None)
        work.close()
        assert ended == ["inner"]
