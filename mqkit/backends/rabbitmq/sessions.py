"""How a receiver's session begins and ends at the broker, where that takes more than one call."""

import asyncio
from contextlib import suppress

from mqkit.backend import Subscription
from mqkit.backends.rabbitmq.channels import Channel, NotFound
from mqkit.backends.rabbitmq.link import CLOSE_TIMEOUT, Link
from mqkit.backends.rabbitmq.options import topic_options
from mqkit.backends.rabbitmq.places import DELAYED
from mqkit.errors import ConfigurationError

ROUNDS, ROUND = 4, 0.025
"""How often, and for how many seconds each, the broker gets time for settlements before a channel is closed."""


async def declare_tail(link: Link, channel: Channel, subscription: Subscription) -> str:
    """A queue for what is published to a topic from now on, that goes with its connection; its name.

    Raises:
        ConfigurationError: the topic is not there.
    """
    options = topic_options(subscription.options)
    exchange = options.exchange or subscription.topic
    try:
        async with link.calling():
            queue: str = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue
            for key in options.keys:
                await channel.queue_bind(queue, exchange, key)
            if options.exchange_type != "fanout":
                await channel.queue_bind(queue, DELAYED, subscription.topic)
    except NotFound as error:
        raise ConfigurationError(
            f"there is no exchange {exchange!r} to listen to: declare the topic {subscription.topic!r} first"
        ) from error
    return queue


async def acted_upon(link: Link, channel: Channel, queue: str) -> None:
    """Give RabbitMQ time to act on what was settled: it does not say when it has.

    A channel keeps settlements back while more than 32 of its commands wait for a quorum queue, and forgets them when
    it is closed (rabbit_fifo_client, 4.0 to 4.3). A cancel before would send them; but then what is out comes back
    behind what waits (tried on 4.3.6).
    """
    link.stream.flush()
    with suppress(Exception):
        for _ in range(ROUNDS):
            async with link.calling(CLOSE_TIMEOUT):
                await channel.queue_declare(queue, passive=True)
            await asyncio.sleep(ROUND)
