"""Where an Outgoing goes: exchange and routing key, names only. Pure.

A group's waiting messages are in its retry queues. What a publisher delays is in queues that the virtual host shares,
behind direct exchanges that know only topics with a group. It comes back by dead-lettering, with its routing key: by
`mqkit.due` to its topic's queue for what is due (or `mqkit.unclaimed`), from there by `mqkit.delayed` to the topic's
exchange. RabbitMQ holds back what lies behind 32 messages that it cannot dead-letter: those lie there alone. An
exchange of the group, before its queue, outlives it: what comes meanwhile waits in the group's first retry queue.
"""

from collections.abc import Mapping
from hashlib import sha256

from mqkit.message import Outgoing, passing
from mqkit.topology import dead_name, group_name, retry_name, step

LONGEST_EXCHANGE = 127
"""Characters of an exchange's name, by AMQP 0-9-1; RabbitMQ itself would take more."""
LONGEST_QUEUE = 255
DUE = "mqkit.due"
"""The exchange through which delayed messages come to their topic's queue."""
DELAYED = "mqkit.delayed"
"""The exchange through which delayed messages come back to their topic."""
UNCLAIMED = "mqkit.unclaimed"
"""The exchange, and the queue, of delayed messages whose topic has no queue for what is due."""
WAITING = "mqkit.delays."
"""What the exchanges and queues of the steps begin with."""


def delay_exchange(delay: float) -> str:
    """Of one step; its queue has the same name."""
    return f"{WAITING}{delay * 1000:.0f}ms"


def due_queue(topic: str) -> str:
    """Of the queue that passes on what was delayed: no topic or group is called so."""
    return f"{topic}.delay.due"


def entry_exchange(topic: str, group: str) -> str:
    """Through which a group gets what is published to its topic."""
    return _exchange(f"{group_name(topic, group)}.retry.in")


def kept_exchange(topic: str, group: str) -> str:
    """Through which what came in for a group is kept while its queue is missing."""
    return _exchange(f"{group_name(topic, group)}.retry.kept")


def _exchange(name: str) -> str:
    """`name`, or, where it is too long for an exchange, its beginning with a digest of the whole."""
    if len(name) <= LONGEST_EXCHANGE:
        return name
    digest = sha256(name.encode()).hexdigest()[:24]
    return f"{name[: LONGEST_EXCHANGE - len(digest) - 1]}-{digest}"


def notes_group(group: str) -> str:
    """What stands for a group in the name of the queue of its notes (notes.py): no topic or group is called so."""
    return f"{group}.retry.notes"


@passing
class Place:
    """Where a message is published to."""

    exchange: str
    routing_key: str


def place(outgoing: Outgoing, exchanges: Mapping[str, str]) -> Place:
    """Where `outgoing` goes; `exchanges` names those of topics that are not called like their topic."""
    topic, group = outgoing.topic, outgoing.group
    if group is not None:
        if outgoing.dead:
            return Place("", dead_name(topic, group))
        if outgoing.delay > 0:
            return Place("", retry_name(topic, group, step(outgoing.delay)))
        return Place("", group_name(topic, group))
    if outgoing.delay > 0:
        return Place(delay_exchange(step(outgoing.delay)), topic)
    return Place(exchanges.get(topic, topic), routing_key(outgoing.message.key))


def routing_key(key: bytes | None) -> str:
    """`key` where it can be one: for people and for bindings of others. The key itself travels as a header."""
    if not key or len(key) > 255:
        return ""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return ""


def nowhere(place: Place, topic: str) -> str:
    """What to say when nothing receives what is published there."""
    if place.exchange == "":
        return f"there is no queue {place.routing_key!r}: declare the topology (mqkit topology apply)"
    if place.routing_key == topic and place.exchange.startswith(WAITING):
        return (
            f"the exchange {place.exchange!r} knows no topic {topic!r} with a group: declare its groups "
            f"(Topic(groups=...), or start a subscriber), or mqkit topology apply"
        )
    return (
        f"no queue is bound to the exchange {place.exchange!r}, so nothing would receive this: declare a group of "
        f"topic {topic!r} (Topic(groups=...), or start a subscriber)"
    )
