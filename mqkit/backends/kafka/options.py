"""What a user can set for Kafka alone: `KafkaTopic` on a Topic, and the query of the URL. Pure.

Nothing here imports the driver; what the settings become for librdkafka is `client_config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

from mqkit.durations import Duration, seconds
from mqkit.errors import ConfigurationError
from mqkit.registry import split_url

DRIVER = "rdkafka."
"""Query options that begin with this are librdkafka's own, said as it says them."""
OURS = frozenset(
    {
        "acks",
        "allow.auto.create.topics",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "group.protocol",
        "request.required.acks",
        "sasl.password",
        "sasl.username",
        "transactional.id",
    }
)
"""librdkafka's settings on which mqkit's promises stand."""

Protocol: TypeAlias = Literal["classic", "consumer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTopic:
    """How a topic is made on Kafka. What is None is left to the broker, and not compared with what exists.

    Args:
        partitions: how many ways its messages can be worked on with order by key.
        replication: on how many brokers each message lies.
        retention: how long the broker keeps messages, handled or not: seconds or a timedelta; -1 for ever.
        max_message_bytes: the largest message that the broker takes, its headers included.
        config: more of Kafka's own topic settings, such as `{"min.insync.replicas": "2"}`.

    Raises:
        ConfigurationError: a value that no Kafka takes.
    """

    partitions: int | None = None
    replication: int | None = None
    retention: Duration | None = None
    max_message_bytes: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("partitions", "replication", "max_message_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"KafkaTopic({name}={value}): it must be at least 1")
        self.settings()

    def settings(self) -> dict[str, str]:
        """The topic's settings in Kafka's words."""
        settings = {name: str(value) for name, value in self.config.items()}
        if self.retention is not None:
            settings["retention.ms"] = _milliseconds(self.retention)
        if self.max_message_bytes is not None:
            settings["max.message.bytes"] = str(self.max_message_bytes)
        return settings


def _milliseconds(retention: Duration) -> str:
    if retention == -1:
        return "-1"
    try:
        return f"{seconds(retention, option='retention') * 1000:.0f}"
    except ValueError as error:
        raise ConfigurationError(f"KafkaTopic: {error}, or -1 for ever") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a URL says."""

    servers: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    security: str | None = None
    mechanism: str | None = None
    ca: str | None = None
    client_id: str = "mqkit"
    partitions: int | None = None
    replication: int | None = None
    protocol: Protocol = "classic"
    commit_interval: float = 0.1
    rdkafka: Mapping[str, str] = field(default_factory=dict, repr=False)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text.lower()

    return parse


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def _interval(text: str) -> float:
    try:
        return seconds(float(text), option="it")
    except ValueError:
        raise ValueError("a number of seconds") from None


def _text(text: str) -> str:
    if not text:
        raise ValueError("some text")
    return text


OPTIONS: Mapping[str, Callable[[str], object]] = {
    "ca": _text,
    "client_id": _text,
    "commit_interval": _interval,
    "mechanism": _text,
    "partitions": _positive,
    "protocol": _one_of("classic", "consumer"),
    "replication": _positive,
    "security": _one_of("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"),
}
"""The query options of the URL, and what reads each."""


def parse_url(url: str) -> Settings:
    """What `kafka://user:password@host1:9092,host2:9092/?option=value` says.

    Raises:
        ConfigurationError: it makes no sense; names the part, and the options that there are.
    """
    parts = split_url(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    if parts.path not in {"", "/"} or parts.fragment:
        raise ConfigurationError(
            f"the Kafka URL has {parts.path or '#' + parts.fragment!r} behind the hosts: remove it, or, if it "
            f"belongs to the password, write / as %2F and # as %23"
        )
    found: dict[str, object] = {}
    rdkafka: dict[str, str] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name.startswith(DRIVER):
            rdkafka[_passed_through(name.removeprefix(DRIVER))] = text
        elif name in OPTIONS:
            try:
                found[name] = OPTIONS[name](text)
            except ValueError as error:
                raise ConfigurationError(f"the Kafka URL's option {name}={text!r} must be {error}") from None
        else:
            raise ConfigurationError(
                f"the Kafka URL's option {name!r} is unknown; there is {', '.join(sorted(OPTIONS))}, "
                f"and {DRIVER}NAME for librdkafka's own settings"
            )
    if credentials:
        username, _, password = credentials.partition(":")
        found |= {"username": unquote(username), "password": unquote(password)}
    return Settings(servers=_servers(hosts), rdkafka=rdkafka, **found)  # type: ignore[arg-type]  # typed by OPTIONS


def _servers(hosts: str) -> str:
    servers = []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not colon:
            name, port = host, "9092"
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigurationError(
                f"{host!r} in the Kafka URL is not HOST or HOST:PORT: write kafka://host1:9092,host2:9092/"
            )
        servers.append(f"{name}:{port}")
    return ",".join(servers)


def _passed_through(name: str) -> str:
    if name in OURS:
        raise ConfigurationError(
            f"the Kafka URL's option {DRIVER + name!r} is not yours to set: mqkit's promises stand on it"
        )
    return name


def client_config(settings: Settings) -> dict[str, object]:
    """What every client of librdkafka gets. None makes a topic by asking for it or by sending to it, as brokers let
    clients do by default: it would have the broker's own settings, and no group.
    """
    config: dict[str, object] = {
        "allow.auto.create.topics": False,
        "bootstrap.servers": settings.servers,
        "client.id": settings.client_id,
    }
    security = settings.security
    if settings.username is not None:
        config |= {"sasl.username": settings.username, "sasl.password": settings.password or ""}
        config["sasl.mechanism"] = settings.mechanism or "PLAIN"
        security = security or "sasl_plaintext"
    elif settings.mechanism is not None:
        config["sasl.mechanism"] = settings.mechanism
    if security is not None:
        config["security.protocol"] = security
    if settings.ca is not None:
        config["ssl.ca.location"] = settings.ca
    return config
