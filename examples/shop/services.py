"""How the demo starts the two services: as processes, or inside its own where a broker cannot be shared (memory)."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

STOREFRONT, BILLING = "examples.shop.storefront", "examples.shop.billing"


class ServiceFailed(Exception):
    """A service ended otherwise than it should."""


async def storefront(*, shared: bool, log: Path) -> None:
    """Run the storefront to its end."""
    if shared:
        _check(await (await _start(STOREFRONT, log)).wait(), STOREFRONT, log)
    else:
        await import_module(STOREFRONT).main()


@asynccontextmanager
async def billing(version: str, *, shared: bool, log: Path) -> AsyncGenerator[Callable[[], None]]:
    """Billing of this version works inside this context; yields what raises ServiceFailed when it no longer does."""
    os.environ["SHOP_VERSION"] = version
    if not shared:
        logging.basicConfig(filename=log)
        sys.modules.pop(BILLING, None)  # as a new process would, read the code anew
        service = import_module(BILLING)
        async with service.app.working():
            yield lambda: None
        service.ledger.close()
        return
    process = await _start(BILLING, log)
    try:
        yield lambda: _check(process.returncode, BILLING, log)
    finally:
        if process.returncode is None:
            process.terminate()  # SIGTERM: what runs ends, what has not started goes back to the broker
        code = await process.wait()
    _check(code, BILLING, log)


async def _start(module: str, log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as file:
        root = Path(__file__).parents[2]
        return await asyncio.create_subprocess_exec(sys.executable, "-m", module, cwd=root, stderr=file)


def _check(code: int | None, module: str, log: Path) -> None:
    if code:
        raise ServiceFailed(f"{module} ended with {code}; its last words:\n{log.read_text()[-1000:]}")
