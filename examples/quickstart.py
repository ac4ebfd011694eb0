from decimal import Decimal

from pydantic import BaseModel

from mqkit import AsyncApp, Retry, Topic


class Purchase(BaseModel):
    customer: str
    cds: int
    dollars: Decimal


purchases = Topic("purchases", Purchase, key="customer")
app = AsyncApp()


@app.subscribe(purchases, group="billing", retry=Retry(attempts=3, wait_initial=0.5), ordering="key")
async def bill(purchase: Purchase) -> None:
    if purchase.cds > 10:
        raise ValueError(f"no parcel holds {purchase.cds} CDs")
    print(f"{purchase.customer} pays ${purchase.dollars}")
