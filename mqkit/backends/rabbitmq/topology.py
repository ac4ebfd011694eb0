"""What must exist at RabbitMQ for a topology, as data; and what a refusal to declare it says. Pure.

Every queue is a quorum queue whose messages can go nowhere but forward: dead-lettered at-least-once to a queue that
mqkit reads, with overflow reject-publish, so no limit, time to live or policy of the broker drops one. RabbitMQ 4
would drop after 20 deliveries (4.0 counts what is given back, too, as failed): x-delivery-limit is a billion, unless
RabbitTopic sets it, and even then the message lands among the group's dead letters. Not -1, unlimited: with it, 4.0
puts what is given back behind all that waits; with a limit, before it. Notes (notes.py) alone expire.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mqkit.backends.rabbitmq.options import RabbitTopic, topic_options
from mqkit.backends.rabbitmq.places import (
    DELAYED,
    DUE,
    LONGEST_EXCHANGE,
    LONGEST_QUEUE,
    UNCLAIMED,
    delay_exchange,
    due_queue,
    entry_exchange,
    kept_exchange,
    notes_group,
)
from mqkit.errors import ConfigurationError
from mqkit.topology import STEPS, Difference, TopicNeed, Topology, dead_name, group_name, retry_name

Argument: TypeAlias = str | int
NEVER = 1_000_000_000
"""Deliveries: a limit that no message reaches."""
LONGEST_HOLD = 2**31 - 1
"""Milliseconds, 24 days. After 30 minutes, by default, RabbitMQ would end the session of a handler that still runs."""

NOTES_KEPT = 28 * 86_400_000
"""Milliseconds, longer than any message is held: after that a note is dropped that a crash left without its message."""


LONGEST_UNCLAIMED = 60.0
"""Seconds between a look at what was delayed for a topic that is not there, and the next."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange and its arguments."""

    name: str
    type: str = "fanout"
    arguments: tuple[tuple[str, Argument], ...] = ()

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """For people."""
        return (("type", self.type), ("durable", "true"), *((name, _shown(value)) for name, value in self.arguments))


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue and its arguments."""

    name: str
    arguments: tuple[tuple[str, Argument], ...]

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """For people."""
        return tuple((name, _shown(value)) for name, value in self.arguments)


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue or another exchange."""

    exchange: str
    target: str
    kind: Literal["queue", "exchange"]
    key: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.exchange} -> {self.target}" + (f" ({self.key})" if self.key else "")


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that must exist, each once, in the order in which it can be made."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    later: tuple[Queue, ...] = ()
    """What is made when it is first needed: a broker with many groups would pay for them all day."""


def wanted(topology: Topology) -> Wanted:
    """What `topology` needs.

    Raises:
        ConfigurationError: a name that RabbitMQ does not take, or that is kept for mqkit's own.
    """
    exchanges: dict[Exchange, None] = {}
    queues: dict[Queue, None] = {}
    bindings: dict[Binding, None] = {}
    later: dict[Queue, None] = {}
    for need in topology.topics:
        options = topic_options(need.options)
        exchange = options.exchange or need.name
        _check_names(need, exchange)
        if need.steps is not None:
            for group in sorted(need.groups):
                queues |= dict.fromkeys(_retry_queues(need.name, group, sorted(need.steps), options))
            continue
        exchanges[Exchange(exchange, options.exchange_type)] = None
        for group in sorted(need.groups):
            queues |= dict.fromkeys(_group_queues(need.name, group, options))
            later |= dict.fromkeys(_retry_queues(need.name, group, STEPS[1:], options))
            entry, kept = entry_exchange(need.name, group), kept_exchange(need.name, group)
            exchanges |= {Exchange(kept): None, Exchange(entry, "fanout", (("alternate-exchange", kept),)): None}
            bindings |= {
                Binding(kept, retry_name(need.name, group, STEPS[0]), "queue"): None,
                Binding(entry, group_name(need.name, group), "queue"): None,
            }
            bindings |= dict.fromkeys(Binding(exchange, entry, "exchange", key) for key in _keys(need, options))
        if need.groups:
            queues[_waiting(due_queue(need.name), 0.0, DELAYED, None, options)] = None
            bindings[Binding(DUE, due_queue(need.name), "queue", need.name)] = None
            bindings[Binding(DELAYED, exchange, "exchange", need.name)] = None
            bindings |= dict.fromkeys(
                Binding(delay_exchange(delay), delay_exchange(delay), "queue", need.name) for delay in STEPS
            )
    if any(need.steps is None for need in topology.topics):
        exchanges[Exchange(DELAYED, "direct")] = None
        exchanges[Exchange(UNCLAIMED)] = None
        exchanges[Exchange(DUE, "direct", (("alternate-exchange", UNCLAIMED),))] = None
        exchanges |= dict.fromkeys(Exchange(delay_exchange(delay), "direct") for delay in STEPS)
        queues[_waiting(UNCLAIMED, LONGEST_UNCLAIMED, DELAYED, None, RabbitTopic())] = None
        queues |= dict.fromkeys(_waiting(delay_exchange(delay), delay, DUE, None, RabbitTopic()) for delay in STEPS)
        bindings[Binding(UNCLAIMED, UNCLAIMED, "queue")] = None
    return Wanted(tuple(exchanges), tuple(queues), tuple(bindings), tuple(later))


