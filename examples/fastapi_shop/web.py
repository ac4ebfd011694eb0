"""The web: takes orders, publishes them, and packs them in the same process.

uvicorn examples.fastapi_shop.web:web
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mqkit import AsyncApp, BackendError, Message, Topic

log = logging.getLogger("uvicorn.error")


class Order(BaseModel):
    customer: str
    cds: int = Field(gt=0)


class Receipt(BaseModel):
    id: str


class Parcel(BaseModel):
    customer: str
    size: Literal["letter", "box"]


class Health(BaseModel):
    broker: str
    waiting: int | None


messages = AsyncApp(service="web", publish_timeout=5)
orders = Topic("fastapi-shop.orders", Order, key="customer", groups=["packing"])
parcels: dict[str, Parcel] = {}  # of this process: several of them would need a database


@messages.subscribe(orders, group="packing")
async def pack(order: Order, message: Message[Order]) -> None:
    parcels[message.id] = Parcel(customer=order.customer, size="letter" if order.cds <= 2 else "box")


@asynccontextmanager
async def lifespan(_web: FastAPI) -> AsyncGenerator[None]:
    async with messages.working():  # only to publish: async with messages
        yield


web = FastAPI(lifespan=lifespan)


@web.post("/orders", status_code=202)
async def take(order: Order) -> Receipt:
    return Receipt(id=await messages.publish(orders, order))


@web.get("/orders/{id}")
async def parcel_of(id: str) -> Parcel:
    if id not in parcels:
        raise HTTPException(404, "This order is not packed.")
    return parcels[id]


@web.get("/health")
async def health() -> Health:
    counts = await messages.inspect(orders, "packing")
    return Health(broker=messages.description, waiting=counts.ready)


@web.exception_handler(BackendError)
async def put_off(_request: Request, error: BackendError) -> JSONResponse:
    log.error("the broker: %s", error)
    return JSONResponse({"error": "Orders cannot be taken at the moment: try again in a minute."}, 503)
