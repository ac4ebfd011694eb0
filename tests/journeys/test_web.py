"""mqkit in web frameworks: the servers of examples/flask_shop and examples/fastapi_shop, driven over HTTP."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from mqkit.testing.waiting import eventually
from tests.brokers import Broker

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 60.0
GUNICORN = ("gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket",
            "--access-logfile", "-", "--access-logformat", "served by %(p)s",
            "examples.flask_shop.web:create_app()")  # fmt: skip
FLASK = ("flask", "--app", "examples.flask_shop.web", "run", "--port", "0")
UVICORN = ("uvicorn", "--port", "0", "examples.fastapi_shop.web:web")
WORKER = ("mqkit", "run", "examples.flask_shop.worker:app")
ORDER = {"customer": "00004", "cds": 2, "dollars": "29.33"}
AWAY = {"error": "Orders cannot be taken at the moment: try again in a minute."}


class Service:
    """A process of an example, and what it says."""

    def __init__(self, log: Path, process: "subprocess.Popen[bytes]") -> None:
        self._log = log
        self._process = process

    @property
    def said(self) -> str:
        """All of its output so far."""
        return self._log.read_text()

    def says(self, pattern: str) -> "re.Match[str]":
        """What it says that fits, when it has said so."""

        def look() -> "re.Match[str] | None":
            found = re.search(pattern, self.said)
            assert found or self._process.poll() is None, f"it ended by itself: {self.said}"
            return found

        return eventually(look, f"{pattern!r} in its output", timeout=PATIENCE, shown=lambda: self.said)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON of its answer."""
        port = int(self.says(r"http://127\.0\.0\.1:([1-9]\d*)")[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.load(answer)
        finally:
            connection.close()

    def order(self, order: object = ORDER) -> str:
        """The id of an order that was taken."""
        status, answer = self.ask("POST", "/orders", order)
        assert status == 202, (answer, self.said)
        return str(answer["id"])

    def terminate(self) -> int:
        """Its exit code after SIGTERM; it has complained of nothing."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        assert "Traceback" not in self.said, self.said
        return code


@dataclass(frozen=True, slots=True)
class Shop:
    """A folder and a broker, and the processes that run there."""

    folder: Path
    url: str
    _stack: ExitStack

    def start(self, *command: str) -> Service:
        """One more of them."""
        environment = os.environ | {"MQKIT_URL": self.url, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        path = self.folder / f"{command[0]}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [BIN / command[0], *command[1:]], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return Service(path, process)


Open = Callable[[str], Shop]


@pytest.fixture
def shop_at(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda url: Shop(tmp_path, url, stack)


@pytest.fixture
def sqlite_shop(shop_at: Open, tmp_path: Path) -> Shop:
    return shop_at(f"sqlite:///{tmp_path / 'mqkit.db'}?busy_timeout=1")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As if another program held the file, and would not let go."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def sells(shop: Shop, server: tuple[str, ...]) -> tuple[Service, Service]:
    """Whatever the web takes, the worker bills; both stop in good order."""
    web, worker = shop.start(*server), shop.start(*WORKER)
    first = web.order()
    worker.says(f"{first}: 00004 pays \\$29.33")
    others = [web.order(ORDER | {"customer": f"{number:05}"}) for number in range(8)]
    for number, other in enumerate(others):
        worker.says(f"{other}: {number:05} pays \\$29.33")
    return web, worker


def served_by(web: Service) -> set[str]:
    """The processes that answered."""
    return set(re.findall(r"served by <?(\d+)", web.said))


def both_processes_sell(shop: Shop) -> None:
    """The app was opened before the fork: each worker publishes all the same, and what they publish is billed."""
    web, worker = sells(shop, GUNICORN)

    def both() -> bool:
        worker.says(f"{web.order()}: 00004 pays")
        return len(served_by(web)) == 2

    eventually(both, "both processes have answered", shown=lambda: web.said)
    assert web.terminate() == 0
    assert worker.terminate() == 0


def test_flask_publishes_and_a_worker_handles(sqlite_shop: Shop) -> None:
    web, worker = sells(sqlite_shop, FLASK)
    assert worker.terminate() == 0
    # taken while no worker runs: the next one finds it
    late = web.order()
    worker = sqlite_shop.start(*WORKER)
    worker.says(f"{late}: 00004 pays")
    assert worker.terminate() == 0


def test_flask_under_gunicorn_that_forks_after_the_app_was_opened(sqlite_shop: Shop) -> None:
    both_processes_sell(sqlite_shop)


def test_the_same_on_rabbitmq(shop_at: Open, rabbitmq_broker: Broker) -> None:
    both_processes_sell(shop_at(rabbitmq_broker.url))


def test_the_same_on_kafka(shop_at: Open, kafka_broker: Broker) -> None:
    both_processes_sell(shop_at(kafka_broker.url))


def test_a_wrong_order_is_refused_with_its_fields(sqlite_shop: Shop) -> None:
    web = sqlite_shop.start(*GUNICORN)
    status, answer = web.ask("POST", "/orders", {"customer": "00004", "cds": 0})
    assert status == 422
    assert [error["field"] for error in answer["errors"]] == ["cds", "dollars"]
    assert all(error["problem"] for error in answer["errors"])
    assert web.ask("POST", "/orders", ["no order"])[0] == 422
    assert web.terminate() == 0


def test_an_order_is_put_off_while_the_file_is_held(sqlite_shop: Shop) -> None:
    web = sqlite_shop.start(*GUNICORN)
    web.order()
    with locked(sqlite_shop.folder / "mqkit.db"):
        assert web.ask("POST", "/orders", ORDER) == (503, AWAY)
    web.order()
    assert "an order could not be published: 1 with unknown outcome" in web.said
    assert web.terminate() == 0


@pytest.mark.own_broker
def test_an_order_is_put_off_while_the_broker_is_away(shop_at: Open, rabbitmq_broker: Broker) -> None:
    web = shop_at(rabbitmq_broker.url).start(*GUNICORN)
    web.order()
    with rabbitmq_broker.stopped():
        assert web.ask("POST", "/orders", ORDER) == (503, AWAY)
    eventually(lambda: web.ask("POST", "/orders", ORDER)[0] == 202, "orders are taken again", shown=lambda: web.said)
    assert web.terminate() == 0


def packs(shop: Shop) -> None:
    """FastAPI takes an order and packs it, in one process; it is healthy, and stops in good order."""
    web = shop.start(*UVICORN)
    large, small = web.order({"customer": "00007", "cds": 5}), web.order({"customer": "00004", "cds": 1})

    def parcel(id: str) -> object:
        status, answer = web.ask("GET", f"/orders/{id}")
        return answer if status == 200 else None

    assert eventually(lambda: parcel(large), "packed") == {"customer": "00007", "size": "box"}
    assert eventually(lambda: parcel(small), "packed") == {"customer": "00004", "size": "letter"}
    status, health = web.ask("GET", "/health")
    assert status == 200, web.said
    assert health["broker"].startswith(("SQLite", "RabbitMQ", "Kafka"))
    eventually(lambda: web.ask("GET", "/health")[1]["waiting"] in (0, None), "nothing waits")
    assert web.ask("GET", "/orders/unknown")[0] == 404
    assert web.ask("POST", "/orders", {"customer": "00004", "cds": 0})[0] == 422
    # uvicorn sends itself the signal again when all is done
    assert web.terminate() == -signal.SIGTERM
    assert "Application shutdown complete" in web.said


def test_fastapi_publishes_and_handles(sqlite_shop: Shop) -> None:
    packs(sqlite_shop)


def test_fastapi_on_rabbitmq(shop_at: Open, rabbitmq_broker: Broker) -> None:
    packs(shop_at(rabbitmq_broker.url))


def test_fastapi_on_kafka(shop_at: Open, kafka_broker: Broker) -> None:
    packs(shop_at(kafka_broker.url))


@pytest.mark.own_broker
def test_fastapi_is_not_healthy_while_the_broker_is_away(shop_at: Open, rabbitmq_broker: Broker) -> None:
    web = shop_at(rabbitmq_broker.url).start(*UVICORN)
    assert web.ask("GET", "/health")[0] == 200
    with rabbitmq_broker.stopped():
        assert web.ask("GET", "/health") == (503, AWAY)
        assert web.ask("POST", "/orders", {"customer": "00004", "cds": 1}) == (503, AWAY)
    eventually(lambda: web.ask("GET", "/health")[0] == 200, "healthy again", shown=lambda: web.said)
    assert web.terminate() == -signal.SIGTERM
