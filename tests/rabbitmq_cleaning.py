"""Removing what a test left on RabbitMQ: a broker that keeps thousands of quorum queues is busy with them alone."""

import json
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from tests.brokers import Broker

TIMEOUT = 30.0


def remove_topics(broker: Broker, topics: Iterable[str]) -> None:
    """Delete the queues and exchanges of these topics, and of their groups. What stays is no failure of a test."""
    if not broker.management_url:
        return  # a broker that the user named, and without it nobody can tell what there is
    for topic in topics:
        for kind in ("queues", "exchanges"):
            with suppress(OSError):
                for name in _names(broker, kind, topic):
                    with suppress(OSError):
                        _ask(broker, "DELETE", f"{kind}/%2F/{quote(name, safe='')}")


def _names(broker: Broker, kind: str, topic: str) -> list[str]:
    """What belongs to a topic: its name begins with the topic's, or the topic is named behind a colon."""
    # pages count from 1; disable_stats spares the broker what would take longest
    query = f"page=1&page_size=500&name={topic}&columns=name&disable_stats=true"
    found = json.loads(_ask(broker, "GET", f"{kind}/%2F?{query}"))
    names = [str(item["name"]) for item in found["items"]]
    return [name for name in names if name == topic or f"{name}.".rpartition(":")[2].startswith(f"{topic}.")]


def _ask(broker: Broker, method: str, path: str) -> bytes:
    url = urlsplit(broker.management_url)
    request = Request(f"http://{url.hostname}:{url.port}/api/{path}", method=method)
    request.add_header("Authorization", f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}")
    with urlopen(request, timeout=TIMEOUT) as answer:
        return bytes(answer.read())
