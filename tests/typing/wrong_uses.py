"""What a user must not write: both type checkers report every line marked `# error`, and no other."""

from collections.abc import Generator

from pydantic import BaseModel

from mqkit import App, AsyncApp, Event, Message, Topic
from mqkit.message import WireMessage


class Purchase(BaseModel):
    customer: str


class Invoice(BaseModel):
    number: int


purchases = Topic("purchases", Purchase, key="customer")
invoices = Topic("invoices", Invoice)
app = AsyncApp("memory://")
plain_app = App("memory://")


@app.subscribe(purchases, group="a")  # error
async def wrong_model(invoice: Invoice) -> None: ...


@app.subscribe(purchases, group="b")  # error
def wrong_model_plain(invoice: Invoice) -> None: ...


@app.subscribe(purchases, group="c")  # error
async def wrong_message(purchase: Purchase, message: Message[Invoice]) -> None: ...


@app.subscribe(purchases, group="d")  # error
async def three(purchase: Purchase, message: Message[Purchase], more: int) -> None: ...


@app.subscribe(purchases, group="e")  # error
async def nothing() -> None: ...


@app.subscribe(purchases, group="f", publish=invoices)  # error
async def wrong_result(purchase: Purchase) -> Purchase:
    return purchase


@app.subscribe(purchases, group="g", publish=invoices)  # error
def wrong_result_plain(purchase: Purchase) -> str:
    return purchase.customer


@app.subscribe(purchases, group="h", publish=invoices)  # error
async def wrong_result_with_message(purchase: Purchase, message: Message[Purchase]) -> int:
    return message.attempt


@app.subscribe(purchases, group="i", ordering="keys")  # error
async def wrong_option(purchase: Purchase) -> None: ...


@app.subscribe(purchases)  # error
async def no_group(purchase: Purchase) -> None: ...


async def main() -> None:
    await app.publish(purchases, Invoice(number=1))  # error
    await app.publish(purchases, {"customer": "ann"})  # error
    await app.publish(purchases, Purchase(customer="ann"), headers={"a": 1})  # error
    await app.publish(purchases, Purchase(customer="ann"), delay="soon")  # error
    await app.publish_many(purchases, [Invoice(number=1)])  # error
    app.publish(purchases)  # error
    await app.publish("purchases", Purchase(customer="ann"))  # error


Topic("purchases", Purchase, key=5)  # error
AsyncApp("memory://", servce="shop")  # error
AsyncApp("memory://", publish_timeout="soon")  # error


@app.subscribe(purchases, group="j", concurency=5)  # error
async def unknown_option(purchase: Purchase) -> None: ...


# ---- App


@plain_app.subscribe(purchases, group="a")  # error
def plain_wrong_model(invoice: Invoice) -> None: ...


@plain_app.subscribe(purchases, group="b")  # error
def plain_wrong_message(purchase: Purchase, message: Message[Invoice]) -> None: ...


@plain_app.subscribe(purchases, group="c")  # error
def plain_three(purchase: Purchase, message: Message[Purchase], more: int) -> None: ...


@plain_app.subscribe(purchases, group="d")  # error
def plain_nothing() -> None: ...


@plain_app.subscribe(purchases, group="e")  # error
async def async_handler(purchase: Purchase) -> None: ...


@plain_app.subscribe(purchases, group="f")  # error
async def async_handler_with_message(purchase: Purchase, message: Message[Purchase]) -> None: ...


@plain_app.subscribe(purchases, group="g", publish=invoices)  # error
async def async_republishing(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@plain_app.subscribe(purchases, group="h", publish=invoices)  # error
async def async_republishing_with_message(purchase: Purchase, message: Message[Purchase]) -> Invoice | None:
    return None


@plain_app.subscribe(purchases, group="i", publish=invoices)  # error
def plain_wrong_result(purchase: Purchase) -> Purchase:
    return purchase


@plain_app.subscribe(purchases, group="j", publish=invoices)  # error
def plain_wrong_result_with_message(purchase: Purchase, message: Message[Purchase]) -> int:
    return message.attempt


@plain_app.subscribe(purchases, group="k")  # error
def plain_result_that_goes_nowhere(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@plain_app.subscribe(purchases, group="l", publish="invoices")  # error
def plain_wrong_publish(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@plain_app.subscribe(purchases, group="m", publish=purchases)  # error
def plain_other_topic(purchase: Purchase) -> Invoice:
    return Invoice(number=1)


@plain_app.subscribe(purchases, group="n", ordering="keys")  # error
def plain_wrong_option(purchase: Purchase) -> None: ...


@plain_app.subscribe(purchases, group="o", concurency=5)  # error
def plain_unknown_option(purchase: Purchase) -> None: ...


@plain_app.subscribe(purchases)  # error
def plain_no_group(purchase: Purchase) -> None: ...


@plain_app.subscribe("purchases", group="p")  # error
def plain_no_topic(purchase: Purchase) -> None: ...


@plain_app.listen  # error
def wrong_listener(event: Purchase) -> None: ...


def wrong_middleware(message: int) -> Generator[None]:
    yield


App("memory://", middleware=[wrong_middleware])  # error
App("memory://", servce="shop")  # error
App("memory://", publish_timeout="soon")  # error
App(url=5)  # error


def plain_main() -> None:
    plain_app.publish(purchases, Invoice(number=1))  # error
    plain_app.publish(purchases, {"customer": "ann"})  # error
    plain_app.publish(purchases, Purchase(customer="ann"), headers={"a": 1})  # error
    plain_app.publish(purchases, Purchase(customer="ann"), delay="soon")  # error
    plain_app.publish(purchases, Purchase(customer="ann"), dealy=1)  # error
    plain_app.publish_many(purchases, [Invoice(number=1)])  # error
    plain_app.publish_many(purchases, Purchase(customer="ann"))  # error
    plain_app.publish(purchases)  # error
    plain_app.publish("purchases", Purchase(customer="ann"))  # error
    plain_app.inspect(5, "a")  # error
    plain_app.dead_letters(purchases, "a").list(choose=lambda letter: letter.nothing)  # error
    Event("exploded")  # error
    plain_app.consumer(purchases)  # error
    plain_app.consumer(purchases, group="audit", ordering="keys")  # error
    for pulled in plain_app.consumer(purchases, group="audit").fetch():
        print(pulled.payload.number)  # error
    with app:  # error
        pass


async def plain_app_in_a_loop() -> None:
    async with plain_app:  # error
        pass
    await plain_app.publish(purchases, Purchase(customer="ann"))  # error


def change(message: Message[Purchase], wire: WireMessage) -> None:
    message.id = "other"  # error
    wire.body = b""  # error
