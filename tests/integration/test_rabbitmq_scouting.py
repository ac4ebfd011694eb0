"""A queue that another process is just making: RabbitMQ 4.0 ends the connection of who consumes from it too early."""

import asyncio
from uuid import uuid4

import pytest

from mqkit.backends.rabbitmq import aiormq_driver, pika_driver
from mqkit.backends.rabbitmq.asynchronous import RabbitBackend
from mqkit.backends.rabbitmq.stream import NOBODY
from mqkit.backends.rabbitmq.turn import ARGUMENTS
from tests.brokers import Broker

QUEUES, PROCESSES = 20, 3
"""Enough for the broker to crash on several, where nobody looks first."""


@pytest.mark.parametrize("connect", [aiormq_driver.connect, pika_driver.connect], ids=["aiormq", "pika"])
def test_who_consumes_from_a_queue_that_others_are_just_making_keeps_the_connection(
    rabbitmq_old_broker: Broker, connect: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiormq_driver, "connect", connect)

    async def test() -> None:
        backends = [RabbitBackend(rabbitmq_old_broker.url) for _ in range(PROCESSES)]
        links = [await backend._link("receiving") for backend in backends]
        channels = [await link.channel(traffic=NOBODY) for link in links]
        for _ in range(QUEUES):
            queue = f"q-{uuid4().hex}"

            async def consume(process: int, queue: str = queue) -> None:
                async with links[process].calling():
                    await channels[process].queue_declare(queue, durable=True, arguments=ARGUMENTS)
                    await links[process].consume(channels[process], queue, 1)

            await asyncio.gather(*map(consume, range(PROCESSES)))
        assert [link.lost for link in links] == [None] * PROCESSES
        for backend in backends:
            await backend.close()

    asyncio.run(test())
