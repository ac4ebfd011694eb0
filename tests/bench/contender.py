"""What the module of a contender holds, in contenders/: three functions, all `async` or all plain.

`publishing(place, work)`: a context manager that gives a Publisher. `consuming(place, work, handle, done)`: hand each
order to `handle`, acknowledge it after that, and return when `done` is set, with everything acknowledged.
`fill(place, orders)`: publish a backlog, quickly; it is not measured.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mqkit.bench.orders import Order

Handle = Callable[[Order], Awaitable[None]]
PlainHandle = Callable[[Order], None]


class FailsOnce(Exception):
    """What the handler of the retry storm raises."""


class AsyncPublisher(Protocol):
    async def publish(self, order: Order) -> None:
        """Return when the broker has it."""
        ...

    async def publish_batch(self, orders: Sequence[Order]) -> None:
        """Return when the broker has all of them."""
        ...


class PlainPublisher(Protocol):
    def publish(self, order: Order) -> None:
        """As AsyncPublisher.publish."""
        ...

    def publish_batch(self, orders: Sequence[Order]) -> None:
        """As AsyncPublisher.publish_batch."""
        ...
