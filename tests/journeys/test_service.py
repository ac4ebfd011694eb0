"""One service in a file of its own, as the design shows it: worked and fed by the command line, on every broker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.brokers import Broker

PATIENCE = 30.0
MQKIT = str(Path(sys.executable).with_name("mqkit"))

SERVICE = """
from decimal import Decimal
from pydantic import BaseModel
from mqkit import AsyncApp, Retry, Topic

class Purchase(BaseModel):
    customer: str
    cds: int
    dollars: Decimal

purchases = Topic("TOPIC", Purchase, key="customer")
app = AsyncApp()

@app.subscribe(purchases, group="billing", retry=Retry(attempts=6, wait_initial=1, wait_max=60), ordering="key", concurrency=32)
async def bill(purchase: Purchase) -> None:
    print(f"{purchase.customer} pays ${purchase.dollars}")
"""

ALONE = """

import asyncio

async def main() -> None:
    async with app:
        await app.publish(purchases, Purchase(customer="00004", cds=2, dollars=Decimal("29.33")))
        await app.run()

asyncio.run(main())
"""


PLAIN = SERVICE.replace("AsyncApp", "App").replace("async def", "def")
BOTH = [pytest.param(PLAIN, id="App"), pytest.param(SERVICE, id="AsyncApp")]


class Shop:
    """A folder with the service, and who works in it."""

    def __init__(self, folder: Path, url: str, service: str = SERVICE) -> None:
        self.folder = folder
        self.topic = f"purchases-{uuid4().hex[:8]}"
        self.environment = os.environ | {"MQKIT_URL": url, "PYTHONUNBUFFERED": "1"}
        (folder / "shop.py").write_text(service.replace("TOPIC", self.topic))

    @contextmanager
    def running(self, *command: str) -> Generator["subprocess.Popen[str]"]:
        with (self.folder / "out").open("w") as out, (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=log, text=True
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, process: "subprocess.Popen[str]", text: str) -> None:
        """Wait until the service has printed `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in (self.folder / "out").read_text():
            assert process.poll() is None, f"it ended by itself: {(self.folder / 'log').read_text()}"
            assert time.monotonic() < deadline, (
                f"no {text!r} within {PATIENCE:g} s: {(self.folder / 'log').read_text()}"
            )
            time.sleep(0.02)

    def publish(self, customer: str, dollars: str) -> None:
        payload = json.dumps({"customer": customer, "cds": 2, "dollars": dollars})
        ended = subprocess.run(
            (MQKIT, "publish", self.topic, payload, "--app", "shop:app"),
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith("published ")


def interrupted(process: "subprocess.Popen[str]", number: int, shop: Shop) -> None:
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert "Traceback" not in (shop.folder / "log").read_text()


def works(folder: Path, url: str, service: str) -> None:
    """One process works, others publish; Ctrl-C and SIGTERM end it cleanly; what came in between is not lost."""
    shop = Shop(folder, url, service)
    with shop.running(MQKIT, "run", "shop:app") as process:
        shop.wait_for(process, "Ctrl-C stops")
        shop.publish("00004", "29.33")
        shop.wait_for(process, "00004 pays $29.33\n")
        interrupted(process, signal.SIGINT, shop)
    shop.publish("00007", "12.00")
    with shop.running(MQKIT, "run", "shop:app") as process:
        shop.wait_for(process, "00007 pays $12.00\n")
        interrupted(process, signal.SIGTERM, shop)
        assert "00004" not in (folder / "out").read_text()


@pytest.mark.parametrize("service", BOTH)
def test_works_on_sqlite(tmp_path: Path, service: str) -> None:
    works(tmp_path, f"sqlite:///{tmp_path / 'mqkit.db'}", service)


@pytest.mark.parametrize("service", BOTH)
def test_works_on_rabbitmq(tmp_path: Path, rabbitmq_broker: Broker, service: str) -> None:
    works(tmp_path, rabbitmq_broker.url, service)


@pytest.mark.parametrize("service", BOTH)
def test_works_on_kafka(tmp_path: Path, kafka_broker: Broker, service: str) -> None:
    works(tmp_path, kafka_broker.url, service)


def test_works_in_memory_inside_of_one_process(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "memory://")
    with (tmp_path / "shop.py").open("a") as file:
        file.write(ALONE)
    with shop.running(sys.executable, "shop.py") as process:
        shop.wait_for(process, "00004 pays $29.33\n")
        interrupted(process, signal.SIGINT, shop)


def test_the_command_line_ends_cleanly_in_memory_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "memory://")
    with shop.running(MQKIT, "run", "shop:app") as process:
        shop.wait_for(process, "Ctrl-C stops")
        interrupted(process, signal.SIGINT, shop)
