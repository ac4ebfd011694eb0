"""A broker for one connection, by hand: what a driver of ours does on its channels is seen frame by frame."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal, unmarshal
from pamqp.header import ProtocolHeader

from mqkit.backends.rabbitmq import frames
from mqkit.backends.rabbitmq.channels import Connect
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.options import parse_url

ANSWERS: dict[object, Frame] = {
    commands.Connection.StartOk: commands.Connection.Tune(10, 131_072, 0),
    commands.Connection.Open: commands.Connection.OpenOk(),
    commands.Connection.Close: commands.Connection.CloseOk(),
    commands.Channel.Open: commands.Channel.OpenOk(),
    commands.Channel.Close: commands.Channel.CloseOk(),
    commands.Basic.Qos: commands.Basic.QosOk(),
    commands.Basic.Consume: commands.Basic.ConsumeOk("tag"),
    commands.Basic.Cancel: commands.Basic.CancelOk("tag"),
    commands.Queue.Declare: commands.Channel.Close(404, "NOT_FOUND - no queue", 50, 10),
}


class Peer:
    """Says hello, answers by a table, and writes down what it heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.mechanisms = "PLAIN"
        self.writers: list[asyncio.StreamWriter] = []
        self.open: set[int] = set()
        self.faults: list[str] = []
        """For which RabbitMQ would end the connection."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.readexactly(len(ProtocolHeader(0, 9, 1).marshal()))
        product: dict[str, Any] = {"product": "RabbitMQ", "version": "9.9", "capabilities": {"basic.nack": True}}
        writer.write(marshal(commands.Connection.Start(0, 9, product, self.mechanisms), 0))
        try:
            while True:
                head = await reader.readexactly(7)
                rest = await reader.readexactly(frames.HEAD.unpack(head)[2] + 1)
                _, number, frame = unmarshal(head + rest)
                self.heard.append(frame.name)
                self._keep_count(number, frame.name)
                if (answer := ANSWERS.get(type(frame))) is not None:
                    writer.write(marshal(answer, number))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _keep_count(self, number: int, name: str) -> None:
        if name == "Channel.Open":
            if number in self.open:
                self.faults.append(f"second 'channel.open' seen on {number}")
            self.open.add(number)
        elif name in {"Channel.Close", "Channel.CloseOk"}:
            self.open.discard(number)


def with_peer(connect: Connect, check: Callable[[Peer, Link], Awaitable[None]], **traits: str) -> None:
    """Runs `check` on a link that `connect` made to such a broker."""

    async def run() -> None:
        peer = Peer()
        vars(peer).update(traits)
        server = await asyncio.start_server(peer.talk, "127.0.0.1")
        url = parse_url(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/?heartbeat=0")
        try:
            link = await Link.open(url, connect, 5)
            try:
                await check(peer, link)
            finally:
                await link.close()
        finally:
            for writer in peer.writers:
                writer.close()
            server.close()
            await server.wait_closed()

    asyncio.run(run())
