"""The messages of one call on their way to RabbitMQ, and what became of each. Facts, and who is told of them."""

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias

from mqkit.backends.rabbitmq.places import Place
from mqkit.errors import MqkitError
from mqkit.message import Outgoing

Row: TypeAlias = tuple[str, str, bytes]
"""Exchange, routing key and key of messages that keep their order."""


@dataclass(slots=True)
class Sending:
    """One message on its way."""

    batch: "Batch"
    position: int
    outgoing: Outgoing
    place: Place
    header: bytes
    row: Row | None = None
    """Whom it must not overtake, once it is in line; None: it has no key, and no order."""
    returned: MqkitError | None = None
    doubtful: bool = False
    settled: bool = False
    written: bool = False
    """It may be at the broker."""

    def reject(self, error: MqkitError) -> None:
        """The broker does not have it; nothing the second time."""
        if not self.settled:
            self.batch.rejected[self.position] = error
            self.batch.resolve(self)


@dataclass(slots=True)
class Batch:
    """What became of the messages of one call."""

    done: asyncio.Future[None]
    left: int = 0
    rejected: dict[int, MqkitError] = field(default_factory=dict)
    unknown: dict[int, MqkitError] = field(default_factory=dict)

    def resolve(self, sending: Sending) -> None:
        """One message less to wait for."""
        sending.settled = True
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def give_up(self) -> None:
        """Wait no longer."""
        if not self.done.done():
            self.done.set_result(None)
