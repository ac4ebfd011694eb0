"""RabbitMQ's management API, for what tests do to a broker. `rabbitmqctl` takes more than a second of CPU each time."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.brokers import Broker

TIMEOUT = 30.0
"""Seconds for one request."""


def ask(broker: Broker, method: str, *path: str, query: str = "", body: Mapping[str, Any] | None = None) -> Any:
    """What the API answers: JSON, or None where it has nothing to say.

    Args:
        path: the parts of it, below /api, as they are called.

    Raises:
        OSError: it refused, or was not reached.
    """
    if not broker.management_url:
        pytest.skip("needs a broker whose management API is known: name it in the URL, as ?management=http://...")
    url = urlsplit(broker.management_url)
    where = f"http://{url.hostname}:{url.port}/api/{'/'.join(quote(part, safe='') for part in path)}"
    request = Request(f"{where}?{query}" if query else where, method=method)
    request.add_header("Authorization", f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=TIMEOUT) as answer:
        text = bytes(answer.read())
    return json.loads(text) if text else None


@contextmanager
def policy(broker: Broker, name: str, pattern: str, **definition: object) -> Iterator[None]:
    """Within the block the queues whose names match `pattern` have this policy."""
    path = ("policies", "/", name)
    ask(broker, "PUT", *path, body={"pattern": pattern, "definition": definition, "apply-to": "queues"})
    try:
        yield
    finally:
        ask(broker, "DELETE", *path)


@contextmanager
def virtual_host(broker: Broker, name: str) -> Iterator[None]:
    """Within the block there is a virtual host of this name, for guest to use."""
    ask(broker, "PUT", "vhosts", name, body={})
    try:
        ask(broker, "PUT", "permissions", name, "guest", body={"configure": ".*", "write": ".*", "read": ".*"})
        yield
    finally:
        ask(broker, "DELETE", "vhosts", name)
