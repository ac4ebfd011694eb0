"""`mqkit bench`, as a user types it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from mqkit import App, Topic
from mqkit.bench.trial import CASES
from tests.brokers import Broker
from tests.command_line import CommandLine
from tests.rabbitmq_api import ask, virtual_host

QUICK = ("--seconds", "0.2", "--size", "200")


@pytest.fixture
def mqkit(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def cases(text: str) -> dict[str, dict[str, Any]]:
    return {case["case"]: case for case in json.loads(text)["cases"]}


def test_it_measures_and_the_books_balance(mqkit: CommandLine) -> None:
    found = mqkit("bench", "memory://", *QUICK)
    lines = found.out.splitlines()
    assert lines[0].startswith("memory broker at memory://")
    assert len(lines) == 2 + len(CASES)
    assert all(line.endswith("balance") for line in lines[2:])
    assert "calibration loop" in found.err


def test_json_has_every_figure(mqkit: CommandLine) -> None:
    told = json.loads(mqkit("bench", "memory://", *QUICK, "--json").out)
    assert told["broker"] == "memory broker"
    assert len(told["calibration"]) == 2
    assert 0 <= told["steal"] <= 1
    found = {case["case"]: case for case in told["cases"]}
    assert tuple(found) == CASES
    for case in found.values():
        assert case["problem"] == ""
        assert case["messages"] > 0
        assert case["rate"] == pytest.approx(case["messages"] / case["seconds"])
    assert 0 < found["latency"]["p50"] <= found["latency"]["p99"]


def test_both_sizes_are_measured_unless_one_is_asked_for(mqkit: CommandLine) -> None:
    told = json.loads(mqkit("bench", "memory://", "--seconds", "0.1", "--json").out)
    assert [case["size"] for case in told["cases"]] == [200] * len(CASES) + [4096] * len(CASES)


def test_nothing_stays_in_a_file_of_the_user(mqkit: CommandLine) -> None:
    mqkit("bench", "sqlite:///mine.db", *QUICK)
    with closing(sqlite3.connect(mqkit.cwd / "mine.db")) as database:
        for table in ("topic", "topic_group", "delivery", "message"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_rabbitmq_has_afterwards_what_it_had_before(mqkit: CommandLine, rabbitmq_broker: Broker) -> None:
    """In a virtual host of its own, where mqkit never was, and in one that another topic shares with it."""
    vhost = f"bench-{uuid4().hex}"

    def there() -> dict[str, list[str]]:
        """Names of all that is there."""
        facts = {"queues": ("name",), "exchanges": ("name",), "bindings": ("source", "destination", "routing_key")}
        return {
            kind: sorted(" ".join(map(item.get, names)) for item in ask(rabbitmq_broker, "GET", kind, vhost))
            for kind, names in facts.items()
        }

    url = urlsplit(rabbitmq_broker.url)._replace(path=f"/{vhost}", query="").geturl()
    with virtual_host(rabbitmq_broker, vhost):
        for declared in ("", "orders"):
            if declared:
                with App(url) as app:
                    app.publish(Topic(declared, dict, groups=["billing"]), {})
            before = there()
            assert any("mqkit." in line for line in before["queues"]) is bool(declared)
            found = mqkit("bench", url, *QUICK, "--json")
            assert all(case["problem"] == "" for case in cases(found.out).values())
            assert there() == before


def test_nothing_stays_in_kafka(mqkit: CommandLine, kafka_broker: Broker) -> None:
    from confluent_kafka.admin import AdminClient

    found = mqkit("bench", kafka_broker.url, *QUICK, "--json")
    assert all(case["problem"] == "" for case in cases(found.out).values())
    admin = AdminClient({"bootstrap.servers": kafka_broker.url.removeprefix("kafka://")})
    assert not [name for name in admin.list_topics(timeout=10).topics if name.startswith("mqkit-bench")]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("amqp://guest:guest@127.0.0.1:1/",), "start the broker", 1),
        (("pigeon://loft",), "pigeon", 1),
        (("memory://", "--url", "memory://"), "named twice", 2),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    mqkit: CommandLine, arguments: tuple[str, ...], said: str, code: int
) -> None:
    assert said in mqkit.refused("bench", *arguments, code=code)
