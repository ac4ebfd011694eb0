"""RabbitMQ by way of any driver: connects, opens sessions, declares, counts. Both colours are made of it.

Two connections: one for senders, which RabbitMQ stops reading while it blocks publishers, and one for all else. A
connection that was lost stays lost for its sessions; the next session that is opened makes a new one.
"""

import asyncio
from collections.abc import Sequence
from typing import Literal, TypeAlias

from mqkit.backend import Capabilities, Counts, Notify, Subscription
from mqkit.backends.rabbitmq import CAPABILITIES
from mqkit.backends.rabbitmq.channels import Connect, NotFound
from mqkit.backends.rabbitmq.consuming import RabbitReceiver
from mqkit.backends.rabbitmq.declaring import Declaring
from mqkit.backends.rabbitmq.letters import DeadReceiver
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.management import Management, groups
from mqkit.backends.rabbitmq.options import parse_url, topic_options
from mqkit.backends.rabbitmq.publishing import RabbitSender
from mqkit.backends.rabbitmq.scouting import CAREFUL, Scout
from mqkit.backends.rabbitmq.topology import wanted
from mqkit.errors import ClosedError, ConfigurationError
from mqkit.topology import STEPS, Finding, Topology, dead_name, group_name, retry_name

Use: TypeAlias = Literal["sending", "receiving"]


class RabbitBroker:
    """The Backend, on the connections that `connect` makes.

    Raises:
        ConfigurationError: the URL makes no sense.
    """

    def __init__(self, url: str, connect: Connect) -> None:
        self.url = parse_url(url)
        self._dial = connect
        self.capabilities: Capabilities = CAPABILITIES
        self._management = Management(self.url)
        self._links: dict[Use, Link] = {}
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._scout = Scout(self._expendable)
        self._exchanges: dict[str, str] = {}
        self._closed = False

    async def connect(self, timeout: float) -> str:
        """As Backend.connect."""
        return (await self._link("receiving", timeout)).product

    async def _link(self, use: Use, timeout: float | None = None) -> Link:
        if self._closed:
            raise ClosedError("this backend was closed")
        async with self._connecting:
            link = self._links.get(use)
            if link is not None and link.lost is not None:
                self._links.pop(use)
                await link.close()
                link = None
            if link is None:
                limit = self.url.connection_timeout if timeout is None else timeout
                link = self._links[use] = await Link.open(self.url, self._dial, limit)
                if link.product.startswith(CAREFUL):
                    link.before_consuming = self._scout.wait_for
            return link

    async def _expendable(self) -> Link:
        return await Link.open(self.url, self._dial, self.url.connection_timeout)

    async def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        self._remember(topology)
        await Declaring(await self._link("receiving"), self._management).declare(wanted(topology))

    async def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        self._remember(topology)
        return await Declaring(await self._link("receiving"), self._management).examine(wanted(topology))

    def _remember(self, topology: Topology) -> None:
        for need in topology.topics:
            exchange = topic_options(need.options).exchange
            if exchange is not None:
                self._exchanges[need.name] = exchange

    async def open_sender(self) -> RabbitSender:
        """As Backend.open_sender."""
        return RabbitSender(await self._link("sending"), self._exchanges, self.url.max_message_bytes)

    async def open_receiver(self, subscription: Subscription, notify: Notify) -> RabbitReceiver | DeadReceiver:
        """As Backend.open_receiver."""
        link = await self._link("receiving")
        receiver: RabbitReceiver | DeadReceiver
        if subscription.source == "dead":
            receiver = DeadReceiver(link, subscription)
        else:
            receiver = RabbitReceiver(link, subscription, notify, self.open_sender)
        try:
            await receiver.open()
        except BaseException:
            await receiver.close()
            raise
        return receiver

    async def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        link = await self._link("receiving")
        first, *longer = (retry_name(topic, group, delay) for delay in STEPS)
        channel = await link.channel()
        try:
            async with link.calling():
                queue = await channel.queue_declare(group_name(topic, group), passive=True)
                dead, waiting = [
                    (await channel.queue_declare(name, passive=True)).messages
                    for name in (dead_name(topic, group), first)
                ]
        except NotFound as error:
            raise ConfigurationError(await self._no_group(topic, group)) from error
        finally:
            await link.drop(channel)
        waiting += await self._waiting(link, topic, group, longer)
        out = await self._in_flight(group_name(topic, group)) if queue.consumers else 0
        return Counts(queue.messages, out, waiting, dead)

    async def _waiting(self, link: Link, topic: str, group: str, queues: Sequence[str]) -> int:
        """Messages in those of `queues`, of one group, that are there. RabbitMQ logs each question after one that is
        not, so the management API is asked first, where it answers.
        """
        known = await self._management.queues_like(f"{group_name(topic, group)}.retry.")
        count = 0
        for name in queues:
            if known is not None and name not in known:
                continue
            channel = await link.channel()
            try:
                async with link.calling():
                    count += (await channel.queue_declare(name, passive=True)).messages
            except NotFound:
                pass  # nothing waited so long yet
            finally:
                await link.drop(channel)
        return count

    async def _in_flight(self, queue: str) -> int | None:
        """Of a queue that has consumers; AMQP does not tell, and the management API is a few seconds late."""
        known = await self._management.queue(queue)
        return None if known is None else int(known.get("messages_unacknowledged", 0))

    async def _no_group(self, topic: str, group: str) -> str:
        names = [f"{one} of {of}" for of, one in groups(await self._management.queues() or {})]
        known = f"; there is {', '.join(names)}" if names else ""
        return f"RabbitMQ at {self.url.where} has no group {group!r} of topic {topic!r}{known}"

    async def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        queues = await self._management.queues()
        if queues is None:
            raise ConfigurationError(self._management.unseen("which groups there are", "queues"))
        return [found for found in groups(queues) if topic is None or found[0] == topic]

    async def close(self) -> None:
        """As Backend.close."""
        self._closed = True
        links = [self._links.pop(use) for use in list(self._links)]
        # at once: each may have to wait for a good-bye
        await asyncio.gather(self._scout.close(), *(link.close() for link in links))
