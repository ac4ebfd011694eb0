"""The mark on what mqkit itself sent back to a group's queue: a retry, a replay, what waits for its time. Pure.

The way back leads through the default exchange, by which any client may publish to any queue. What comes from there
without this mark, or was changed since, counts as a stranger's: its `mqkit-` headers are not believed (F4). The mark
is no secret. Whoever makes one on purpose needs leave to write to `amq.default`, which publishers of a topic do not.
"""

from dataclasses import replace
from hashlib import blake2b
from typing import Final

from mqkit.message import Outgoing, WireMessage
from mqkit.topology import group_name

MARK: Final = "mqkit-way"
OWN: Final = "mqkit-"


def marked(outgoing: Outgoing) -> WireMessage:
    """The message of `outgoing`, with the mark if it goes back to its group's queue."""
    message = outgoing.message
    if outgoing.group is None or outgoing.dead:
        return message
    mark = _mark(message, group_name(outgoing.topic, outgoing.group))
    return replace(message, headers={**message.headers, MARK: mark})


def is_marked(message: WireMessage, queue: str) -> bool:
    """Whether mqkit sent this message to `queue` as it is."""
    given = message.headers.get(MARK)
    return isinstance(given, str) and given == _mark(message, queue)


def unmarked(message: WireMessage) -> WireMessage:
    """`message` as it was before it was marked."""
    return replace(message, headers={name: value for name, value in message.headers.items() if name != MARK})


def _mark(message: WireMessage, queue: str) -> str:
    """Of the queue, the body and all bookkeeping: none of them goes with another's mark."""
    own = sorted((n, v) for n, v in message.headers.items() if n.startswith(OWN) and n != MARK and isinstance(v, str))
    digest = blake2b(repr((queue, own)).encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(message.body)
    return digest.hexdigest()
