"""Billing: handles every purchase. Run it with `mqkit run examples.shop.billing:app`, or as this module.

Version 1 has a bug: it knows no parcel for more than ten CDs. SHOP_VERSION=2 is the release that mends it.
"""

import asyncio
import os

from examples.shop.ledger import Ledger
from examples.shop.model import Purchase, purchases
from mqkit import AsyncApp, Event, Message, Retry

VERSION = os.environ.get("SHOP_VERSION", "1")
PARCELS = {"letter": 2, "box": 10}  # the most CDs that each one holds
if VERSION == "2":
    PARCELS["crate"] = 100

app = AsyncApp(service="billing", version=VERSION)
ledger = Ledger(os.environ.get("SHOP_LEDGER", "shop-ledger.db"))


@app.subscribe(purchases, group="billing", retry=Retry(attempts=3, wait_initial=0.5, wait_max=1.0), concurrency=32)
async def bill(purchase: Purchase, message: Message[Purchase]) -> None:
    parcel = parcel_for(purchase.cds)
    charge(purchase, message.attempt)
    # A message may come twice. The ledger has one line for each purchase, so the second time changes nothing.
    ledger.enter(purchase, parcel)


@app.listen
def count(event: Event) -> None:
    if event.kind == "retry":
        ledger.note_retry(event.id)


def parcel_for(cds: int) -> str:
    for parcel, holds in PARCELS.items():
        if cds <= holds:
            return parcel
    raise ValueError(f"no parcel holds {cds} CDs")


def charge(purchase: Purchase, attempt: int) -> None:
    """The card company: misses the first call for every 100th purchase, and the second for every 500th."""
    missed = 2 if purchase.number % 500 == 0 else 1 if purchase.number % 100 == 0 else 0
    if attempt <= missed:
        raise ConnectionError("the card company does not answer")


if __name__ == "__main__":
    asyncio.run(app.run())
