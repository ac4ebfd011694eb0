"""One delivery becomes one verdict."""

import asyncio
import functools
import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel

from mqkit.callables import function_name
from mqkit.codec import Codecs
from mqkit.errors import ClosedError, ConfigurationError, ConnectionLost, PublishError, SchemaError, Unroutable
from mqkit.event_loop import AsyncPorts
from mqkit.handler import PATIENCE, Handler, HandlerOptions, Outcome
from mqkit.message import NO_BODY, Delivery, Message, Outgoing, WireMessage
from mqkit.middleware import Around
from mqkit.retry import Retry
from mqkit.signals import Skip
from mqkit.signature import takes_message
from mqkit.topic import Topic
from mqkit.verdict import Again, DeadLetter, Done, Postpone, Release
from tests.unit.virtual_time import START, VirtualPorts, run


class Order(BaseModel):
    customer: str = "ann"


def prepare(topic: Topic[Any], payload: Any) -> Outgoing:
    if payload == "unwritable":
        raise SchemaError("Result", ())
    return Outgoing(WireMessage(repr(payload).encode()), topic.name)


def handler_of(function: Callable[..., Any], ports: AsyncPorts, **rest: Any) -> Handler:
    options = HandlerOptions(**{k: rest.pop(k) for k in ("retry", "timeout") if k in rest})
    topic: Topic[Any] = Topic("orders", rest.pop("schema", Order), key="customer")
    return Handler(
        topic=topic, group="billing", function=function, options=options, codec=Codecs().bind(topic),
        around=Around(()), ports=ports, prepare=prepare, **rest,
    )  # fmt: skip


def delivery(body: bytes = b"{}", headers: Any = None, **rest: Any) -> Delivery:
    return Delivery(
        WireMessage(body, {"ce_id": "1", **(headers or {})}, key=rest.pop("key", None)), 1, "orders", "billing", **rest
    )


def process(function: Callable[..., Any], got: Delivery | None = None, spent: int = 0, **rest: Any) -> Outcome:
    async def main() -> Outcome:
        return await handler_of(function, VirtualPorts(), **rest).process(got or delivery(), spent)

    return run(main())


def test_a_handler_sees_the_message_as_it_was_published() -> None:
    seen: list[Message[Order]] = []

    async def handler(order: Order, message: Message[Order]) -> None:
        assert order is message.payload
        seen.append(message)

    got = delivery(
        b'{"customer": "bob"}', {"ce_source": "shop", "ce_type": "Order", "trace": "7", "mqkit-attempts": "2"},
        key=b"k\xff", returned=True,
    )  # fmt: skip
    outcome = process(handler, got)
    assert (outcome.verdict, outcome.attempt, outcome.id) == (Done(), 3, "1")
    (message,) = seen
    assert (message.payload, message.id, message.topic, message.group) == (
        Order(customer="bob"),
        "1",
        "orders",
        "billing",
    )
    assert (message.source, message.type, message.headers, message.attempt) == ("shop", "Order", {"trace": "7"}, 3)
    assert (message.body, message.key) == (b'{"customer": "bob"}', "k\udcff")


def test_a_return_value_is_dropped_unless_the_subscription_says_where_to() -> None:
    async def handler(order: Order) -> str:
        return "r"

    async def silent(order: Order) -> None: ...

    assert process(handler).verdict == Done()
    assert process(handler, publish=Topic("results")).verdict == Done((Outgoing(WireMessage(b"'r'"), "results"),))
    assert process(silent, publish=Topic("results")).verdict == Done()


