"""The storefront: publishes every purchase. Run it with `python -m examples.shop.storefront`."""

import asyncio

from rich.progress import track

from examples.shop.model import purchases, purchases_on_file
from mqkit import AsyncApp

AT_ONCE = 100


async def main() -> None:
    sold = list(purchases_on_file())
    async with AsyncApp(service="storefront") as app:
        for start in track(range(0, len(sold), AT_ONCE), "storefront publishes"):
            # Returns when the broker has made all of them safe.
            await app.publish_many(purchases, sold[start : start + AT_ONCE])


if __name__ == "__main__":
    asyncio.run(main())
