"""What mqkit needs of pika's inside is there; and what mqkit makes of it, by hand, without a broker."""

import asyncio

import pika.connection
import pytest

from mqkit.backends.rabbitmq import channels, pika_driver
from mqkit.backends.rabbitmq.channels import Channel, NotFound
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.options import parse_url
from mqkit.errors import BackendError, ConfigurationError, ConnectionLost
from tests.unit.rabbitmq.peer import Peer, with_peer


@pytest.mark.parametrize(
    ("where", "name"), [(where, name) for where, names in pika_driver.HOOKS for name in sorted(names)]
)
def test_this_pika_has_what_mqkit_takes_from_its_inside(where: type, name: str) -> None:
    assert callable(getattr(where, name))


def test_pika_leaves_open_what_the_adapter_fulfils_and_no_more() -> None:
    left_open = pika.connection.Connection.__abstractmethods__
    assert left_open
    assert left_open <= pika_driver.HOOKS[0][1]
    assert not pika_driver.Adapter.__abstractmethods__


def test_another_pika_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pika.connection.Connection, "_on_data_available")

    async def run() -> None:
        with pytest.raises(ConfigurationError, match=r"has no Connection\._on_data_available.*: use pika 1\.4"):
            await Link.open(parse_url("amqp://127.0.0.1:1/"), pika_driver.connect, 1)

    asyncio.run(run())


def test_a_channel_that_consumes_is_closed_without_cancelling_before() -> None:
    """What is out then goes back at once, in its order: turn.py builds upon it."""

    async def check(peer: Peer, link: Link) -> None:
        channel: Channel = await link.channel()
        assert await channel.consume("q", 7) == "tag"
        await link.drop(channel)
        assert channel.is_closed
        assert peer.heard[-3:] == ["Basic.Qos", "Basic.Consume", "Channel.Close"]

    with_peer(pika_driver.connect, check)


def test_a_cancelled_consumer_leaves_its_channel_open() -> None:
    async def check(peer: Peer, link: Link) -> None:
        channel = await link.channel()
        await channel.cancel(await channel.consume("q", 7))
        assert peer.heard[-1] == "Basic.Cancel"
        assert not channel.is_closed

    with_peer(pika_driver.connect, check)


def test_a_refusal_says_what_it_is_and_ends_the_channel() -> None:
    async def check(_peer: Peer, link: Link) -> None:
        channel = await link.channel()
        with pytest.raises(NotFound, match="no queue"):
            async with link.calling():
                await channel.queue_declare("q", passive=True)
        assert channel.is_closed
        with pytest.raises(channels.DriverError, match="closed"):
            await channel.queue_declare("q")

    with_peer(pika_driver.connect, check)


def test_a_call_whose_connection_is_lost_says_so() -> None:
    async def check(peer: Peer, link: Link) -> None:
        channel = await link.channel()
        asyncio.get_running_loop().call_soon(link.stream.abort)
        with pytest.raises(ConnectionLost, match="lost the connection"):
            async with link.calling():
                await channel.exchange_declare("nobody answers")
        with pytest.raises(ConnectionLost):
            await link.channel()

    with_peer(pika_driver.connect, check)


def test_what_the_broker_says_that_it_is() -> None:
    async def check(_peer: Peer, link: Link) -> None:
        assert (link.product, link.frame_max) == ("RabbitMQ 9.9", 131_072)

    with_peer(pika_driver.connect, check)


def test_a_handshake_that_the_driver_gives_up_is_told() -> None:
    async def check(_peer: Peer, _link: Link) -> None:
        pytest.fail("it cannot be opened")

    with pytest.raises(BackendError, match="does not offer the authentication 'plain'"):
        with_peer(pika_driver.connect, check, mechanisms="GSSAPI")
