"""Kafka as a plain client sees it: topics of one partition, a backlog in one, and how far a group came.

Not a contender: it makes what is measured, and checks the books.
"""

from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from mqkit.bench.orders import Order
from tests.bench.place import Place

TIMEOUT = 20.0


def declare(place: Place) -> None:
    admin = AdminClient({"bootstrap.servers": place.servers})
    for future in admin.create_topics([NewTopic(place.topic, 1, 1)]).values():
        try:
            future.result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def fill(place: Place, orders: Iterable[Order]) -> None:
    declare(place)
    producer = Producer({"bootstrap.servers": place.servers, "linger.ms": 20, "queue.buffering.max.messages": 500_000})
    for order in orders:
        producer.produce(place.topic, order.model_dump_json().encode(), order.customer.encode())
        producer.poll(0)
    assert producer.flush(60) == 0, "the backlog was not taken within a minute"


def stored(place: Place) -> int | None:
    """Messages in the topic; None if there is no topic."""
    return _positions(place)[0]


def left(place: Place) -> int | None:
    """Messages that the group has not finished; None if there is no topic."""
    end, committed = _positions(place)
    return None if end is None else end - committed


def _positions(place: Place) -> tuple[int | None, int]:
    consumer = Consumer({"bootstrap.servers": place.servers, "group.id": place.queue, "enable.auto.commit": False})
    partition = TopicPartition(place.topic, 0)
    try:
        end = consumer.get_watermark_offsets(partition, TIMEOUT)[1]
        committed = consumer.committed([partition], TIMEOUT)[0].offset
        return end, max(0, committed)
    except KafkaException as error:
        if error.args[0].name() in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_PARTITION", "_UNKNOWN_TOPIC"}:
            return None, 0
        raise
    finally:
        consumer.close()


def remove(place: Place) -> None:
    """What a sample left."""
    admin = AdminClient({"bootstrap.servers": place.servers})
    names = [name for name in admin.list_topics(timeout=TIMEOUT).topics if name.startswith(place.topic)]
    if names:
        for future in admin.delete_topics(names).values():
            future.result(TIMEOUT)
