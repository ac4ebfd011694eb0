"""What policies of the broker would do to what waits, and to what is dead."""

from typing import Any

import pytest

from mqkit.backends.rabbitmq.policies import dangers, policies
from mqkit.backends.rabbitmq.topology import Queue, wanted
from mqkit.topology import TopicNeed, Topology

WANTED = wanted(Topology((TopicNeed("orders", frozenset({"billing"})),)))
QUEUES = {queue.name: queue for queue in (*WANTED.queues, *WANTED.later)}
GROUP, DEAD = QUEUES["orders.billing"], QUEUES["orders.billing.dlq"]
RETRY, NOTES = QUEUES["orders.billing.retry.60000ms"], QUEUES["orders.billing.retry.notes"]


def policy(pattern: str = "", priority: int = 0, name: str = "tidy", **definition: Any) -> dict[str, Any]:
    settings = {setting.replace("_", "-"): value for setting, value in definition.items()}
    return {"name": name, "pattern": pattern, "apply-to": "queues", "priority": priority, "definition": settings}


def told(queue: Queue, *found: dict[str, Any], operator: bool = False) -> str:
    return " / ".join(dangers(queue, policies(found, operator=operator)))


@pytest.mark.parametrize(
    ("queue", "definition", "text"),
    [
        (DEAD, {"message_ttl": 5000}, "discards what lies there for 5 s (message-ttl 5000)"),
        (NOTES, {"message_ttl": 5000}, "discards what lies there for 5 s"),
        (GROUP, {"message_ttl": 5000}, "makes a dead letter of what waits for 5 s, unhandled"),
        (RETRY, {"message_ttl": 5000}, "ends the wait of a retry or delay of 60 s after 5 s"),
        (RETRY, {"message_ttl": 60_000}, ""),
        (
            RETRY,
            {"expires": 1_800_000},
            "deletes the queue, with all that is in it, when nobody has read from it for 1800 s",
        ),
        (DEAD, {"expires": 1000}, "deletes the queue"),
        (DEAD, {"max_length": 1000}, "lets no more be stored beyond 1,000"),
        (RETRY, {"max_length_bytes": 1000}, "lets no more be stored beyond 1,000"),
        (GROUP, {"max_length": 1000}, ""),
        (GROUP, {"delivery_limit": 5}, "makes a dead letter of what was given back 5 times"),
        (DEAD, {"delivery_limit": 5}, "discards what was given back 5 times"),
        (DEAD, {"delivery_limit": -1, "dead_letter_strategy": 1}, ""),
    ],
)
def test_what_a_policy_does_to_a_queue(queue: Queue, definition: dict[str, Any], text: str) -> None:
    found = told(queue, policy(**definition))
    assert text in found
    assert bool(found) is bool(text)
    if text:
        assert found.startswith(f"queue {queue.name}: the policy 'tidy' ")
        assert "change its pattern, ''" in found
        assert "the operator policy 'tidy'" in told(queue, policy(**definition), operator=True)


def test_of_each_kind_the_policy_of_the_highest_priority_counts_where_its_pattern_fits() -> None:
    both = told(DEAD, policy("^orders", 1, message_ttl=1), policy("dlq$", 5, "later", max_length=3))
    assert "'later'" in both
    assert "'tidy'" not in both
    assert not told(DEAD, policy("^shipping", message_ttl=1))
    assert told(DEAD, policy("(?<odd", message_ttl=1)), "what cannot be understood is told"


@pytest.mark.parametrize("kind", ["exchanges", "streams", "classic_queues"])
def test_policies_for_other_things_do_nothing(kind: str) -> None:
    assert not told(DEAD, policy(message_ttl=1) | {"apply-to": kind})


def test_a_policy_for_each_queue_that_mqkit_makes_is_told_of_each() -> None:
    for queue in QUEUES.values():
        assert told(queue, policy(expires=1000))
