"""What the web and the worker share: one model and one topic."""

from decimal import Decimal

from pydantic import BaseModel, Field

from mqkit import Topic


class Order(BaseModel):
    customer: str
    cds: int = Field(gt=0)
    dollars: Decimal = Field(ge=0)


# Billing's orders wait for it, even before it runs for the first time.
orders = Topic("flask-shop.orders", Order, key="customer", groups=["billing"])
