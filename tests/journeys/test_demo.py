"""The demo as a user runs it, on every broker: its books balance, and it would say so if they did not."""

import asyncio
import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples.shop.books import Books
from examples.shop.ledger import Ledger
from examples.shop.model import Purchase, purchases_on_file
from examples.shop.old_till import BODIES
from mqkit import DeadLetter
from tests.brokers import Broker

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds: what the demo promises to stay below."""


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.shop.demo", *arguments]
    plain = os.environ | {"COLUMNS": "100", "FORCE_COLOR": ""}
    return subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=LIMIT, check=False)


def tables(output: str) -> list[dict[str, int]]:
    """The rows of each table of the books that have a number."""
    books = output.split("The books of billing")[1:]
    rows = [re.findall(r"^│ ([a-z-]+) +│ +([\d,]+) │", part, re.MULTILINE) for part in books]
    return [{name: int(number.replace(",", "")) for name, number in found} for found in rows]


def check(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with (ROOT / "examples/data/purchases.csv").open() as file:
        on_file = list(csv.DictReader(file))
    total = sum(Decimal(row["dollars"]) for row in on_file)
    large = sum(int(row["cds"]) > 10 for row in on_file)
    broken = len(BODIES)
    first, second = tables(ended.stdout)
    assert first == {
        "published": len(on_file) + broken,
        "handled": len(on_file) - large,
        "retried": 2 * large + len(on_file) // 100 + len(on_file) // 500,
        "dead-lettered": large + broken,
        "lost": 0,
    }
    assert second == first | {"handled": len(on_file), "dead-lettered": broken}
    assert f"{large} exhausted: ValueError" in ended.stdout
    assert "2 undecodable: DecodeError" in ended.stdout
    assert "2 schema: SchemaError" in ended.stdout
    assert f"replayed the other {large + broken - 1} dead letters" in ended.stdout
    customers = len({row["customer"] for row in on_file})
    assert f"The totals of {customers:,} customers agree with the file to the cent: ${total:,}." in ended.stdout
    assert "The books balance." in ended.stdout
    assert ended.stderr == ""


def test_balances_on_sqlite() -> None:
    ended = demo()
    check(ended)
    assert "sqlite:///" in ended.stdout
    assert "two processes" in ended.stdout


def test_balances_in_memory_and_says_that_there_is_one_process() -> None:
    ended = demo("--url", "memory://")
    check(ended)
    assert "one process" in ended.stdout


def test_balances_on_rabbitmq(rabbitmq_broker: Broker) -> None:
    check(demo("--url", rabbitmq_broker.url))


def test_balances_on_kafka(kafka_broker: Broker) -> None:
    check(demo("--url", kafka_broker.url))


def test_balances_again_on_a_broker_that_it_used_before(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    check(demo("--url", url))
    check(demo("--url", url))


def test_says_in_one_line_that_the_broker_is_not_there() -> None:
    ended = demo("--url", "kafka://127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stderr.startswith("ConnectionLost: ")
    assert ended.stderr.count("\n") == 1


def test_ctrl_c_ends_it_and_its_services_without_a_traceback() -> None:
    command = [sys.executable, "-u", "-m", "examples.shop.demo"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("storefront publishes") for line in process.stdout)  # so billing is at work
        process.send_signal(signal.SIGINT)
        # the pipe ends when the last process that holds it does, so this waits for the services too
        rest, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert "Traceback" not in rest


def letter(body: bytes) -> DeadLetter:
    text = dict.fromkeys(DeadLetter.__slots__, "") | {"id": body.hex(), "attempts": 0, "headers": {}, "body": body}
    fields: dict[str, Any] = dict(text)
    return DeadLetter(**fields)


BROKEN = [letter(body) for body in BODIES]


class OnlyBroken:
    """Dead letters as they should be at the end."""

    async def list(self, limit: int) -> list[DeadLetter]:
        return BROKEN[:limit]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """Books with a ledger in which all is as it should be."""
    letters: Any = OnlyBroken()
    with Books(tmp_path / "ledger.db", letters, Console(file=StringIO(), record=True, width=100)) as books:
        books.ledger.db.execute("BEGIN")
        for purchase in purchases_on_file():
            books.ledger.enter(purchase, "box")
        books.ledger.db.execute("COMMIT")
        yield books


def test_books_balance_when_every_purchase_is_billed_once(books: Books) -> None:
    assert books.compare()
    assert books.complete(BROKEN)


def test_books_do_not_balance_without_one_purchase(books: Books) -> None:
    books.ledger.db.execute("DELETE FROM billed WHERE purchase = 4000")
    assert not books.compare()
    assert not books.complete(BROKEN)


@pytest.mark.parametrize("lost", [0, 3])
def test_books_name_what_is_neither_billed_nor_dead(books: Books, lost: int) -> None:
    books.ledger.db.execute("DELETE FROM billed WHERE purchase <= ?", (lost,))
    asyncio.run(books.show("The books of billing"))
    (rows,) = tables(books.console.export_text())
    assert rows["lost"] == lost


def test_books_do_not_balance_when_a_cent_is_missing(books: Books) -> None:
    books.ledger.db.execute("UPDATE billed SET dollars = '11.76' WHERE purchase = 1")
    assert not books.compare()


def test_books_do_not_balance_when_a_purchase_is_still_dead(books: Books) -> None:
    assert not books.complete([*BROKEN, letter(b"{}")])


def test_a_purchase_that_comes_twice_is_entered_once(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.db"))
    twice = Purchase(number=1, customer="00001", cds=1, dollars=Decimal("11.77"))
    ledger.enter(twice, "letter")
    ledger.enter(twice, "letter")
    assert (len(ledger), ledger.totals()) == (1, {"00001": Decimal("11.77")})
    ledger.close()
