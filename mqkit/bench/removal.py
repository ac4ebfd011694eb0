"""Taking a topic of ours away from a broker when the measuring is over. A service never does that, so no backend can.

This file, and no other outside of the backends, knows drivers.
"""

import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from mqkit.topology import STEPS, dead_name, group_name, retry_name

TIMEOUT = 10.0


async def remove(url: str, topic: str, group: str) -> str:
    """Remove `topic` with its only group, and all that lies there; what is left behind, in a sentence, or nothing."""
    match urlsplit(url).scheme:
        case "memory":
            return ""
        case "amqp" | "amqps":
            return await _from_rabbitmq(url, topic, group)
        case "kafka":
            return _from_kafka(url, topic, group)
        case "sqlite":
            return _from_sqlite(url, topic)
    return f"the topic {topic} stays at the broker, with nothing to handle in it: remove it there"


async def _from_rabbitmq(url: str, topic: str, group: str) -> str:
    from aio_pika import connect

    from mqkit.backends.rabbitmq.options import parse_url
    from mqkit.backends.rabbitmq.places import due_queue, notes_group

    names = [
        due_queue(topic),
        group_name(topic, group),
        group_name(topic, notes_group(group)),
        dead_name(topic, group),
        *(retry_name(topic, group, step) for step in STEPS),
    ]
    async with await connect(parse_url(url).amqp, timeout=TIMEOUT) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)
        await channel.exchange_delete(topic)
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
