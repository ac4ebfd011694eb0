"""What the broker's answers mean: which message is safe, refused or unknown, and which is written next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from mqkit.backends.rabbitmq import CAPABILITIES, wire
from mqkit.backends.rabbitmq.batches import Batch, Sending
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.options import parse_url
from mqkit.backends.rabbitmq.places import Place, place
from mqkit.backends.rabbitmq.publishing import Confirms, RabbitSender
from mqkit.backends.rabbitmq.stream import Frames
from mqkit.errors import BackendError, ConnectionLost, EncodeError, PublishError, Unroutable
from mqkit.message import Outgoing, WireMessage


class Kept(asyncio.Transport):
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return False


class Line:
    """A channel and its link, over a stream that keeps what is written: the broker's part is the test's."""

    number = 1
    frame_max = 131_072
    lost = None
    url = parse_url("amqp://here")

    def __init__(self) -> None:
        self.stream = Frames(asyncio.get_running_loop(), "here:5672")
        self.stream.transport = self.sent = Kept()
        self.confirms = Confirms(cast("Link", self), lambda _: None)
        self.confirms.channel = cast("Any", self)

    def raise_if_lost(self) -> None:
        """It is not."""

    def frames(self) -> list[Any]:
        self.stream.flush()
        data, found = self.sent.data, []
        while data:
            used, _, frame = unmarshal(data)
            found.append(frame)
            data = data[used:]
        return found

    @property
    def bodies(self) -> list[bytes]:
        """Of the messages that were written."""
        return [frame.value for frame in self.frames() if hasattr(frame, "value")]


def out(body: str, key: str | None = None, topic: str = "orders", **headers: str) -> Outgoing:
    return Outgoing(WireMessage(body.encode(), headers, key=key.encode() if key else None, id=body), topic)


@dataclass(slots=True)
class Sent:
    """One batch, given to a line."""

    line: Line
    batch: Batch = field(default_factory=lambda: Batch(asyncio.get_running_loop().create_future()))
    sendings: list[Sending] = field(default_factory=list)

    def send(self, *outgoing: Outgoing) -> None:
        for position, one in enumerate(outgoing):
            self.batch.left += 1
            sending = Sending(self.batch, position, one, place(one, {}), wire.encode(one.message))
            self.sendings.append(sending)
            self.line.confirms.send(sending)

    @property
    def settled(self) -> list[int]:
        return [sending.position for sending in self.sendings if sending.settled]


def on_a_line(work: Callable[[Line], object]) -> None:
    async def main() -> None:
        work(Line())

    asyncio.run(main())


Answer = tuple[int, bool, bool]
"""How many of what is open it names, whether it is for all up to that one, and whether they are taken."""


@given(
    st.integers(1, 12), st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans()), min_size=1, max_size=12)
)
def test_an_answer_settles_the_messages_that_it_names_and_no_other(number: int, answers: Sequence[Answer]) -> None:
    def work(line: Line) -> None:
        sent = Sent(line)
        sent.send(*(out(str(i)) for i in range(number)))
        open_tags = list(range(1, number + 1))
        refused: set[int] = set()
        for which, multiple, accepted in answers:
            if not open_tags:
                break
            at = min(which, len(open_tags))
            tag = open_tags[at - 1]
            named = open_tags[:at] if multiple else [tag]
            line.confirms.confirmed(tag, multiple=multiple, accepted=accepted)
            open_tags = [one for one in open_tags if one not in named]
            refused |= set() if accepted else {one - 1 for one in named}
            assert sent.settled == [i for i in range(number) if i + 1 not in open_tags]
            assert sent.batch.rejected.keys() == refused
            assert sent.batch.done.done() == (not open_tags)

    on_a_line(work)


def test_of_one_key_and_destination_one_message_is_on_its_way_and_others_flow() -> None:
    def work(line: Line) -> None:
        sent = Sent(line)
        sent.send(
            out("a1", "a"), out("a2", "a"), out("b1", "b"), out("none"), out("a3", "a"), out("other", "a", "bills")
        )
        assert line.bodies == [b"a1", b"b1", b"none", b"other"]
        line.confirms.confirmed(4, multiple=True, accepted=True)
        assert line.bodies == [b"a1", b"b1", b"none", b"other", b"a2"]
        line.confirms.confirmed(5, multiple=False, accepted=True)
        line.confirms.confirmed(6, multiple=False, accepted=True)
        assert line.bodies[-1] == b"a3"
        assert sent.batch.done.done()
        assert not line.confirms._behind

    on_a_line(work)


def test_what_stands_behind_a_refused_message_of_its_key_is_refused_too_in_every_batch() -> None:
    def work(line: Line) -> None:
        first, second = Sent(line), Sent(line)
        first.send(out("a1", "a"), out("a2", "a"), out("b1", "b"))
        second.send(out("a3", "a"), out("b2", "b"))
        line.confirms.confirmed(1, multiple=False, accepted=False)
        line.confirms.confirmed(2, multiple=False, accepted=True)
        line.confirms.confirmed(3, multiple=False, accepted=True)
        assert line.bodies == [b"a1", b"b1", b"b2"]
        assert first.batch.rejected.keys() == {0, 1}
        assert second.batch.rejected.keys() == {0}
        assert all(cast("BackendError", error).retryable for error in first.batch.rejected.values())
        first.send(out("a1", "a"))
        assert line.bodies[-1] == b"a1", "the key is free again"

    on_a_line(work)


def test_what_can_never_be_sent_keeps_nobody_back() -> None:
    def work(line: Line) -> None:
        sent = Sent(line)
        sent.send(out("a1", "a"), out("a2", "a"))
        line.confirms.returned("NO_ROUTE", "orders", "a", wire.encode(sent.sendings[0].outgoing.message))
        line.confirms.confirmed(1, multiple=False, accepted=True)
        assert isinstance(sent.batch.rejected[0], Unroutable)
        assert line.bodies == [b"a1", b"a2"]

    on_a_line(work)


@pytest.mark.parametrize("way", ["closed", "lost", "blocked"])
def test_what_was_not_written_is_no_unknown_outcome(way: str) -> None:
    def work(line: Line) -> None:
        sent = Sent(line)
        sent.send(out("a1", "a"), out("a2", "a"))
        if way == "closed":
            line.confirms.closed(406, "PRECONDITION_FAILED")
        elif way == "lost":
            line.confirms.lost(ConnectionLost("cut"))
        else:
            line.stream.blocked = "memory"
            line.confirms.confirmed(1, multiple=False, accepted=True)
        assert sent.batch.unknown.keys() == (set() if way == "blocked" else {0})
        assert sent.batch.rejected.keys() == {1}
        assert getattr(sent.batch.rejected[1], "retryable", False)
        assert line.bodies == [b"a1"]
        assert sent.batch.done.done()

    on_a_line(work)


def with_a_sender(work: Callable[[Line, RabbitSender], Awaitable[None]]) -> None:
    async def main() -> None:
        line = Line()
        sender = RabbitSender(cast("Link", line), {}, 1_000)
        sender._confirms = line.confirms
        sender._known |= {"orders", "nobody"}
        await work(line, sender)

    asyncio.run(main())


def test_reasons_stand_at_the_positions_of_their_messages_whatever_failed_before_them() -> None:
    async def work(line: Line, sender: RabbitSender) -> None:
        nobody = out("1", topic="nobody")
        batch = [out("0", CC="elsewhere"), nobody, out("2"), out("x" * 2_000), out("4"), out("5")]
        sending = asyncio.create_task(sender.send(batch, 30))
        await asyncio.sleep(0)
        line.confirms.returned("NO_ROUTE", "nobody", "", wire.encode(nobody.message))
        line.confirms.confirmed(1, multiple=False, accepted=True)
        line.confirms.confirmed(2, multiple=False, accepted=True)
        line.confirms.confirmed(3, multiple=False, accepted=False)
        line.confirms.closed(541, "INTERNAL_ERROR")
        with pytest.raises(PublishError) as found:
            await sending
        assert found.value.rejected.keys() == {0, 1, 3, 4}
        assert isinstance(found.value.rejected[0], EncodeError)
        assert isinstance(found.value.rejected[1], Unroutable)
        assert found.value.unknown.keys() == {5}

    with_a_sender(work)


def test_after_a_time_out_what_was_not_written_is_rejected_and_never_written() -> None:
    async def work(line: Line, sender: RabbitSender) -> None:
        with pytest.raises(PublishError) as found:
            await sender.send([out("a1", "a"), out("a2", "a"), out("b1", "b")], 0.01)
        assert found.value.unknown.keys() == {0, 2}
        assert found.value.rejected.keys() == {1}
        following = asyncio.create_task(sender.send([out("a3", "a")], 30))
        await asyncio.sleep(0)
        line.confirms.confirmed(1, multiple=False, accepted=True)
        line.confirms.confirmed(3, multiple=True, accepted=True)
        await following
        assert line.bodies == [b"a1", b"b1", b"a3"]

    with_a_sender(work)


def test_every_message_is_persistent_and_comes_back_if_nothing_would_receive_it() -> None:
    def work(line: Line) -> None:
        Sent(line).send(out("1"), out("2", "key", customer="x"))
        rich = Outgoing(WireMessage(b"3", properties={"priority": 3, "type": "t"}, id="3"), "orders")
        copies = [
            Outgoing(WireMessage(b"4"), "orders", "g", delay=1),
            Outgoing(WireMessage(b"5"), "orders", "g", dead=True),
        ]
        Sent(line).send(rich, *copies)
        published = [frame for frame in line.frames() if isinstance(frame, Basic.Publish)]
        assert len(published) == 5
        assert all(frame.mandatory for frame in published)
        headers = [frame for frame in line.frames() if isinstance(frame, ContentHeader)]
        assert [frame.properties.delivery_mode for frame in headers] == [2] * 5

    on_a_line(work)


def test_a_sender_asks_for_confirmations() -> None:
    async def main() -> None:
        line = Line()
        asked: list[bool] = []

        async def channel(*, confirms: bool, traffic: object) -> object:
            asked.append(confirms)
            raise ConnectionLost("enough")

        line.channel = channel  # type: ignore[attr-defined]
        sender = RabbitSender(cast("Link", line), {}, 1_000)
        with suppress(ConnectionLost):
            await sender.send([out("1")], 1)
        assert asked == [True]

    asyncio.run(main())


def test_attributes_are_called_as_the_amqp_binding_of_cloudevents_says() -> None:
    assert CAPABILITIES.attribute_prefix == "cloudEvents_"
    assert wire.KEY == "cloudEvents_partitionkey"


def test_a_place_is_where_a_returned_message_came_from() -> None:
    assert place(out("1", "key"), {"orders": "old-orders"}) == Place("old-orders", "key")


@pytest.mark.parametrize(
    ("opened", "usable", "blocked", "why"),
    [
        (False, True, "low on memory", "low on memory"),
        (False, True, None, "not sent in time"),
        (True, True, "low on memory", "low on memory"),
        (True, False, None, "closed the channel over a message before it"),
    ],
    ids=["blocked before a channel was open", "no channel in time", "blocked", "closed"],
)
def test_what_was_not_sent_says_what_kept_it(opened: bool, usable: bool, blocked: str | None, why: str) -> None:
    async def main() -> None:
        line = Line()
        sender = RabbitSender(cast("Link", line), {}, 1000)
        line.stream.blocked = blocked
        line.confirms.usable = usable
        sender._confirms = line.confirms if opened else None
        assert why in str(sender._unsent())

    asyncio.run(main())
