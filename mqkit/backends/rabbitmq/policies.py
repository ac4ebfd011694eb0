"""What policies of the broker do to mqkit's queues that mqkit did not ask for: it can discard what waits. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mqkit.backends.rabbitmq.topology import Queue

APPLIES = frozenset({"all", "queues", "quorum_queues"})


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, of an operator or not: of each kind, one applies to a queue."""

    name: str
    pattern: str
    priority: int
    definition: Mapping[str, object]
    operator: bool = False

    def fits(self, queue: str) -> bool:
        """Whether it is meant for this queue, as far as its pattern can be understood here."""
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:
            return True

    def __str__(self) -> str:
        return f"the {'operator ' if self.operator else ''}policy {self.name!r}"


def policies(found: Iterable[Mapping[str, object]], *, operator: bool) -> list[Policy]:
    """Those for queues, as the management API tells of them."""
    return [
        Policy(str(one["name"]), str(one["pattern"]), _number(one.get("priority")) or 0, definition, operator)
        for one in found
        if one.get("apply-to", "all") in APPLIES and isinstance(definition := one.get("definition"), dict)
    ]


def dangers(queue: Queue, known: Iterable[Policy]) -> tuple[str, ...]:
    """What is done to messages in `queue`, a sentence for each setting that does something."""
    fitting = [policy for policy in known if policy.fits(queue.name)]
    sentences = []
    for operator in (False, True):
        mine = [policy for policy in fitting if policy.operator is operator]
        if not mine:
            continue
        policy = max(mine, key=lambda policy: policy.priority)
        for setting, tell in EFFECTS.items():
            limit = _number(policy.definition.get(setting))
            effect = None if limit is None or limit < 0 else tell(limit, dict(queue.arguments))
            if effect is not None:
                sentences.append(
                    f"queue {queue.name}: {policy} {effect} ({setting} {limit}): change its pattern, "
                    f"{policy.pattern!r}, so that it leaves this queue out"
                )
    return tuple(sentences)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


Arguments = Mapping[str, object]


def _ttl(limit: int, own: Arguments) -> str | None:
    seconds, mine = f"{limit / 1000:g} s", _number(own.get("x-message-ttl"))
    if mine is not None and limit >= mine:
        return None
    if not _goes_on(own):
        return f"discards what lies there for {seconds}"
    if mine is None:
        return f"makes a dead letter of what waits for {seconds}, unhandled"
    return f"ends the wait of a retry or delay of {mine / 1000:g} s after {seconds}"


def _expires(limit: int, own: Arguments) -> str | None:
    del own
    return f"deletes the queue, with all that is in it, when nobody has read from it for {limit / 1000:g} s"


def _length(limit: int, own: Arguments) -> str | None:
    if own.get("x-overflow") != "reject-publish":
        return f"discards what is beyond {limit:,}"
    if _goes_on(own) and "x-message-ttl" not in own:
        return None  # the group's own queue: publishers are told
    return f"lets no more be stored beyond {limit:,}, so that what failed blocks its group"


def _deliveries(limit: int, own: Arguments) -> str | None:
    mine = _number(own.get("x-delivery-limit"))
    if mine is not None and limit >= mine:
        return None
    if _goes_on(own):
        return f"makes a dead letter of what was given back {limit} times, whatever its attempts"
    return f"discards what was given back {limit} times, as dead letters are each time that they are read"


def _goes_on(own: Arguments) -> bool:
    """Whether what leaves the queue is kept elsewhere."""
    return "x-dead-letter-exchange" in own


EFFECTS: Mapping[str, Callable[[int, Arguments], str | None]] = {
    "message-ttl": _ttl,
    "expires": _expires,
    "max-length": _length,
    "max-length-bytes": _length,
    "delivery-limit": _deliveries,
}
