"""Removing what a test left on RabbitMQ: a broker that keeps thousands of quorum queues is busy with them alone."""

from collections.abc import Iterable
from contextlib import suppress

from tests.brokers import Broker
from tests.rabbitmq_api import ask


def remove_topics(broker: Broker, topics: Iterable[str]) -> None:
    """Delete the queues and exchanges of these topics, and of their groups. What stays is no failure of a test."""
    if not broker.management_url:
        return  # a broker that the user named, and without it nobody can tell what there is
    for topic in topics:
        for kind in ("queues", "exchanges"):
            with suppress(OSError):
                for name in _names(broker, kind, topic):
                    with suppress(OSError):
                        ask(broker, "DELETE", kind, "/", name)


def _names(broker: Broker, kind: str, topic: str) -> list[str]:
    """What belongs to a topic: its name begins with the topic's, or the topic is named behind a colon."""
    # pages count from 1; disable_stats spares the broker what would take longest
    query = f"page=1&page_size=500&name={topic}&columns=name&disable_stats=true"
    found = ask(broker, "GET", kind, "/", query=query)
    names = [str(item["name"]) for item in found["items"]]
    return [name for name in names if name == topic or f"{name}.".rpartition(":")[2].startswith(f"{topic}.")]
