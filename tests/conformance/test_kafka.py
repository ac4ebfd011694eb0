"""The contract on Kafka; strangers speak through confluent-kafka."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from secrets import token_hex
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from mqkit.backends.kafka import KafkaTopic
from mqkit.message import Headers, WireMessage
from mqkit.testing.conformance import Conformance, Harness
from mqkit.testing.harness import with_options
from tests.brokers import Broker

SESSION = 6_000
"""Milliseconds after which the broker gives up a member that was killed: the least that it allows."""


class KafkaHarness(Harness):
    name = "kafka"
    abilities = frozenset({"interrupt"})
    large_topic_options: ClassVar[tuple[object, ...]] = (KafkaTopic(max_message_bytes=2**25),)

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._servers = {"bootstrap.servers": urlsplit(broker.url).netloc}
        super().__init__(with_options(broker.url, **{"rdkafka.session.timeout.ms": SESSION}))

    def interrupt(self) -> AbstractContextManager[None]:
        return self._broker.stopped()

    def raw_publish(
        self,
        topic: str,
        body: bytes,
        *,
        headers: Headers | None = None,
        key: bytes | None = None,
        content_type: str | None = None,
    ) -> None:
        pairs: list[Any] = list((headers or {}).items())
        if content_type is not None:
            pairs.append(("content-type", content_type))
        producer = Producer({**self._servers, "message.max.bytes": 2**25})
        failed: list[object] = []
        producer.produce(topic, body, key, headers=pairs, on_delivery=lambda error, _: failed.append(error))
        assert producer.flush(30) == 0
        assert failed == [None]

    def raw_receive(self, topic: str, group: str, number: int) -> Sequence[WireMessage]:
        consumer = Consumer({**self._servers, "group.id": f"stranger-{token_hex(4)}", "enable.auto.commit": False})
        try:
            partitions = consumer.list_topics(topic, 10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
            found = consumer.consume(number, 30)
        finally:
            consumer.close()
        assert [message.error() for message in found] == [None] * number
        return [self._read(message) for message in sorted(found, key=lambda m: m.timestamp())]

    @staticmethod
    def _read(message: Any) -> WireMessage:
        headers = {name: value.decode() for name, value in message.headers() or ()}
        return WireMessage(message.value(), headers, message.key(), headers.pop("content-type", None))

    def cleanup(self, topics: Sequence[str]) -> None:
        admin = AdminClient(dict(self._servers))
        prefixes = tuple(f"{topic}." for topic in topics)
        doomed = [name for name in admin.list_topics(timeout=30).topics if name in topics or name.startswith(prefixes)]
        if doomed:
            for deletion in admin.delete_topics(doomed).values():
                deletion.result(30)


class TestKafka(Conformance):
    @pytest.fixture
    def harness(self, kafka_broker: Broker) -> Harness:
        return KafkaHarness(kafka_broker)
