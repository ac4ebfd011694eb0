"""Channels of one connection: whose number is whose, and when it may be another's. Without a broker."""

import asyncio

import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from mqkit.backends.rabbitmq import aiormq_driver, pika_driver
from mqkit.backends.rabbitmq.channels import Connect, NotFound
from mqkit.backends.rabbitmq.link import Link, Numbers
from mqkit.errors import BackendError
from tests.unit.rabbitmq.peer import Peer, with_peer
from tests.unit.rabbitmq.test_stream import Driver, Recorder

CHANNELS = 10
"""As many as the peer allows."""


@pytest.fixture(params=[aiormq_driver.connect, pika_driver.connect], ids=["aiormq", "pika"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Of each driver in turn."""
    found: Connect = request.param
    return found


async def refused(link: Link, traffic: Recorder | None = None) -> None:
    channel = await link.channel(traffic=traffic)
    try:
        with pytest.raises(NotFound):
            async with link.calling():
                await channel.queue_declare("q", passive=True)
    finally:
        await link.drop(channel)


def test_a_number_comes_again_after_all_others() -> None:
    numbers = Numbers(3)
    assert [numbers.take() for _ in range(4)] == [1, 2, 3, None]
    numbers.free(2)
    numbers.free(1)
    assert [numbers.take() for _ in range(3)] == [2, 1, None]


def test_a_number_is_taken_again_only_when_both_sides_have_closed_it(connect: Connect) -> None:
    """RabbitMQ ends the connection that opens a channel before it has confirmed that the last one is closed."""

    async def check(peer: Peer, link: Link) -> None:
        async def ask() -> None:
            for _ in range(20):
                await refused(link)

        await asyncio.gather(*(ask() for _ in range(5)))
        assert peer.faults == []
        assert peer.heard.count("Channel.Open") == 100

    with_peer(connect, check)


def test_who_drops_a_channel_late_or_twice_does_not_touch_the_next_of_its_number(connect: Connect) -> None:
    async def check(_peer: Peer, link: Link) -> None:
        mine, next_one = Recorder(), Recorder()
        channel = await link.channel(traffic=mine)
        with pytest.raises(NotFound):
            await channel.queue_declare("q", passive=True)
        assert mine.heard == [("closed", 404, "NOT_FOUND - no queue")]
        for _ in range(CHANNELS - 1):
            await refused(link)
        others = [await link.channel(traffic=next_one) for _ in range(CHANNELS - 1)]
        assert channel.number not in {other.number for other in others}
        with pytest.raises(BackendError, match="allows 10 channels on a connection"):
            await link.channel()
        await link.drop(channel)
        last = await link.channel(traffic=next_one)
        assert last.number == channel.number
        await link.drop(channel)
        link.stream.data_received(marshal(commands.Basic.Ack(5), last.number))
        assert next_one.heard == [("confirmed", 5, False, True)]

    with_peer(connect, check)


def test_messages_that_come_while_a_channel_is_being_closed_are_nobodys() -> None:
    async def check(_peer: Peer, link: Link) -> None:
        mine, next_one = Recorder(), Recorder()
        stream, driver = link.stream, Driver()
        channel = await link.channel(traffic=mine)
        number = channel.number
        began = marshal(commands.Basic.Deliver("c", 1, exchange="e", routing_key="k"), number)
        rest = marshal(ContentHeader(0, 2), number) + marshal(ContentBody(b"hi"), number)
        stream.data_received(began)
        stream.silence(number)
        stream.driver, real = driver, stream.driver
        stream.data_received(rest + began + rest + began)
        stream.driver = real
        assert (mine.heard, driver.read) == ([], b"")
        await link.drop(channel)
        stream.route(number, next_one)
        stream.data_received(marshal(commands.Basic.Deliver("c", 1, exchange="f", routing_key="l"), number) + rest)
        assert next_one.heard == [("delivered", 1, ("f", "l"), b"hi", False)]

    with_peer(pika_driver.connect, check)
