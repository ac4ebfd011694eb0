"""What a user writes: every line of this is right, and both type checkers must agree."""

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any, assert_type

from pydantic import BaseModel

from mqkit import AsyncApp, Message, Retry, Topic


class Purchase(BaseModel):
    customer: str


class Invoice(BaseModel):
    number: int


@dataclass
class Point:
    x: int


purchases = Topic("purchases", Purchase, key="customer")
invoices = Topic("invoices", Invoice, key=lambda invoice: str(invoice.number))
points = Topic("points", Point)
blobs = Topic("blobs", bytes)
counts = Topic("counts", dict[str, int])
anything = Topic("anything")
either = Topic("either", Purchase | Invoice, key=lambda found: found.customer)
by_function = Topic("purchases", Purchase, key=lambda purchase: purchase.customer)
app = AsyncApp("memory://")

assert_type(purchases, Topic[Purchase])
assert_type(blobs, Topic[bytes])
assert_type(counts, Topic[dict[str, int]])
assert_type(anything, Topic[Any])
assert_type(invoices, Topic[Invoice])
assert_type(by_function, Topic[Purchase])


@app.subscribe(
    purchases, group="a", retry=Retry(attempts=6, wait_initial=1, wait_max=60), ordering="key", concurrency=32
)
async def bill(purchase: Purchase) -> None: ...


@app.subscribe(purchases, group="b")
def plain(purchase: Purchase) -> None: ...


@app.subscribe(purchases, group="c")
async def with_message(purchase: Purchase, message: Message[Purchase]) -> None:
    assert_type(message.payload, Purchase)


@app.subscribe(purchases, group="d")
def plain_with_message(purchase: Purchase, message: Message[Purchase]) -> int:
    return message.attempt


@app.subscribe(purchases, group="e", publish=invoices)
async def invoice(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@app.subscribe(purchases, group="f", publish=invoices)
def perhaps(purchase: Purchase, message: Message[Purchase]) -> Invoice | None:
    return None


@app.subscribe(purchases, group="g", publish=invoices)
async def never(purchase: Purchase) -> None: ...


@app.subscribe(purchases, group="h")
async def wider(purchase: BaseModel) -> None: ...


@app.subscribe(anything, group="i")
async def untyped(payload: Any) -> None: ...


@app.subscribe(points, group="j")
async def with_default(point: Point, level: int = 0) -> None: ...


@app.subscribe(purchases, group="k")
class Stateful:
    """Not a function, but it can be called with a payload."""

    def __init__(self, purchase: Purchase) -> None: ...


def timing(message: Message[Any]) -> Generator[None]:
    yield


async def tracing(message: Message[Any]) -> AsyncGenerator[None]:
    yield


@app.subscribe(blobs, group="l", middleware=[timing, tracing])
async def raw(body: bytes) -> None: ...


async def main() -> None:
    assert_type(await app.publish(purchases, Purchase(customer="ann")), str)
    assert_type(await app.publish_many(purchases, [Purchase(customer="ann")]), list[str])
    await app.publish(counts, {"a": 1})
    await app.publish(blobs, b"", headers={"a": "b"}, delay=1.5, key="k", timeout=3)
    await app.publish(anything, object())
    # the decorator gives the function back unchanged
    assert_type(await bill(Purchase(customer="ann")), None)
    assert_type(plain_with_message(Purchase(customer="ann"), Message(Purchase(customer="a"), "1", "t", "g")), int)
    assert_type(await invoice(Purchase(customer="ann")), Invoice | None)
    assert_type(perhaps(Purchase(customer="ann"), Message(Purchase(customer="a"), "1", "t", "g")), Invoice | None)