def test_a_result_that_cannot_be_written_fails_the_attempt() -> None:
    async def handler(order: Order) -> str:
        return "unwritable"

    assert isinstance(process(handler, publish=Topic("results")).verdict, Again)


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (delivery(b"{"), "undecodable"),
        (delivery(b'{"customer": 5}'), "schema"),
        (delivery(headers={"ce_time": "?"}), "envelope"),
        (delivery(b'{"customer": "' + b"x" * 1000 + b'"}'), "too-large"),
        (delivery(headers={"mqkit-attempts": "x"}, returned=True), "envelope"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_without_an_attempt(got: Delivery, reason: str) -> None:
    async def handler(order: Order) -> None:
        raise AssertionError("never called")

    outcome = process(handler, got, max_body_bytes=500)
    assert isinstance(outcome.verdict, DeadLetter)
    assert (outcome.verdict.reason, outcome.attempt) == (reason, 0)


def test_what_is_not_due_is_postponed_unless_it_was_tried_in_place_before() -> None:
    async def handler(order: Order) -> None: ...

    got = delivery(headers={"mqkit-due": repr(START + 50)})
    assert process(handler, got).verdict == Postpone(50)
    assert process(handler, got, spent=1).verdict == Done()
    assert process(handler, delivery(headers={"mqkit-due": repr(START)})).verdict == Done()


def test_a_clock_that_is_wrong_neither_delays_nor_hastens_what_the_broker_kept() -> None:
    async def handler(order: Order) -> None: ...

    behind = delivery(headers={"mqkit-due": repr(START + 900), "mqkit-left": "0.0"})
    assert process(handler, behind).verdict == Done()
    ahead = delivery(headers={"mqkit-due": repr(START - 900), "mqkit-left": "2.5"})
    assert process(handler, ahead).verdict == Postpone(2.5)


@pytest.mark.parametrize(
    "error", [ConnectionLost("x"), PublishError(unknown={0: ConnectionLost("x")}), ClosedError("x")], ids=repr
)
def test_a_broken_broker_is_never_blamed_on_the_message(error: Exception) -> None:
    async def handler(order: Order) -> None:
        raise error

    verdict = process(handler, retry=Retry(attempts=1)).verdict
    assert isinstance(verdict, Again)
    assert (verdict.counted, verdict.delay) == (False, PATIENCE)


STRUCTURED = b'{"id": "A-1", "type": "order", "source": "till", "data": {"customer": "bob"}}'


@pytest.mark.parametrize(
    ("wire", "customer", "id"),
    [
        (WireMessage(STRUCTURED, content_type="application/cloudevents+json"), "bob", "A-1"),
        (
            WireMessage(gzip.compress(b'{"customer": "bob"}'), {"ce_id": "1"}, properties={"content_encoding": "gzip"}),
            "bob",
            "1",
        ),
        (WireMessage(b'\xef\xbb\xbf{"customer": "bob"}', {"ce_id": "1"}, content_type="text/json"), "bob", "1"),
    ],
    ids=["structured", "gzip", "byte order mark"],
)
def test_what_strangers_write_is_handled(wire: WireMessage, customer: str, id: str) -> None:
    seen: list[Message[Order]] = []

    async def handler(order: Order, message: Message[Order]) -> None:
        seen.append(message)

    assert process(handler, Delivery(wire, 1, "orders", "billing")).verdict == Done()
    (message,) = seen
    assert (message.payload.customer, message.id, message.body) == (customer, id, wire.body)


NULL = WireMessage(b"", {"ce_id": "1"}, key=b"42", properties={NO_BODY: True})


@pytest.mark.parametrize(("schema", "expected"), [(Order | None, None), (None, None), (bytes, b"")])
def test_a_message_without_a_body_is_none_where_the_schema_takes_it(schema: Any, expected: Any) -> None:
    seen = []

    async def handler(order: Any) -> None:
        seen.append(order)

    assert process(handler, Delivery(NULL, 1, "orders", "billing"), schema=schema).verdict == Done()
    assert seen == [expected]


def test_a_message_without_a_body_is_told_as_such_where_the_schema_takes_none() -> None:
    async def handler(order: Any) -> None:
        raise AssertionError("never called")

    verdict = process(handler, Delivery(NULL, 1, "orders", "billing")).verdict
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "schema"
    assert "the record is null (a tombstone)" in verdict.failure.text


def test_a_message_without_an_id_has_the_same_whatever_becomes_of_it() -> None:
    async def handler(order: Order) -> None:
        raise ValueError("no")

    got = Delivery(WireMessage(b'{"customer": "bob"}'), 1, "orders", "billing")
    outcomes = [
        process(handler, got),
        process(handler, got, spent=2),
        process(handler, replace(got, token=2, redelivered=1)),
    ]
    unreadable = process(
        handler, Delivery(WireMessage(b"{", {"ce_id": "mine", "ce_time": "?"}), 1, "orders", "billing")
    )
    assert len({outcome.id for outcome in outcomes}) == 1
    assert unreadable.id == "mine"


def validated_by(error: Exception) -> Any:
    def check(_: Any) -> Any:
        raise error

    return Annotated[dict[str, Any], AfterValidator(check)]


def test_a_schema_that_is_broken_is_never_blamed_on_the_message() -> None:
    async def handler(order: Any) -> None:
        raise AssertionError("never called")

    for spent in (0, 7):
        outcome = process(handler, spent=spent, schema=validated_by(ImportError("no module")), retry=Retry(attempts=1))
        assert isinstance(outcome.verdict, Again)
        assert (outcome.verdict.counted, outcome.verdict.delay) == (False, PATIENCE)


@pytest.mark.parametrize("error", [OSError("the database"), TypeError("the database")], ids=repr)
def test_what_a_validator_raises_that_is_not_about_the_body_is_tried_again_as_the_policy_says(error: Exception) -> None:
    async def handler(order: Any) -> None:
        raise AssertionError("never called")

    schema, retry = validated_by(error), Retry(attempts=2, wait_initial=5)
    first = process(handler, schema=schema, retry=retry)
    assert isinstance(first.verdict, Again)
    assert (first.verdict.counted, first.verdict.delay, first.attempt) == (True, 5, 1)
    last = process(handler, spent=1, schema=schema, retry=retry)
    assert isinstance(last.verdict, DeadLetter)
    assert (last.verdict.reason, last.attempt, last.verdict.failure.text) == ("exhausted", 2, "the database")


def test_an_asynchronous_handler_over_its_time_is_cancelled_and_failed() -> None:
    cancelled = []

    async def handler(order: Order) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    outcome = process(handler, timeout=3)
    assert isinstance(outcome.verdict, Again)
    assert outcome.verdict.failure.text == "the handler took longer than 3 s"
    assert cancelled
    assert outcome.seconds == pytest.approx(3)


def test_a_timeout_of_the_handlers_own_is_told_as_it_is() -> None:
    async def handler(order: Order) -> None:
        raise TimeoutError("the bank")

    for timeout in (None, 3):
        verdict = process(handler, timeout=timeout).verdict
        assert isinstance(verdict, Again)
        assert verdict.failure.text == "the bank"


def test_something_cancelled_inside_of_a_handler_is_a_failure_and_not_a_shutdown() -> None:
    async def handler(order: Order) -> None:
        raise asyncio.CancelledError

    verdict = process(handler).verdict
    assert isinstance(verdict, Again)
    assert "cancelled from inside" in verdict.failure.text


def real(function: Callable[..., Any], **rest: Any) -> Outcome:
    """As process, with real threads and a real clock."""

    async def main() -> Outcome:
        ports = AsyncPorts()
        try:
            return await handler_of(function, ports, **rest).process(delivery())
        finally:
            ports.close()

    return asyncio.run(main())


def test_a_plain_function_runs_in_a_thread() -> None:
    threads = []

    def handler(order: Order) -> None:
        threads.append(threading.current_thread())

    assert real(handler).verdict == Done()
    assert threads != [threading.main_thread()]


def test_a_plain_function_over_its_time_counts_as_failed() -> None:
    end = threading.Event()

    def handler(order: Order) -> None:
        end.wait(30)

    began = time.monotonic()
    try:
        verdict = real(handler, timeout=0.1).verdict
        took = time.monotonic() - began
    finally:
        end.set()
    assert isinstance(verdict, Again)
    assert "longer than 0.1 s" in verdict.failure.text
    assert took < 10


async def real_work(ran: list[str], order: Order) -> None:
    await asyncio.sleep(0)
    ran.append(order.customer)


class Till:
    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    async def __call__(self, order: Order) -> None:
        await real_work(self.ran, order)

    async def method(self, order: Order) -> None:
        await real_work(self.ran, order)


def plain_decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize(
    "make",
    [
        lambda ran: functools.partial(real_work, ran),
        Till,
        lambda ran: Till(ran).method,
        lambda ran: plain_decorator(functools.partial(real_work, ran)),
        lambda ran: lambda order: real_work(ran, order),
    ],
    ids=["partial", "object", "method", "behind a plain decorator", "lambda"],
)
def test_no_asynchronous_work_is_taken_for_done_before_it_ran(make: Any) -> None:
    ran: list[str] = []
    assert real(make(ran)).verdict == Done()
    assert ran == ["ann"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda payload: None, False),
        (lambda payload, message: None, True),
        (lambda payload, message=None: None, False),
        (lambda payload, *rest: None, False),
        (lambda payload, *, option=1: None, False),
        (Till([]).method, False),
        (functools.partial(lambda a, payload, message: None, 1), True),
    ],
)
def test_whether_a_function_wants_the_message(function: Any, expected: bool) -> None:
    assert takes_message(function) is expected


