"""Taking a topic of ours away from a broker when the measuring is over. A service never does that, so no backend can.

This file, and no other outside of the backends, knows drivers.
"""

import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from mqkit.topology import TopicNeed, Topology, group_name

TIMEOUT = 10.0


async def has_shared(url: str) -> bool:
    """Whether the broker has what all topics of mqkit share there, so that it must stay when the measuring is over."""
    if urlsplit(url).scheme not in {"amqp", "amqps"}:
        return True
    from aio_pika import connect
    from aio_pika.exceptions import ChannelClosed

    from mqkit.backends.rabbitmq.options import parse_url
    from mqkit.backends.rabbitmq.places import DELAYED

    async with await connect(parse_url(url).amqp, timeout=TIMEOUT) as connection:
        try:
            await (await connection.channel()).get_exchange(DELAYED, ensure=True)
        except ChannelClosed:
            return False
    return True


async def remove(url: str, topic: str, group: str, *, shared: bool = False) -> str:
    """Remove `topic` with its only group, and all that lies there; what is left behind, in a sentence, or nothing.

    Args:
        shared: also what all topics share at the broker, if no other topic uses it by now.
    """
    match urlsplit(url).scheme:
        case "memory":
            return ""
        case "amqp" | "amqps":
            return await _from_rabbitmq(url, topic, group, shared=shared)
        case "kafka":
            return _from_kafka(url, topic, group)
        case "sqlite":
            return _from_sqlite(url, topic)
    return f"the topic {topic} stays at the broker, with nothing to handle in it: remove it there"


async def _from_rabbitmq(url: str, topic: str, group: str, *, shared: bool) -> str:
    from aio_pika import connect
    from aio_pika.exceptions import ChannelClosed

    from mqkit.backends.rabbitmq.options import parse_url
    from mqkit.backends.rabbitmq.places import DELAYED, DUE, UNCLAIMED, WAITING
    from mqkit.backends.rabbitmq.topology import wanted
    from mqkit.backends.rabbitmq.turn import PREFIX

    own = wanted(Topology((TopicNeed(topic, frozenset({group})),)))
    ours = [name for name in (queue.name for queue in (*own.queues, *own.later)) if name.startswith(topic)]
    async with await connect(parse_url(url).amqp, timeout=TIMEOUT) as connection:
        channel = await connection.channel()
        for name in (*ours, group_name(f"{PREFIX}{topic}", group)):
            await channel.queue_delete(name)
        for exchange in own.exchanges:
            if exchange.name.startswith(topic):
                await channel.exchange_delete(exchange.name)
        underlay = await channel.get_underlay_channel()
        steps = [exchange.name for exchange in own.exchanges if exchange.name.startswith(WAITING)]
        for step in steps:
            await underlay.queue_unbind(step, step, topic)
        if not shared:
            return ""
        try:
            for name in (DELAYED, DUE, *steps):
                await channel.exchange_delete(name, if_unused=True)
        except ChannelClosed:
            return "RabbitMQ keeps what begins with mqkit.: another topic uses it by now"
        for name in (*steps, UNCLAIMED):
            await channel.queue_delete(name)
        await channel.exchange_delete(UNCLAIMED)
    return ""


def _from_kafka(url: str, topic: str, group: str) -> str:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    from mqkit.backends.kafka.options import client_config, parse_url

    config: dict[str, Any] = client_config(parse_url(url))
    admin = AdminClient(config)
    there = admin.list_topics(timeout=TIMEOUT).topics
    gone = {
        **admin.delete_topics([name for name in there if name == topic or name.startswith(f"{topic}.")]),
        **admin.delete_consumer_groups([group_name(topic, group)]),
    }
    left = []
    for name, future in gone.items():
        try:
            future.result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                continue
            left.append(f"{name} ({error.args[0].str()})")
    return f"Kafka keeps {', '.join(left)}" if left else ""


def _from_sqlite(url: str, topic: str) -> str:
    from mqkit.backends.sqlite.url import parse

    groups = "SELECT g.id FROM topic_group g JOIN topic t ON t.id = g.topic WHERE t.name = ?"
    with closing(sqlite3.connect(parse(url).path, timeout=TIMEOUT)) as database, database:
        database.execute("PRAGMA foreign_keys = OFF")
        lost = f"SELECT message FROM delivery WHERE topic_group IN ({groups})"  # noqa: S608 - no text from outside
        database.execute(f"DELETE FROM message WHERE id IN ({lost})", (topic,))  # noqa: S608 - as above
        database.execute(f"DELETE FROM delivery WHERE topic_group IN ({groups})", (topic,))  # noqa: S608 - as above
        database.execute(f"DELETE FROM topic_group WHERE id IN ({groups})", (topic,))  # noqa: S608 - as above
        database.execute("DELETE FROM topic WHERE name = ?", (topic,))
    return ""
