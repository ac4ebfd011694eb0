"""What a user writes: every line of this is right, and both type checkers must agree."""

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_type

from pydantic import BaseModel

from mqkit import (
    App,
    AsyncApp,
    AsyncConsumer,
    AsyncDeadLetters,
    Consumer,
    Counts,
    DeadLetter,
    DeadLetters,
    Event,
    FieldError,
    Message,
    PublishError,
    Retry,
    SchemaError,
    Topic,
)
from mqkit.errors import MqkitError
from mqkit.registration import Registration
from mqkit.settings import Settings
from mqkit.topology import Finding, Topology


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
plain_app = App("memory://", service="shop", publish_timeout=5, plugins=[], listeners=[])

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
    assert_type(await app.inspect(purchases, "a"), Counts)
    assert_type(await app.inspect("purchases", "a"), Counts)
    assert_type(await app.examine(), Sequence[Finding])
    assert_type(app.topology(), Topology)
    assert_type(app.settings, Settings)
    assert_type(app.registrations, Sequence[Registration])
    assert_type(app.description, str)
    letters = app.dead_letters(purchases, "a")
    assert_type(letters, AsyncDeadLetters)
    assert_type(await letters.count(), int | None)
    assert_type(await letters.list(limit=5, choose=lambda letter: letter.key == "ann"), Sequence[DeadLetter])
    assert_type(await letters.replay(limit=1, rate=2.5, dry=True), Sequence[str])
    assert_type(await letters.purge(), Sequence[str])
    async with app.consumer(purchases, group="audit", retry=Retry(), ordering="key", prefetch=5) as consumer:
        assert_type(consumer, AsyncConsumer[Purchase])
        for pulled in await consumer.fetch(10, timeout=1):
            assert_type(pulled.payload, Purchase)
            pulled.done()
    async with app as opened, app.working() as at_work:
        assert_type(opened, AsyncApp)
        assert_type(at_work, AsyncApp)


# ---- App


@plain_app.subscribe(
    purchases, group="a", retry=Retry(attempts=6, on=OSError), ordering="key", concurrency=32, prefetch=5, timeout=1.5
)
def charge(purchase: Purchase) -> None: ...


@plain_app.subscribe(purchases, group="b", middleware=[timing], grace=3)
def charge_with_message(purchase: Purchase, message: Message[Purchase]) -> None:
    assert_type(message.payload, Purchase)


@plain_app.subscribe(purchases, group="c", publish=invoices)
def invoice_plain(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@plain_app.subscribe(purchases, group="d", publish=invoices)
def perhaps_plain(purchase: Purchase, message: Message[Purchase]) -> Invoice | None:
    return None


@plain_app.subscribe(purchases, group="e", publish=invoices)
def never_plain(purchase: Purchase) -> None: ...


@plain_app.subscribe(anything, group="f")
def untyped_plain(payload: Any) -> None: ...


@plain_app.listen
def on_event(event: Event) -> None:
    if event.kind == "retry":
        assert_type(event.kind, Literal["retry"])
    assert_type(event.seconds, float)


def plain_main() -> None:
    assert_type(plain_app.publish(purchases, Purchase(customer="ann")), str)
    assert_type(plain_app.publish_many(purchases, [Purchase(customer="ann")]), list[str])
    plain_app.publish_many(points, (Point(i) for i in range(3)), headers={"a": "b"}, timeout=3)
    plain_app.publish(counts, {"a": 1})
    plain_app.publish(blobs, b"", headers={"a": "b"}, delay=1.5, key="k", id="mine", timeout=3)
    plain_app.publish(anything, object())
    assert_type(plain_app.inspect(purchases, "a"), Counts)
    assert_type(plain_app.inspect(purchases, "a").ready, int | None)
    assert_type(plain_app.examine(), Sequence[Finding])
    assert_type(plain_app.topology(), Topology)
    assert_type(plain_app.settings, Settings)
    assert_type(plain_app.registrations, Sequence[Registration])
    assert_type(plain_app.description, str)
    letters = plain_app.dead_letters(purchases, "a")
    assert_type(letters, DeadLetters)
    assert_type(letters.count(), int | None)
    assert_type(letters.list(limit=5, choose=lambda letter: letter.key == "ann"), Sequence[DeadLetter])
    assert_type(letters.replay(limit=1, rate=2.5, dry=True, progress=print), Sequence[str])
    assert_type(letters.purge(), Sequence[str])
    with plain_app.consumer(purchases, group="audit", retry=Retry(), ordering="key", prefetch=5) as consumer:
        assert_type(consumer, Consumer[Purchase])
        for pulled in consumer.fetch(10, timeout=1):
            assert_type(pulled.payload, Purchase)
            assert_type(pulled.message, Message[Purchase])
            pulled.retry(ValueError("no"), after=5)
    with plain_app as opened, plain_app.working() as at_work:
        assert_type(opened, App)
        assert_type(at_work, App)
    # the decorator gives the function back unchanged
    assert_type(invoice_plain(Purchase(customer="ann")), Invoice | None)
    assert_type(plain_app.listen(on_event)(Event("done")), None)


def errors() -> None:
    try:
        plain_app.publish(purchases, Purchase(customer="ann"))
    except SchemaError as error:
        assert_type(error.fields, tuple[FieldError, ...])
        assert_type(error.fields[0].path, str)
    except PublishError as error:
        assert_type(error.unknown, dict[int, MqkitError])


def facts(message: Message[Purchase], letter: DeadLetter) -> None:
    assert_type(message.payload.customer, str)
    assert_type(message.attempt, int)
    assert_type(message.key, str | None)
    assert_type(purchases.name, str)
    assert_type(purchases.groups, tuple[str, ...])
    assert_type(purchases.options, tuple[object, ...])
    assert_type(purchases.key_of(Purchase(customer="ann")), str | None)
    assert_type(letter.body, bytes)
    assert_type(letter.as_dict(), dict[str, object])
