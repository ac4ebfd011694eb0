"""What only RabbitMQ's management API tells: names, arguments, and what is out. Read-only, standard library, a thread.

An answer of None means that the API could not be asked: it is a plugin, on another port, and may be closed to us.
`unseen` then says why.
"""

import asyncio
import base64
import json
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import (
    BaseHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from mqkit.backends.rabbitmq import tls
from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.backends.rabbitmq.policies import Policy, policies

TIMEOUT = 3.0
PORTS = {"http": 15672, "https": 15671}
LIMIT = 64 * 1024 * 1024


class Management:
    """The management API of the broker at `url`."""

    def __init__(self, url: RabbitUrl) -> None:
        host = f"[{url.host}]" if ":" in url.host else url.host
        scheme = "https" if url.scheme == "amqps" else "http"
        parts = urlsplit(url.management or f"{scheme}://{host}:{PORTS[scheme]}")
        user = unquote(parts.username) if parts.username else url.user
        password = unquote(parts.password) if parts.password else url.password
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}/api/"
        self._vhost = quote(url.vhost, safe="")
        self._url = url
        self._refused: dict[str, str] = {}
        """Why the last question of a kind had no answer, by its kind."""

    def unseen(self, what: str, kind: str) -> str:
        """A sentence: that `what` could not be looked at, since questions of a `kind` had no answer; and what to do."""
        why = self._refused.get(kind, "no answer")
        return (
            f"RabbitMQ at {self._url.where}: could not look at {what}, as its management API at {self._base}{kind} "
            f"gave no answer ({why}): enable the plugin rabbitmq_management, let this user see it (the tag "
            "policymaker), or say where it is by ?management=http://host:port in the URL"
        )

    async def queue(self, name: str) -> dict[str, Any] | None:
        """All about one queue."""
        found = await self._get(f"queues/{self._vhost}/{quote(name, safe='')}")
        return found if isinstance(found, dict) else None

    async def exchange(self, name: str) -> dict[str, Any] | None:
        """All about one exchange."""
        found = await self._get(f"exchanges/{self._vhost}/{quote(name, safe='')}")
        return found if isinstance(found, dict) else None

    async def queues(self) -> dict[str, dict[str, Any]] | None:
        """Name and arguments of all queues, by name."""
        return _by_name(await self._get(f"queues/{self._vhost}?columns=name,arguments&disable_stats=true"))

    async def queues_like(self, part: str) -> frozenset[str] | None:
        """Names of the queues, up to 500, that have `part` in theirs."""
        query = f"page=1&page_size=500&name={quote(part, safe='')}&columns=name&disable_stats=true"
        found = await self._get(f"queues/{self._vhost}?{query}")
        if not isinstance(found, dict):
            return None
        return frozenset(item["name"] for item in found["items"])

    async def exchanges(self) -> dict[str, dict[str, Any]] | None:
        """Name, type and arguments of all exchanges, by name."""
        return _by_name(
            await self._get(f"exchanges/{self._vhost}?columns=name,type,durable,arguments&disable_stats=true")
        )

    async def bindings(self) -> set[tuple[str, str, str, str]] | None:
        """Source, destination, its kind and the routing key of all bindings."""
        found = await self._get(f"bindings/{self._vhost}?columns=source,destination,destination_type,routing_key")
        if not isinstance(found, list):
            return None
        return {(b["source"], b["destination"], b["destination_type"], b["routing_key"]) for b in found}

    async def policies(self) -> list[Policy] | None:
        """All that apply to queues, those of operators too; None also where we may not see them."""
        found: list[Policy] = []
        for kind, operator in (("policies", False), ("operator-policies", True)):
            answer = await self._get(f"{kind}/{self._vhost}")
            if not isinstance(answer, list):
                return None
            found += policies(answer, operator=operator)
        return found

    async def _get(self, path: str) -> object:
        return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> object:
        request = Request(self._base + path, headers={"Authorization": f"Basic {self._login}"})  # noqa: S310 - options.parse_url lets http and https through
        try:
            with self._opener().open(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read(LIMIT))
        except (URLError, HTTPException, OSError, ValueError) as failure:
            self._refused[path.partition("/")[0]] = _reason(failure)
            return None

    def _opener(self) -> OpenerDirector:
        """Goes straight to the API: through no proxy, and to no other place, where the password would be known."""
        handler: BaseHandler = HTTPHandler()
        if self._base.startswith("https:"):
            handler = HTTPSHandler(context=tls.context(self._url))
        opener = OpenerDirector()
        for one in (handler, HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
            opener.add_handler(one)
        return opener


def _reason(failure: Exception) -> str:
    inner = failure.reason if type(failure) is URLError else failure
    return " ".join((str(inner) or type(inner).__name__).split())[:200]


def _by_name(found: object) -> dict[str, dict[str, Any]] | None:
    return {one["name"]: one for one in found} if isinstance(found, list) else None


def groups(queues: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(topic, group) of all that are groups among `queues`: what has a queue for dead letters beside it."""
    pairs = (name.rpartition(".") for name in sorted(queues) if f"{name}.dlq" in queues)
    return [(topic, group) for topic, _, group in pairs if topic]
