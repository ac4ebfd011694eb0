"""A shop at work, on any broker: `make demo URL=amqp://...`. Ends with 1 if its books do not balance."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from rich.console import Console

from examples.shop.services import ServiceFailed
from mqkit import MqkitError


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m examples.shop.demo", description=__doc__)
    arguments.add_argument("--url", help="the broker; a fresh SQLite file if not given", default="")
    given: str = arguments.parse_args().url
    with TemporaryDirectory(prefix="mqkit-shop-", ignore_cleanup_errors=True) as folder:
        # Only this names the broker. The services get it as any service does: from their environment.
        os.environ["MQKIT_URL"] = given or f"sqlite:///{Path(folder) / 'shop.db'}"
        os.environ["SHOP_TOPIC"] = f"shop-{uuid4().hex[:6]}.purchases"
        os.environ["SHOP_LEDGER"] = str(Path(folder) / "ledger.db")
        from examples.shop.tour import tour  # reads the environment that was just set

        try:
            balanced = asyncio.run(tour(Path(folder)))
        except (MqkitError, ServiceFailed) as error:
            Console(stderr=True, soft_wrap=True, markup=False).print(f"{type(error).__name__}: {error}")
            return 1
        except KeyboardInterrupt:
            return 130
    return 0 if balanced else 1


if __name__ == "__main__":
    sys.exit(main())
