"""An old till that knows nothing of mqkit: it sends bare bytes, without any header, and some of them are broken."""

from examples.shop.model import purchases
from mqkit import AsyncApp
from mqkit.message import Outgoing, WireMessage

BODIES = (
    b"5001;00042;2;29.33",  # not JSON
    b'{"number": 5002, "customer": "00042", "cds": 2',  # cut off
    b'{"number": 5003, "customer": "00042"}',  # fields are missing
    b'{"number": 5004, "customer": "00042", "cds": 2, "dollars": "a lot"}',  # not an amount
)


async def send() -> None:
    """Send all, below mqkit's API, as a plain client of this broker would."""
    async with AsyncApp() as app:
        sender = await app.backend.open_sender()
        await sender.send([Outgoing(WireMessage(body), purchases.name) for body in BODIES], timeout=10.0)
        await sender.close()
