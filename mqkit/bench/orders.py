"""What is sent: an order of a shop, as a pydantic model, with a note that makes its JSON as long as is asked for."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import count, islice

from pydantic import BaseModel

SMALL = 200
LARGE = 4096


class Order(BaseModel):
    """One order."""

    number: int
    customer: str
    cds: int
    dollars: Decimal
    placed: float = 0.0
    """When it was published, on the monotonic clock that all processes of a machine share: latency counts from it."""
    note: str = ""


def sized(order: Order, size: int) -> Order:
    """`order` with a note, so that its JSON has about `size` bytes."""
    missing = size - len(order.model_dump_json())
    words = "please ring twice; "
    return order.model_copy(update={"note": (words * (missing // len(words) + 1))[: max(0, missing)]})


def made_up() -> Iterator[Order]:
    """Orders without end, of 500 customers."""
    for number in count():
        customer = (number * 7919) % 500
        yield Order(
            number=number, customer=f"{customer:05}", cds=1 + number % 4, dollars=Decimal(1177 + number % 3000) / 100
        )


def numbered(orders: Iterable[Order], number: int, size: int) -> Iterator[Order]:
    """The first `number` of `orders`, over and over if there are fewer, numbered from 0 and of `size` bytes."""
    known = [sized(order, size) for order in islice(orders, min(number, 1_000))]
    return (known[i % len(known)].model_copy(update={"number": i}) for i in range(number))
