"""Around the handler: one-yield generators."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from mqkit.codec import Codecs
from mqkit.errors import ConfigurationError
from mqkit.handler import Handler, HandlerOptions, Outcome
from mqkit.message import Delivery, Message, Outgoing, WireMessage
from mqkit.middleware import Around, Middleware
from mqkit.retry import Retry
from mqkit.signals import Reject, Skip
from mqkit.topic import Topic
from mqkit.verdict import Again, DeadLetter, Done
from tests.unit.virtual_time import VirtualPorts, run

LOG: list[str] = []


def noted(name: str) -> Middleware:
    def middleware(message: Message[Any]) -> Generator[None]:
        LOG.append(f"+{name}")
        try:
            yield
        finally:
            LOG.append(f"-{name}")

    return middleware


def noted_async(name: str) -> Middleware:
    async def middleware(message: Message[Any]) -> AsyncGenerator[None]:
        LOG.append(f"+{name}")
        await asyncio.sleep(1)
        try:
            yield
        finally:
            LOG.append(f"-{name}")

    return middleware


def prepare(topic: Topic[Any], payload: Any) -> Outgoing:
    return Outgoing(WireMessage(repr(payload).encode()), topic.name)


def process(
    function: Callable[..., Any], *middleware: Middleware, body: bytes = b"{}", publish: Topic[Any] | None = None
) -> Outcome:
    LOG.clear()

    async def main() -> Outcome:
        topic: Topic[Any] = Topic("t", None)
        handler = Handler(
            topic=topic, group="g", function=function, options=HandlerOptions(retry=Retry(on=ValueError)),
            codec=Codecs().bind(topic), around=Around(middleware), ports=VirtualPorts(), prepare=prepare, publish=publish,
        )  # fmt: skip
        return await handler.process(Delivery(WireMessage(body, {"ce_id": "1"}), 1, "t", "g"))

    return run(main())


async def handler(payload: Any) -> str:
    LOG.append("handler")
    return "result"


async def failing(payload: Any) -> None:
    raise ValueError("no")


def test_middleware_stands_around_the_handler_outermost_first_plain_and_async_mixed() -> None:
    outcome = process(handler, noted("a"), noted_async("b"), noted("c"))
    assert outcome.verdict == Done()
    assert LOG == ["+a", "+b", "+c", "handler", "-c", "-b", "-a"]


def test_what_the_handler_raises_passes_through_and_is_decided_on() -> None:
    outcome = process(failing, noted("a"), noted_async("b"))
    assert isinstance(outcome.verdict, Again)
    assert outcome.verdict.failure.text == "no"
    assert LOG == ["+a", "+b", "-b", "-a"]


def test_middleware_may_turn_an_error_into_a_signal() -> None:
    def strict(message: Message[Any]) -> Generator[None]:
        try:
            yield
        except ValueError as error:
            raise Reject("strictly") from error

    verdict = process(failing, strict).verdict
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "rejected"


def test_middleware_may_let_an_error_end_there() -> None:
    def forgiving(message: Message[Any]) -> Generator[None]:
        try:
            yield
        except ValueError:
            return

    assert process(failing, forgiving, publish=Topic("r")).verdict == Done()


def test_middleware_may_keep_a_message_from_the_handler() -> None:
    def picky(message: Message[Any]) -> Generator[None]:
        if message.id == "1":
            raise Skip
        yield

    assert process(handler, noted("a"), picky, noted("c")).verdict == Done(skipped=True)
    assert LOG == ["+a", "-a"]


@pytest.mark.parametrize("body", [b"{", b"\xff"])
def test_what_cannot_be_read_is_a_dead_letter_before_any_middleware(body: bytes) -> None:
    assert isinstance(process(handler, noted("a"), body=body).verdict, DeadLetter)
    assert LOG == []


def test_middleware_that_yields_twice_fails_the_attempt() -> None:
    def twice(message: Message[Any]) -> Generator[None]:
        yield
        yield

    verdict = process(handler, twice).verdict
    assert isinstance(verdict, DeadLetter)
    assert "didn't stop" in verdict.failure.text


def test_the_result_is_published_through_middleware() -> None:
    verdict = process(handler, noted("a"), publish=Topic("results")).verdict
    assert verdict == Done((Outgoing(WireMessage(b"'result'"), "results"),))


@pytest.mark.parametrize("wrong", [handler, lambda message: None, 5])
def test_what_is_no_generator_function_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs one yield"):
        Around([wrong])


@pytest.mark.parametrize("middleware", [(), (noted("plain"),), (noted_async("async"), noted("inner"))], ids=len)
def test_a_time_out_bounds_the_handler_whatever_stands_around_it(middleware: tuple[Middleware, ...]) -> None:
    LOG.clear()

    async def handler(payload: Any) -> None:
        await asyncio.sleep(100)

    async def main() -> Outcome:
        topic: Topic[Any] = Topic("t", None)
        bound = Handler(
            topic=topic, group="g", function=handler, options=HandlerOptions(timeout=3), codec=Codecs().bind(topic),
            around=Around(middleware), ports=VirtualPorts(), prepare=prepare,
        )  # fmt: skip
        return await bound.process(Delivery(WireMessage(b"{}", {"ce_id": "1"}), 1, "t", "g"))

    outcome = run(main())
    assert isinstance(outcome.verdict, Again)
    assert outcome.verdict.failure.text == "the handler took longer than 3 s"
    assert outcome.seconds < 10
    assert sum(entry.startswith("+") for entry in LOG) == sum(entry.startswith("-") for entry in LOG)
