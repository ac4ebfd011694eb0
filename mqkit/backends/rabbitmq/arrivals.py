"""What arrived on a channel that consumes, as a Delivery. Pure."""

from typing import TypeAlias

from mqkit.backend import Subscription
from mqkit.backends.rabbitmq import wire
from mqkit.backends.rabbitmq.places import DELAYED
from mqkit.backends.rabbitmq.way_back import is_marked, unmarked
from mqkit.message import Delivery

Arrived: TypeAlias = tuple[int, tuple[str, str], bytes, bytes, bool]
"""Tag; the exchange and routing key that it was published with; header; body; whether it was delivered before."""


def delivery(arrived: Arrived, subscription: Subscription, queue: str, epoch: int) -> Delivery:
    """Of `subscription`, out of `queue`; its token is the channel's epoch, and the tag."""
    tag, (exchange, routing_key), header, body, redelivered = arrived
    content = wire.decode(header)
    before = wire.redeliveries(content.headers, redelivered=redelivered)
    by_publisher = exchange not in {"", DELAYED}
    if subscription.source == "dead" and (deaths := content.headers.get("x-death")) is not None:
        content.properties["x-death"] = deaths  # why the broker itself put it there
    message = wire.message(content, body, routing_key if by_publisher else None)
    returned = exchange == "" and routing_key == queue and is_marked(message, queue)
    if returned:
        message = unmarked(message)
    return Delivery(
        message=message,
        token=(epoch, tag),
        topic=subscription.topic,
        group=subscription.group,
        origin=f"queue {queue}" if subscription.source != "tail" else f"exchange {exchange}",
        returned=returned,
        redelivered=before,
    )