@pytest.mark.parametrize(
    "function",
    [lambda: None, lambda a, b, c: None, lambda payload, *, needed: None, lambda **options: None],
    ids=range(4),
)
def test_what_cannot_be_called_with_a_payload_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="it is called as"):
        takes_message(function)


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"prefetch": -1}, {"ordering": "keys"}, {"timeout": 0}, {"timeout": -1}], ids=str
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        HandlerOptions(**options)


def test_a_delivery_can_be_given_back_whatever_state_it_is_in() -> None:
    async def main() -> None:
        handler = handler_of(real_work, VirtualPorts())
        for got in (delivery(b"{"), delivery(headers={"ce_time": "?"})):
            assert handler.released(got).verdict == Release()

    run(main())


def test_functions_are_named_for_people() -> None:
    assert function_name(real_work) == f"{__name__}.real_work"
    assert function_name(functools.partial(real_work, [])) == f"{__name__}.real_work"


def test_skip_is_done_and_counted_as_skipped() -> None:
    async def handler(order: Order) -> None:
        raise Skip

    assert process(handler).verdict == Done(skipped=True)


def test_what_trying_again_cannot_help_does_not_go_on_for_ever() -> None:
    async def handler(order: Order) -> None:
        raise Unroutable("a topic that nobody made")

    verdict = process(handler, retry=Retry(attempts=1)).verdict
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "exhausted"


