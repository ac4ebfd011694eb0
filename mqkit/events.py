"""What happened: the facts that listeners count and the log tells, one for each verdict and change of state.

Every kind of event stands in `Kind`; a listener is any callable that takes an `Event`. A listener that raises is
logged and never harms the message.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

from mqkit.message import passing

Kind: TypeAlias = Literal[
    "started",
    "stopped",
    "done",
    "skipped",
    "retry",
    "dead-letter",
    "released",
    "postponed",
    "stuck",
    "lease-lost",
    "connected",
    "disconnected",
    "rebalance",
    "full",
]


@passing
class Event:
    """One thing that happened to a message or to a connection."""

    kind: Kind
    topic: str = ""
    group: str = ""
    id: str = ""
    attempt: int = 0
    seconds: float = 0.0
    """How long it took: the handler's time for a verdict, the wait for a retry, the outage for `connected`."""
    detail: str = ""


Listener: TypeAlias = Callable[[Event], None]
