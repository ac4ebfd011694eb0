"""RabbitMQ over TLS, in both colours: through a gate before the broker that has a certificate."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from mqkit.backend import Backend, Subscription
from mqkit.errors import AuthenticationFailed, ConfigurationError, ConnectionLost
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology
from tests.brokers import Broker
from tests.integration.test_rabbitmq import Colour, Site


@pytest.fixture(params=["asynchronous", "blocking"])
def colour(request: pytest.FixtureRequest) -> Colour:
    found: Colour = request.param
    return found


@pytest.fixture
def certificate(rabbitmq_broker: Broker, tmp_path: Path) -> Path:
    """For 127.0.0.1, with its key, signed by itself."""
    made = rabbitmq_broker.run(
        *[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "-",
            "-out",
            "-",
        ],
        *["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
    )
    path = tmp_path / "gate.pem"
    path.write_text("\n".join(re.findall(r"-----BEGIN.*?-----END[^\n]*", made, re.DOTALL)) + "\n")
    return path


@asynccontextmanager
async def gate(broker: Broker, certificate: Path) -> AsyncGenerator[int]:
    """The port of it."""
    behind = urlsplit(broker.url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # of the gate, whose clients have gone
            assert not (await asyncio.wait(left, timeout=10))[1]


def through_gate(
    broker: Broker, colour: Colour, certificate: Path, query: str, test: Callable[[Backend], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with gate(broker, certificate) as port:
            backend = Site(broker, colour).backend(f"amqps://guest:guest@127.0.0.1:{port}/?{query}")
            try:
                await test(backend)
            finally:
                await backend.close()

    asyncio.run(run())


@pytest.mark.parametrize("query", ["cafile={}", "no_verify_ssl=1"])
def test_messages_go_both_ways(rabbitmq_broker: Broker, colour: Colour, certificate: Path, query: str) -> None:
    body = bytes(1_000_000)

    async def test(backend: Backend) -> None:
        topic = f"t-{uuid4().hex}"
        await backend.declare(Topology((TopicNeed(topic, frozenset({"g"})),)))
        sender = await backend.open_sender()
        await sender.send([Outgoing(WireMessage(body), topic)] * 3, 20)
        await sender.close()
        receiver = await backend.open_receiver(Subscription(topic=topic, group="g"), lambda *_: None)
        found = 0
        while found < 3:
            deliveries = await receiver.receive(3, 20)
            assert deliveries
            found += len(deliveries)
            assert {delivery.message.body for delivery in deliveries} == {body}
        await receiver.close()

    through_gate(rabbitmq_broker, colour, certificate, query.format(certificate), test)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    rabbitmq_broker: Broker, colour: Colour, certificate: Path
) -> None:
    async def test(backend: Backend) -> None:
        with pytest.raises(ConnectionLost, match=r"no TLS connection to RabbitMQ at 127\.0\.0\.1.*certificate"):
            await backend.connect(10)

    through_gate(rabbitmq_broker, colour, certificate, "", test)


@pytest.mark.parametrize("query", ["cafile=/nowhere.pem", "certfile=/nowhere.pem", "cadata=no+base64"])
def test_options_that_do_not_fit_are_named(rabbitmq_broker: Broker, colour: Colour, query: str) -> None:
    async def run() -> None:
        backend = Site(rabbitmq_broker, colour).backend(f"amqps://127.0.0.1:1/?{query}")
        with pytest.raises(ConfigurationError, match=r"the TLS options for RabbitMQ at 127\.0\.0\.1:1 do not fit"):
            await backend.connect(10)
        await backend.close()

    asyncio.run(run())


def test_a_way_to_log_in_that_is_not_offered_is_named(rabbitmq_broker: Broker, colour: Colour) -> None:
    async def run() -> None:
        backend = Site(rabbitmq_broker, colour).backend(rabbitmq_broker.url + "&auth=external")
        with pytest.raises(AuthenticationFailed, match="does not offer the authentication 'external'"):
            await backend.connect(10)
        await backend.close()

    asyncio.run(run())
