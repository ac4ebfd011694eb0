"""That frames reach whom they concern, however the network cuts them."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from mqkit.backends.rabbitmq import frames
from mqkit.backends.rabbitmq.stream import Frames
from mqkit.errors import ConnectionLost


class Recorder:
    """A Traffic that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def confirmed(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        self.heard.append(("confirmed", tag, multiple, accepted))

    def returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        self.heard.append(("returned", text, exchange, routing_key))

    def delivered(self, tag: int, where: tuple[str, str], header: bytes, body: bytes, *, redelivered: bool) -> None:
        self.heard.append(("delivered", tag, where, body, redelivered))

    def cancelled(self) -> None:
        self.heard.append(("cancelled",))

    def closed(self, code: int, text: str) -> None:
        self.heard.append(("closed", code, text))

    def lost(self, error: ConnectionLost) -> None:
        self.heard.append(("lost", str(error)))


class Driver(asyncio.Protocol):
    """What it is given to read."""

    def __init__(self) -> None:
        self.read = b""

    def data_received(self, data: bytes) -> None:
        self.read += data


def listening(check: Callable[[Frames, Recorder, Driver], None]) -> None:
    async def run() -> None:
        driver = Driver()
        stream = Frames(asyncio.get_running_loop(), "here:5672", driver)
        stream.established = True
        recorder = Recorder()
        stream.traffic[3] = recorder
        check(stream, recorder, driver)

    asyncio.run(run())


BASIC = commands.Basic
SEEN = [
    (BASIC.Deliver("c", 1, redelivered=True, exchange="e", routing_key="k"), ContentHeader(0, 10), b"01234", b"56789"),
    (BASIC.Ack(7, multiple=True),),
    (BASIC.Deliver("c", 2, exchange="", routing_key="q"), ContentHeader(0, 0)),
    (BASIC.Return(312, "NO_ROUTE", "e", "k"), ContentHeader(0, 2), b"hi"),
    (BASIC.Nack(8),),
]
HEARD = [
    ("delivered", 1, ("e", "k"), b"0123456789", True),
    ("confirmed", 7, True, True),
    ("delivered", 2, ("", "q"), b"", False),
    ("returned", "NO_ROUTE", "e", "k"),
    ("confirmed", 8, False, False),
]


def wire_data(channel: int = 3) -> bytes:
    found = b""
    for message in SEEN:
        for frame in message:
            found += marshal(ContentBody(frame) if isinstance(frame, bytes) else frame, channel)
    return found


@given(st.lists(st.integers(1, 120), max_size=30))
def test_frames_are_understood_however_they_are_cut(cuts: list[int]) -> None:
    def check(stream: Frames, recorder: Recorder, driver: Driver) -> None:
        data = wire_data()
        for cut in cuts:
            piece, data = data[:cut], data[cut:]
            if piece:
                stream.data_received(piece)
        stream.data_received(data)
        assert recorder.heard == HEARD

    listening(check)


def test_what_is_of_another_channel_or_rare_is_left_to_the_driver() -> None:
    def check(stream: Frames, recorder: Recorder, driver: Driver) -> None:
        other = wire_data(channel=4) + marshal(commands.Queue.DeclareOk("q", 1, 2), 3) + frames.HEARTBEAT
        stream.data_received(other)
        assert recorder.heard == []
        assert driver.read == other

    listening(check)


def test_what_both_must_know_reaches_both() -> None:
    def check(stream: Frames, recorder: Recorder, driver: Driver) -> None:
        both = marshal(commands.Basic.Cancel("c"), 3) + marshal(commands.Channel.Close(404, "gone", 0, 0), 3)
        stream.data_received(both)
        assert recorder.heard == [("cancelled",), ("closed", 404, "gone")]
        assert driver.read == both

    listening(check)


def test_a_blocked_connection_is_not_writable_until_it_is_unblocked() -> None:
    def check(stream: Frames, _recorder: Recorder, _driver: Driver) -> None:
        assert stream.writable
        stream.data_received(marshal(commands.Connection.Blocked("low on memory"), 0))
        assert (stream.writable, stream.blocked) == (False, "low on memory")
        stream.pause_writing()
        stream.data_received(marshal(commands.Connection.Unblocked(), 0))
        assert not stream.writable
        stream.resume_writing()
        assert stream.writable

    listening(check)


def test_a_lost_connection_is_told_at_once_with_its_reason() -> None:
    def check(stream: Frames, recorder: Recorder, _driver: Driver) -> None:
        stream.data_received(marshal(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0))
        stream.connection_lost(None)
        assert recorder.heard == [("lost", "lost the connection to RabbitMQ at here:5672: 320 CONNECTION_FORCED - bye")]

    listening(check)