def test_an_attempt_whose_work_has_not_run_has_failed() -> None:
    """Behind a wrapper, or returned by mistake: only the result shows it."""

    async def later(order: Order) -> None: ...

    async def forgets_to_await(order: Order) -> Any:
        return later(order)

    def stream(order: Order) -> Any:
        yield order

    for function in (forgets_to_await, plain_decorator(stream)):
        verdict = process(function).verdict
        assert isinstance(verdict, Again)
        assert "returned" in verdict.failure.text


@pytest.mark.parametrize("left", [0.001, 0.5, 60.0])
def test_what_is_due_a_moment_later_is_not_handled_before(left: float) -> None:
    got = delivery(headers={"mqkit-due": repr(START + left), "mqkit-left": repr(left)})
    assert process(real_work, got).verdict == Postpone(left)


def test_a_body_may_be_as_large_as_it_is_said_and_not_a_byte_larger() -> None:
    async def handler(order: Order) -> None: ...

    body = b'{"customer": "ann"}'
    assert process(handler, delivery(body), max_body_bytes=len(body)).verdict == Done()
    verdict = process(handler, delivery(body + b" "), max_body_bytes=len(body)).verdict
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "too-large"


def test_what_a_packed_body_unpacks_to_is_bounded_alike() -> None:
    packed = gzip.compress(b'{"customer": "' + b"x" * 1000 + b'"}')
    verdict = process(real_work, delivery(packed, {"content-encoding": "gzip"}), max_body_bytes=500).verdict
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "too-large"
