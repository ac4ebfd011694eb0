"""What RabbitMQ alone knows: the options of its URL, and of a topic. Pure."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode

from mqkit.errors import ConfigurationError
from mqkit.registry import masked, split_url

Auth: TypeAlias = Literal["plain", "external"]
ExchangeType: TypeAlias = Literal["fanout", "topic", "direct", "headers"]

MAX_MESSAGE_BYTES = 16_777_216
"""RabbitMQ 4's own default limit. AMQP has no way to ask for the one that is configured."""
PORTS = {"amqp": 5672, "amqps": 5671}
TLS_OPTIONS = frozenset({"cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"})
OPTIONS = TLS_OPTIONS | {"auth", "name", "connection_timeout", "heartbeat", "management", "max_message_bytes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitTopic:
    """How a topic is kept in RabbitMQ: `Topic("purchases", Purchase, options=[RabbitTopic(...)])`.

    Raises:
        ConfigurationError: an option makes no sense.
    """

    exchange: str | None = None
    """The exchange of the topic, where it is not called like the topic: one of an existing system."""
    exchange_type: ExchangeType = "fanout"
    binding_keys: tuple[str, ...] = ("#",)
    """What a group's queue is bound with, where the exchange is not a fanout. `#`: everything of a topic exchange."""
    quorum_group_size: int | None = None
    """On how many nodes each queue is kept; RabbitMQ's default is three, or as many as there are."""
    delivery_limit: int | None = None
    """After how many failed deliveries RabbitMQ itself puts a message among the dead letters. None: never; mqkit
    counts, and says why in the dead letter."""

    def __post_init__(self) -> None:
        for name in ("quorum_group_size", "delivery_limit"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ConfigurationError(f"RabbitTopic({name}={number}): give at least 1, or None")
        if self.exchange == "":
            raise ConfigurationError("RabbitTopic(exchange=''): the default exchange cannot be a topic's")
        if self.exchange_type != "fanout" and not self.binding_keys:
            raise ConfigurationError("RabbitTopic(binding_keys=()): without a binding key no group would get a message")

    @property
    def keys(self) -> tuple[str, ...]:
        """What queues are bound with."""
        return ("",) if self.exchange_type == "fanout" else self.binding_keys


def topic_options(options: tuple[object, ...]) -> RabbitTopic:
    """The one that is ours among a topic's options, or the defaults."""
    return next((option for option in options if isinstance(option, RabbitTopic)), RabbitTopic())


@dataclass(frozen=True, slots=True)
class RabbitUrl:
    """A RabbitMQ URL, read."""

    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    heartbeat: int = 20
    """Seconds."""
    connection_timeout: float = 10.0
    """Seconds, for each connection that a session needs."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    management: str | None = field(default=None, repr=False)
    """Of the management API, with its credentials; None: guessed from host and credentials."""
    auth: Auth = "plain"
    name: str | None = None
    """Of the connection, for who looks at the broker."""
    tls: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def amqp(self) -> str:
        """For aiormq, which knows a few of the options."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        named = () if self.name is None else (("name", self.name),)
        query = urlencode((("heartbeat", str(self.heartbeat)), ("auth", self.auth), *named))
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}@{host}:{self.port}/{quote(self.vhost, safe='')}?{query}"

    @property
    def where(self) -> str:
        """Host and port, for errors."""
        return f"{self.host}:{self.port}"


def parse_url(url: str) -> RabbitUrl:
    """`url`, read.

    Raises:
        ConfigurationError: it makes no sense; the text says where.
    """
    parts = split_url(url)
    if "," in parts.netloc.rpartition("@")[2]:
        raise ConfigurationError(
            f"{masked(url)}: a RabbitMQ URL names one host: give a cluster a name or a load balancer"
        )
    try:
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{masked(url)}: a port is a number from 1 to 65535") from None
    shown = masked(url)
    if parts.scheme not in PORTS:
        raise ConfigurationError(f"{shown}: a RabbitMQ URL begins with amqp:// or amqps://")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(query.keys() - OPTIONS):
        raise ConfigurationError(f"{shown}: unknown option {unknown[0]!r}; RabbitMQ's are {', '.join(sorted(OPTIONS))}")
    if parts.path.count("/") > 1:
        raise ConfigurationError(f"{shown}: write a virtual host that holds a slash with %2F, as in /team%2Fa")
    return RabbitUrl(
        parts.scheme,
        parts.hostname or "localhost",
        port or PORTS[parts.scheme],
        unquote(parts.username) if parts.username else "guest",
        unquote(parts.password) if parts.password else "guest",
        unquote(parts.path[1:]) or "/",
        heartbeat=int(_number(query, "heartbeat", 20, 0, 65_534, shown)),
        connection_timeout=_number(query, "connection_timeout", 10.0, 0.001, 86_400, shown),
        max_message_bytes=int(_number(query, "max_message_bytes", MAX_MESSAGE_BYTES, 1, 2**63, shown)),
        management=_management(query, parts),
        auth=_auth(query, shown),
        name=query.get("name"),
        tls=tuple((name, value) for name, value in query.items() if name in TLS_OPTIONS),
    )


def _number(query: dict[str, str], name: str, default: float, least: float, most: float, shown: str) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ConfigurationError(f"{shown}: {name} is a number from {least:g} to {most:g}, not {text!r}")
    return number


def _auth(query: dict[str, str], shown: str) -> Auth:
    match query.get("auth", "plain").lower():
        case "plain" | "external" as known:
            return known
        case other:
            raise ConfigurationError(f"{shown}: auth is plain or external, not {other!r}")


def _management(query: dict[str, str], parts: SplitResult) -> str | None:
    url = query.get("management")
    if url is None:
        return None
    try:
        management = split_url(url)
        valid = management.scheme in {"http", "https"} and management.hostname and management.port != 0
    except (ValueError, ConfigurationError):
        management = None
        valid = False
    if management is None or not valid:
        raise ConfigurationError(
            f"the option management of the RabbitMQ URL for {parts.hostname} is the URL of the management API, "
            f"as in management=http://guest:guest@localhost:15672; write special characters of its password as %2F for "
            f"a slash and the like, and then all % as %25"
        )
    if parts.scheme == "amqps" and management.scheme == "http" and not management.password:
        raise ConfigurationError(
            f"the option management of the RabbitMQ URL for {parts.hostname} would send the password of amqps:// in "
            f"clear: write https://, or name in it a user and a password that may be read on the way"
        )
    return url.rstrip("/")
