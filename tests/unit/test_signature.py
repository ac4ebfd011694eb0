"""What can be a handler, what it takes, and what is refused by its name before any message."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Protocol, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, Field

from mqkit import AsyncApp
from mqkit.errors import ConfigurationError
from mqkit.message import Message
from mqkit.signature import contradicts, takes_message, unusable_result
from mqkit.topic import Topic

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

T = TypeVar("T")


class Order(BaseModel):
    id: int


class RushOrder(Order):
    hours: int


class Invoice(BaseModel):
    number: str


class Row(TypedDict):
    id: int


@dataclass
class Point:
    x: int


class Identified(Protocol):
    id: int


OrderLike = TypeVar("OrderLike", bound=Order)
CustomerId = NewType("CustomerId", str)
orders = Topic("orders", Order)


# ---- what it is


class Till:
    def bill(self, order: Order) -> None: ...
    def iterate(self, order: Order) -> Generator[None]:
        yield

    async def stream(self, order: Order) -> AsyncGenerator[Order]:
        yield order

    @classmethod
    def of_class(cls, order: Order) -> None: ...
    @staticmethod
    def of_nobody(order: Order) -> None: ...


class Iterating:
    def __call__(self, order: Order) -> Generator[None]:
        yield


def generator(order: Order) -> Generator[Order]:
    yield order


async def async_generator(order: Order) -> AsyncGenerator[Order]:
    yield order


@pytest.mark.parametrize(
    "function",
    [generator, async_generator, Till().iterate, Till().stream, Iterating(), functools.partial(generator),
     functools.partial(Till.stream, Till()), lambda order: (yield order)],
    ids=["def", "async def", "method", "async method", "object", "partial", "partial of async", "lambda"],
)  # fmt: skip
def test_what_contains_yield_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="contains `yield`"):
        takes_message(function)


@pytest.mark.parametrize(
    "function", [Till.bill, Till.iterate.__get__(None, Till), functools.wraps(Till.bill)(lambda *_: None)]
)
def test_a_method_without_its_object_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"without its self|contains `yield`"):
        takes_message(function)


def test_a_class_is_refused_and_so_is_what_cannot_be_called() -> None:
    with pytest.raises(ConfigurationError, match=r"Till is a class"):
        takes_message(Till)
    with pytest.raises(ConfigurationError, match="cannot be called"):
        takes_message("bill")  # type: ignore[arg-type] # a caller without a type checker


@pytest.mark.parametrize("function", [Till().bill, Till.of_class, Till.of_nobody, Till().of_nobody])
def test_methods_of_an_object_or_of_a_class_are_handlers(function: Callable[..., Any]) -> None:
    assert takes_message(function, orders) is False


# ---- what it takes


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that brings the second argument, and says so."""

    @functools.wraps(function)
    def wrapper(payload: Any) -> Any:
        return function(payload, "database")

    return wrapper


