"""What a user must not write: both type checkers report every line marked `# error`, and no other."""

from pydantic import BaseModel

from mqkit import AsyncApp, Message, Topic


class Purchase(BaseModel):
    customer: str


class Invoice(BaseModel):
    number: int


purchases = Topic("purchases", Purchase, key="customer")
invoices = Topic("invoices", Invoice)
app = AsyncApp("memory://")


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