def _check_names(need: TopicNeed, exchange: str) -> None:
    if f"{need.name}.".startswith("amq."):  # its queues have a dot there
        raise ConfigurationError(f"topic {need.name!r}: on RabbitMQ, names that begin with 'amq.' are its own")
    for name in {need.name, exchange}:
        if f"{name}.".startswith("mqkit."):
            raise ConfigurationError(
                f"topic {need.name!r}: on RabbitMQ, names that begin with 'mqkit.' are mqkit's own"
            )
    if len(exchange) > LONGEST_EXCHANGE:
        raise ConfigurationError(f"exchange {exchange!r}: AMQP takes names of up to {LONGEST_EXCHANGE} characters")
    for group in need.groups:
        excess = len(retry_name(need.name, group, STEPS[-1])) - LONGEST_QUEUE
        if excess > 0:
            raise ConfigurationError(
                f"topic {need.name!r} and group {group!r}: together their names are {excess} characters too long for "
                f"RabbitMQ, whose queues have names of up to {LONGEST_QUEUE}; shorten one"
            )


def _keys(need: TopicNeed, options: RabbitTopic) -> tuple[str, ...]:
    """What a group is bound with: messages that were delayed come back with the topic's name as routing key."""
    if options.exchange_type == "fanout":
        return ("",)
    return tuple(dict.fromkeys((*options.binding_keys, *(() if "#" in options.binding_keys else (need.name,)))))


def _group_queues(topic: str, group: str, options: RabbitTopic) -> Iterable[Queue]:
    name = group_name(topic, group)
    dead = dead_name(topic, group)
    held = ("x-consumer-timeout", LONGEST_HOLD)
    yield _quorum(dead, options, ("x-delivery-limit", NEVER), ("x-overflow", "reject-publish"), held)
    yield _quorum(
        name,
        options,
        ("x-delivery-limit", options.delivery_limit or NEVER),
        *_dead_lettering("", dead),
        held,
    )
    yield from _retry_queues(topic, group, STEPS[:1], options)
    yield _quorum(
        group_name(topic, notes_group(group)),
        options,
        ("x-delivery-limit", NEVER),
        ("x-message-ttl", NOTES_KEPT),
        ("x-overflow", "reject-publish"),
        held,
    )


def _retry_queues(topic: str, group: str, steps: Iterable[float], options: RabbitTopic) -> Iterable[Queue]:
    for delay in steps:
        yield _waiting(retry_name(topic, group, delay), delay, "", group_name(topic, group), options)


def _waiting(name: str, delay: float, exchange: str, key: str | None, options: RabbitTopic) -> Queue:
    return _quorum(name, options, ("x-message-ttl", round(delay * 1000)), *_dead_lettering(exchange, key))


def _dead_lettering(exchange: str, key: str | None) -> tuple[tuple[str, Argument], ...]:
    to: tuple[tuple[str, Argument], ...] = (("x-dead-letter-exchange", exchange),)
    if key is not None:
        to += (("x-dead-letter-routing-key", key),)
    return (*to, ("x-dead-letter-strategy", "at-least-once"), ("x-overflow", "reject-publish"))


def _quorum(name: str, options: RabbitTopic, *arguments: tuple[str, Argument]) -> Queue:
    size = options.quorum_group_size
    sized: tuple[tuple[str, Argument], ...] = () if size is None else (("x-quorum-initial-group-size", size),)
    return Queue(name, (("x-queue-type", "quorum"), *sized, *arguments))


REFUSED = re.compile(
    r"inequivalent arg '(?P<setting>[^']+)' for (?P<kind>queue|exchange) '(?P<name>.*)' in vhost '.*': "
    r"received (?P<wanted>.*?) but current is (?P<found>.*)$",
    re.DOTALL,
)


def difference(refusal: str, kind: str, name: str) -> Difference:
    """What RabbitMQ's text says when it refuses to declare the `kind` called `name` again with other settings."""
    match = REFUSED.search(refusal)
    if match is None:
        return Difference("it", "as declared", f"refused: {refusal}", _remedy(kind, name))
    return Difference(match["setting"], _value(match["wanted"]), _value(match["found"]), _remedy(kind, name))


def differences(queue: Queue, found: Mapping[str, object]) -> tuple[Difference, ...]:
    """Between the arguments that `queue` should have and those `found`, where they matter."""
    names = dict.fromkeys((*dict(queue.arguments), *(name for name in found if name.startswith("x-"))))
    expected = dict[str, object](queue.arguments)
    return tuple(
        Difference(name, _shown(expected.get(name)), _shown(found.get(name)), _remedy("queue", queue.name))
        for name in names
        if expected.get(name) != found.get(name)
    )


def exchange_differences(exchange: Exchange, found: Mapping[str, object]) -> tuple[Difference, ...]:
    """Between `exchange` and what the management API tells of the one that is there."""
    pairs: list[tuple[str, object, object]] = [
        ("type", exchange.type, found.get("type")),
        ("durable", True, found.get("durable")),
    ]
    arguments = found.get("arguments")
    if isinstance(arguments, Mapping):
        pairs += [(name, value, arguments.get(name, "")) for name, value in exchange.arguments]
    return tuple(
        Difference(setting, _shown(expected), _shown(there), _remedy("exchange", exchange.name))
        for setting, expected, there in pairs
        if there is not None and there != expected
    )


def _value(text: str) -> str:
    """RabbitMQ writes `the value '5' of type 'long'`, `'foo'` or `none`."""
    match = re.fullmatch(r"(?:the value )?'(.*?)'(?: of type '\w+')?", text.strip(), re.DOTALL)
    if match is None:
        return "not set" if text.strip() == "none" else text.strip()
    return match[1] or "''"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value) or "''"


def _remedy(kind: str, name: str) -> str:
    if kind == "exchange":
        return f"delete the exchange {name!r} and declare again, or say with RabbitTopic(exchange_type=...) what it is"
    return (
        f"RabbitMQ cannot change arguments of a queue: use what is there (RabbitTopic), or drain and delete the queue "
        f"{name!r}, then declare again"
    )
