"""The brokers that a run measures on: the user's, or ones of its own that are gone when it ends. Warmed up, either way.

On RabbitMQ everybody works in a virtual host whose queues are quorum queues by default: dramatiq cannot ask for one.
"""

import json
import secrets
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit, urlunsplit

from mqkit.bench.orders import made_up, numbered
from tests.bench.contenders import plain_kafka, plain_rabbitmq
from tests.bench.place import Place

VHOST = "bench"
WARM_UP = 30_000
Report = Callable[[str], None]


@contextmanager
def brokers(names: set[str], given: dict[str, str], report: Report) -> Iterator[dict[str, str]]:
    """Broker -> URL."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "testcontainers"))
    import broker_containers

    urls: dict[str, str] = {}
    with ExitStack() as stack:
        for name in sorted(names):
            match name:
                case "memory":
                    urls[name] = "memory://"
                case "sqlite":
                    urls[name] = f"sqlite:///{stack.enter_context(TemporaryDirectory())}/bench.db"
                case "rabbitmq":
                    report("" if name in given else "starting a RabbitMQ of this run's own")
                    url = given.get(name) or stack.enter_context(broker_containers.rabbitmq()).url
                    urls[name] = _own_vhost(url)
                    _warm(Place(name, urls[name], f"bench-warm-{secrets.token_hex(3)}"))
                case "kafka":
                    report("" if name in given else "starting a Kafka of this run's own")
                    urls[name] = given.get(name) or stack.enter_context(broker_containers.kafka()).url
                    _warm(Place(name, urls[name], f"bench-warm-{secrets.token_hex(3)}"))
        yield urls


def _own_vhost(url: str) -> str:
    """`url` with a virtual host for the run, where the management API can make one; else as it is."""
    parts = urlsplit(url)
    management = parse_qs(parts.query).get("management", [""])[0]
    if not management:
        return url
    api = urlsplit(management)
    credentials = b64encode(f"{api.username}:{api.password}".encode()).decode()
    request = urllib.request.Request(
        f"{api.scheme}://{api.hostname}:{api.port}/api/vhosts/{VHOST}",
        data=json.dumps({"default_queue_type": "quorum"}).encode(),
        headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10):
        return urlunsplit(parts._replace(path=f"/{VHOST}"))


def _warm(place: Place) -> None:
    """A broker that was just started is several times slower at first."""
    plain = plain_kafka if place.broker == "kafka" else plain_rabbitmq
    plain.fill(place, numbered(made_up(), WARM_UP, 200))
    plain.remove(place)
