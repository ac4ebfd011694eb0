"""What the services of the shop share: one model and one topic. Plain data; nothing here knows a broker."""

import csv
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, Field

from mqkit import Topic

FILE = Path(__file__).parents[1] / "data" / "purchases.csv"


class Purchase(BaseModel):
    number: int
    customer: str
    cds: int = Field(gt=0)
    dollars: Decimal = Field(ge=0)


# `groups` names who must not miss anything: purchases wait for billing even before it runs for the first time.
# The demo gives each run a topic of its own, so that the books of a run balance by themselves.
purchases = Topic(os.environ.get("SHOP_TOPIC", "purchases"), Purchase, key="customer", groups=["billing"])


def purchases_on_file() -> Iterator[Purchase]:
    """What really happened, in that order."""
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            yield Purchase(
                number=int(row["purchase"]),
                customer=row["customer"],
                cds=int(row["cds"]),
                dollars=Decimal(row["dollars"]),
            )
