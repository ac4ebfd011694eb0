"""The contract on RabbitMQ; strangers speak through pika and aio-pika."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import aio_pika
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from mqkit.message import Headers, WireMessage
from mqkit.testing.conformance import Conformance, Harness
from mqkit.testing.harness import with_options
from mqkit.testing.waiting import eventually
from mqkit.topology import group_name
from tests.brokers import Broker
from tests.rabbitmq_cleaning import remove_topics

LARGEST = 2**25


class RabbitHarness(Harness):
    name = "rabbitmq"
    abilities = frozenset({"interrupt", "disconnect", "destroy"})

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._plain_url = broker.url.partition("?")[0]
        self._restarted = False
        super().__init__(with_options(broker.url, max_message_bytes=LARGEST))

    @property
    def largest(self) -> int:
        return LARGEST

    def interrupt(self) -> AbstractContextManager[None]:
        self._restarted = True
        return self._broker.application_stopped()

    def disconnect(self) -> None:
        self._broker.evaluate('[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections()]')

    def destroy(self, topic: str, group: str) -> None:
        with self._channel() as channel:
            channel.queue_delete(group_name(topic, group))

    def raw_publish(
        self,
        topic: str,
        body: bytes,
        *,
        headers: Headers | None = None,
        key: bytes | None = None,
        content_type: str | None = None,
    ) -> None:
        asyncio.run(self._publish(topic, body, dict(headers or {}), (key or b"").decode(), content_type))

    async def _publish(
        self, topic: str, body: bytes, headers: dict[str, Any], key: str, content_type: str | None
    ) -> None:
        """By aio-pika: pika cannot write every type of header."""
        async with await aio_pika.connect(self._plain_url) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(topic, ensure=False)
            written = {name: bytearray(value) if isinstance(value, bytes) else value for name, value in headers.items()}
            message = aio_pika.Message(body, headers=written, content_type=content_type, delivery_mode=2)
            await exchange.publish(message, key)

    def raw_receive(self, topic: str, group: str, number: int) -> Sequence[WireMessage]:
        queue = group_name(topic, group)
        with self._channel() as channel:
            return [eventually(lambda: self._get(channel, queue), "a message is there") for _ in range(number)]

    @staticmethod
    def _get(channel: BlockingChannel, queue: str) -> WireMessage | None:
        frame, properties, body = channel.basic_get(queue, auto_ack=True)
        if frame is None:
            return None
        headers: dict[str, Any] = dict(properties.headers or {})
        key = headers.get("cloudEvents_partitionkey")
        return WireMessage(body, headers, key and key.encode(), properties.content_type, properties.message_id)

    def cleanup(self, topics: Sequence[str]) -> None:
        if self._restarted:
            # RabbitMQ 4.0: to delete a queue while it becomes leader crashes its dead-lettering worker, again and
            # again, until the supervisor of all of them gives up; from then on every declaration fails
            return
        remove_topics(self._broker, topics)

    @contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self._plain_url))
        try:
            yield connection.channel()
        finally:
            connection.close()


class TestRabbitMQ(Conformance):
    @pytest.fixture
    def harness(self, rabbitmq_broker: Broker) -> Harness:
        return RabbitHarness(rabbitmq_broker)