def second_is_message(order: Order, message: Message[Order]) -> None: ...
def second_is_optional_message(order: Order, message: Message[Order] | None = None) -> None: ...
def second_is_plain(order, message) -> None: ...  # type: ignore[no-untyped-def] # as people write
def second_is_database(order: Order, database: str) -> None: ...
def second_is_untyped(order: Order, database) -> None: ...  # type: ignore[no-untyped-def] # as people write
def second_has_default(order: Order, database: str = "") -> None: ...
def only_for_checkers(order: Order, message: "Message[OnlyForCheckers]") -> None: ...
def unknown(order: "OnlyForCheckers") -> None: ...
def quoted(order: "Order") -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (second_is_message, True), (second_is_optional_message, True), (second_is_plain, True),
        (second_is_untyped, True), (second_has_default, False), (only_for_checkers, True), (unknown, False),
        (quoted, False), (wrapped(second_is_message), True), (wrapped(second_is_plain), True), (wrapped(quoted), False),
        (wrapped(second_has_default), False), (injecting(second_is_database), False),
        (injecting(second_is_untyped), False), (wrapped(Till().bill), False),
    ],
)  # fmt: skip
def test_whether_it_wants_the_message(function: Callable[..., Any], expected: bool) -> None:
    assert takes_message(function, orders) is expected


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (second_is_database, "second parameter 'database' is annotated as str"),
        (wrapped(second_is_database), "second parameter 'database' is annotated as str"),
        (wrapped(second_is_untyped), "wrapped by a decorator, and takes 'database' beside the payload"),
    ],
)
def test_a_second_parameter_that_is_not_the_message_is_refused(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        takes_message(function, orders)


def test_what_a_decorator_would_bring_by_name_is_for_its_wrapper_to_say() -> None:
    def bill(order: Order, *, database: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"takes order, \*, database: .* def wrapper\(payload\)"):
        takes_message(wrapped(bill), orders)
    takes_message(injecting(bill), orders)


def test_the_message_stands_behind_the_payload() -> None:
    def alone(message: Message[Order]) -> None: ...
    def turned(message: Message[Order], order: Order) -> None: ...

    for function in (alone, turned):
        with pytest.raises(ConfigurationError, match=r"'message' is annotated as the Message, and it gets the payload"):
            takes_message(function, orders)


@pytest.mark.parametrize(
    ("hint", "schema", "expected"),
    [
        (Order, Order, False), (Any, Order, False), (object, Order, False), (T, Order, False), (BaseModel, Order, False),
        (Invoice, Order, True), (dict, Order, True), (str, Order, True), (Identified, Order, False),
        (RushOrder, Order, False), (Order, RushOrder, False),
        (Order | Invoice, Order, False), (Order | None, Order, False), (Invoice | None, Order, True),
        (Order, Order | Invoice, False), (Point, Order | Invoice, True),
        (Annotated[Order, Field()], Order, False), (Order, Annotated[Order | Invoice, Field()], False),
        (list[Order], list[Order], False), (list[Invoice], list[Order], True), (Sequence[Order], list[Order], False),
        (list, list[Order], False), (dict[str, int], dict[str, str], True), (Mapping[str, int], dict[str, int], False),
        (dict, Row, False), (Row, dict[str, Any], False), (Order, Row, True), (Point, Point, False),
        (float, int, False), (int, str, True), (CustomerId, str, False), (CustomerId, int, True),
        (OrderLike, Order, False), (OrderLike, Invoice, True), (Literal["a"], Order, True), (int, Literal["a"], True),
        (Literal["a", 1], Order, False), (str, Literal["a"], False),
        (Literal["a"], str, False), (bytes, bytes, False), (str, bytes, True), (None, Order, True),
        (Any, None, False), (object, None, False),
        (dict, None, False), (dict[str, Any], None, False), (Row, None, False), (Mapping[str, Any], None, False),
        (bytes, None, False), (Order, None, True), (Point, None, True), (Order | dict[str, Any], None, False),
    ],
)  # fmt: skip
def test_which_annotations_no_payload_can_fulfil(hint: Any, schema: Any, expected: bool) -> None:
    assert contradicts(hint, schema) is expected


def test_subscribing_names_the_handler_the_annotation_and_the_schema() -> None:
    app = AsyncApp("memory://")

    async def bill(invoice: Invoice) -> None: ...

    with pytest.raises(ConfigurationError, match=r"bill: its parameter 'invoice' is annotated as Invoice.*are Order"):
        app.subscribe(orders, group="a")(bill)  # type: ignore[arg-type] # what a type checker refuses, too
    with pytest.raises(ConfigurationError, match=r"it has no schema; write Topic\('anything', Invoice\)"):
        app.subscribe(Topic("anything"), group="a")(bill)
    app.subscribe(Topic("special", content_type="application/octet-stream"), group="a")(bill)


def test_a_message_of_something_else_is_refused() -> None:
    def bill(order: Order, message: Message[Invoice]) -> None: ...
    def audit(order: Order, message: Message[Invoice] | None) -> None: ...
    def note(order: Order, message: Message[Order] | Message[Invoice]) -> None: ...

    for each in (bill, audit, note):
        with pytest.raises(ConfigurationError, match=r"'message' is annotated as a Message of Invoice, .* are Order"):
            takes_message(each, orders)
    assert takes_message(bill, Topic("special", content_type="application/octet-stream"))

    def file(order: Order, message: Message[Any]) -> None: ...

    assert takes_message(file, orders)


# ---- what it returned


async def coroutine() -> None: ...


def test_what_has_not_run_yet_is_no_result() -> None:
    async def main() -> list[str]:
        task = asyncio.create_task(coroutine())
        found = [
            unusable_result(each) for each in (generator(Order(id=1)), async_generator(Order(id=1)), coroutine(), task)
        ]
        await task
        return found

    assert [said.split()[1] for said in asyncio.run(main())] == ["generator,", "generator,", "coroutine,", "to"]


@pytest.mark.parametrize("result", [None, 1, "text", Order(id=1), [Order(id=1)], iter(())])
def test_anything_else_is(result: object) -> None:
    assert unusable_result(result) == ""
