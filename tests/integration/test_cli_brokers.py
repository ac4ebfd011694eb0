"""The command line on real brokers: a message's whole way, and what a server's topology can be."""

import json
import signal
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.brokers import Broker
from tests.command_line import CommandLine, interrupt, until

SHOP = """
from mqkit import AsyncApp, Reject, Topic
from mqkit.backends.kafka import KafkaTopic
from mqkit.backends.rabbitmq import RabbitTopic

purchases = Topic("{topic}", dict[str, str], key="customer", options=[{options}])
app = AsyncApp()

@app.subscribe(purchases, group="billing")
async def bill(purchase: dict[str, str]) -> None:
    raise Reject("no " + purchase["customer"])
"""


@pytest.fixture(params=["rabbitmq", "kafka"])
def url(request: pytest.FixtureRequest) -> str:
    broker: Broker = request.getfixturevalue(f"{request.param}_broker")
    return broker.url


@pytest.fixture
def topic() -> str:
    return f"cli-{uuid4().hex[:8]}"


@pytest.fixture
def mqkit(tmp_path: Path, url: str, topic: str) -> CommandLine:
    (tmp_path / "shop.py").write_text(SHOP.format(topic=topic, options=""))
    return CommandLine(tmp_path, {"MQKIT_URL": url})


def dead(mqkit: CommandLine, topic: str) -> list[str]:
    return [letter["key"] for letter in json.loads(mqkit("dlq", "list", topic, "billing", "--json").out)]


def test_a_message_goes_its_whole_way(mqkit: CommandLine, topic: str) -> None:
    mqkit("topology", "plan", "shop", code=2)
    assert mqkit("topology", "apply", "shop").out.count(f"{topic}.billing.retry.60000ms") == 1
    assert mqkit("topology", "plan", "shop").out.endswith("nothing to do\n")
    assert mqkit("doctor", "shop").out.endswith("all is well\n")
    with mqkit.started("tail", topic, "--json", "--count", "3", "--timeout", "60") as tail:
        until(tail.stderr, "following")
        lines = "\n".join(json.dumps({"customer": name}) for name in ("ann", "bob", "cid"))
        mqkit("publish", topic, "--app", "shop", stdin=lines)
        assert tail.stdout is not None
        assert sorted(json.loads(line)["key"] for line in tail.stdout) == ["ann", "bob", "cid"]
        assert tail.wait() == 0
    with mqkit.started("run", "shop", "--json") as worker:
        for _ in range(3):
            until(worker.stderr, "dead-letter")
        assert interrupt(worker, signal.SIGTERM) == 0
    assert sorted(dead(mqkit, topic)) == ["ann", "bob", "cid"]

    mqkit("dlq", "replay", topic, "billing", "--key", "ann")
    assert sorted(dead(mqkit, topic)) == ["bob", "cid"]
    mqkit("dlq", "purge", topic, "billing", "--key", "bob", "--yes")
    assert dead(mqkit, topic) == ["cid"]
    with mqkit.started("run", "shop", "--json") as worker:
        until(worker.stderr, "dead-letter")
        assert interrupt(worker, signal.SIGTERM) == 0
    assert sorted(dead(mqkit, topic)) == ["ann", "cid"]
    (found,) = json.loads(mqkit("inspect", topic, "billing", "--json").out)
    assert (found["topic"], found["group"], found["dead"]) == (topic, "billing", 2)


def test_a_topology_with_other_settings_is_told_and_left_alone(mqkit: CommandLine, topic: str, url: str) -> None:
    mqkit("topology", "apply", "shop")
    kafka = url.startswith("kafka")
    options = "KafkaTopic(partitions=7)" if kafka else 'RabbitTopic(exchange_type="topic")'
    (mqkit.cwd / "other.py").write_text(SHOP.format(topic=topic, options=options))
    plan = mqkit("topology", "plan", "other", "--json", code=3)
    assert "differs" in {finding["state"] for finding in json.loads(plan.out)["findings"]}
    assert ("wanted 7" if kafka else "wanted topic") in mqkit("topology", "apply", "other", code=3).out
    assert "✗" in mqkit("doctor", "other", code=1).out
    assert mqkit("topology", "plan", "shop").out.endswith("nothing to do\n")


def test_what_is_made_on_demand_is_told_apart_from_what_is_missing(
    tmp_path: Path, topic: str, rabbitmq_broker: Broker
) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(topic=topic, options=""))
    mqkit = CommandLine(tmp_path, {"MQKIT_URL": rabbitmq_broker.url})
    mqkit("publish", topic, "{}", "--group", "billing")
    plan = mqkit("topology", "plan", "shop").out
    assert plan.count("when needed") == 7
    assert plan.endswith("7 are made when an app first needs them, or by mqkit topology apply shop\nnothing to do\n")
    assert "0 missing, 7 made when needed, 0 with other settings" in mqkit("doctor", "shop").out
    (tmp_path / "mqkit.toml").write_text("declare = false\n")
    strict = mqkit("topology", "plan", "shop", code=2).out
    assert strict.endswith("7 to create: mqkit topology apply shop\n")
    assert "7 things are missing" in mqkit("doctor", "shop", code=1).out


def test_what_is_not_there_is_named(mqkit: CommandLine) -> None:
    missing = f"cli-{uuid4().hex[:8]}"
    assert missing in mqkit.refused("tail", missing)
    assert missing in mqkit.refused("inspect", missing, "billing")
    assert missing in mqkit.refused("dlq", "list", missing, "billing")
    assert "--group" in mqkit.refused("publish", missing, "{}")


def test_a_wrong_password_is_explained_and_not_shown(tmp_path: Path, rabbitmq_broker: Broker) -> None:
    there = urlsplit(rabbitmq_broker.url)
    wrong = f"amqp://somebody:wrong-secret@{there.hostname}:{there.port}/"
    sentence = CommandLine(tmp_path).refused("inspect", "--url", wrong)
    assert "check the user, the password" in sentence
    assert "wrong-secret" not in sentence


def test_a_doctor_that_cannot_look_at_policies_and_groups_says_so(tmp_path: Path, rabbitmq_broker: Broker) -> None:
    there = urlsplit(rabbitmq_broker.url)
    blind = there._replace(query="management=http://127.0.0.1:1").geturl()
    topic = f"cli-{uuid4().hex[:8]}"
    (tmp_path / "shop.py").write_text(SHOP.format(topic=topic, options=""))
    mqkit = CommandLine(tmp_path, {"MQKIT_URL": blind})
    mqkit("topology", "apply", "shop")
    (caution,) = json.loads(mqkit("doctor", "shop", "--json").out)["cautions"]
    assert "could not look at policies" in caution
    (caution,) = json.loads(mqkit("doctor", "--json").out)["cautions"]
    assert "could not look at which groups there are" in caution
    assert "could not look at which groups there are" in mqkit.refused("inspect")
    (found,) = json.loads(mqkit("inspect", topic, "billing", "--json").out)
    assert found["ready"] == 0
