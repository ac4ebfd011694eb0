"""Attempts that happened in place, in an ordered group: who gets the message next knows them, whatever died between.

On both versions of the broker. The queue of notes is looked at with pika, as a stranger.
"""

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal
from uuid import uuid4

import pika
import pytest

from mqkit.backend import Settlement, Subscription
from mqkit.backends.rabbitmq import aiormq_driver, consuming, pika_driver
from mqkit.backends.rabbitmq.asynchronous import RabbitBackend
from mqkit.backends.rabbitmq.channels import Channel, Declared
from mqkit.backends.rabbitmq.consuming import RabbitReceiver
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.noting import Noting
from mqkit.errors import BackendError, ConfigurationError, ConnectionLost, LeaseLost, PublishError
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.testing.waiting import noted
from mqkit.topology import TopicNeed, Topology
from tests.brokers import Broker
from tests.rabbitmq_cleaning import remove_topics

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE
PATIENCE = 60.0
DEATHS = 20
MANY = 200
"""Many times what a channel keeps back: 32 commands."""


@pytest.fixture(params=["rabbitmq_broker", "rabbitmq_old_broker"])
def any_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each version in turn."""
    broker: Broker = request.getfixturevalue(request.param)
    yield broker
    remove_topics(broker, Group.topics)
    Group.topics.clear()


@pytest.fixture(autouse=True, params=[aiormq_driver.connect, pika_driver.connect], ids=["aiormq", "pika"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in turn: above it, both colours are the same."""
    monkeypatch.setattr(aiormq_driver, "connect", request.param)


class Group:
    """A topic of its own with the group `g`, and the processes that work on it: one backend each."""

    topics: ClassVar[list[str]] = []
    """Of all, until they are removed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.topic = f"t-{uuid4().hex}"
        self.topics.append(self.topic)
        self.notes = f"{self.topic}.g.retry.notes"
        self.backends: list[RabbitBackend] = []

    def process(self) -> RabbitBackend:
        self.backends.append(RabbitBackend(self.url))
        return self.backends[-1]

    async def member(
        self, process: RabbitBackend | None = None, ordering: Literal["key", "none"] = "key", prefetch: int = 100
    ) -> RabbitReceiver:
        subscription = Subscription(topic=self.topic, group="g", ordering=ordering, prefetch=prefetch)
        receiver = await (process or self.backends[0]).open_receiver(subscription, lambda kind, text: None)
        assert isinstance(receiver, RabbitReceiver)
        return receiver

    async def publish(self, *messages: WireMessage) -> None:
        sender = await self.backends[0].open_sender()
        await sender.send([Outgoing(message, self.topic) for message in messages], PATIENCE)
        await sender.close()


def at(broker: Broker, test: Callable[[Group], Awaitable[None]]) -> Group:
    """Runs `test`; no task, and no warning, may be left."""

    async def run() -> Group:
        group = Group(broker.url)
        await group.process().declare(Topology((TopicNeed(group.topic, frozenset({"g"})),)))
        try:
            await test(group)
        finally:
            for backend in group.backends:
                await backend.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # of aiormq, in their last step
            assert not (await asyncio.wait(left, timeout=5))[1]
        return group

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return asyncio.run(run())


def message(body: bytes = b"x", key: bytes = b"k", **facts: Any) -> WireMessage:
    return WireMessage(body, key=key, id=facts.pop("id", uuid4().hex), **facts)


async def collect(receiver: RabbitReceiver, number: int, timeout: float = PATIENCE) -> list[Delivery]:
    """Exactly `number` deliveries, or fail."""
    found: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(found) < number and time.monotonic() < deadline:
        found += await receiver.receive(number - len(found), 1.0)
    assert len(found) == number
    return found


async def settle(receiver: RabbitReceiver, found: Sequence[Delivery], settlement: Settlement = DONE) -> None:
    await receiver.settle([(delivery.token, settlement) for delivery in found])


def die(process: RabbitBackend) -> None:
    """As a process does that is killed: both sockets are gone, and nothing was said."""
    for link in process._links.values():
        assert link.stream.transport is not None
        link.stream.transport.abort()


@contextmanager
def stranger(broker: Broker) -> Iterator[Any]:
    """A channel of a client that knows nothing of mqkit."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url.partition("?")[0]))
    try:
        yield connection.channel()
    finally:
        connection.close()


def lying(broker: Broker, queue: str, expected: int) -> int:
    """How many messages lie in `queue`; acknowledgements take their moment, so `expected` is given one."""
    deadline = time.monotonic() + 5
    with stranger(broker) as channel:
        while True:
            found = lying_now(channel, queue)
            if found == expected or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


def lying_now(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def test_what_was_noted_is_known_to_the_next_session(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(message(b"1"), message(b"2"))
        await group.publish(message(b"3", b"other"))  # in a batch it may be before the second of another key
        receiver = await group.member()
        first, _, third = found = await collect(receiver, 3)
        assert [one.spent for one in found] == [0, 0, 0]
        await noted(receiver, [(first.token, 1)])
        await noted(receiver, [(first.token, 2), (third.token, 7)])
        await noted(receiver, [])
        await receiver.close()
        receiver = await group.member()
        found = await collect(receiver, 3)
        assert [(one.message.body, one.spent) for one in found] == [(b"1", 2), (b"2", 0), (b"3", 7)]
        await noted(receiver, [(found[0].token, 3)])
        await receiver.close()
        receiver = await group.member()
        assert [one.spent for one in await collect(receiver, 3)] == [3, 0, 7]
        await receiver.close()

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 2) == 2


def test_whoever_takes_over_from_the_dead_knows_what_it_noted(any_broker: Broker) -> None:
    """The successor stands by, or comes later; the death comes right after the note."""

    async def test(group: Group) -> None:
        await group.publish(*(message(b"%d" % number, b"k%d" % (number % 3)) for number in range(9)))
        process = group.process()
        member = await group.member(process)
        for death in range(DEATHS):
            found = await collect(member, 9)
            assert [one.spent for one in found] == [death] * 6 + [0] * 3, death
            successor = group.process()
            if death % 2:
                heir = await group.member(successor)
            await noted(member, [(one.token, death + 1) for one in found[:6]])
            die(process)
            if not death % 2:
                heir = await group.member(successor)
            await member.close()
            await process.close()
            process, member = successor, heir
        await settle(member, await collect(member, 9))
        await member.close()

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 0) == 0


def test_all_notes_are_read_before_the_first_message_is_handed_out(
    any_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they are under way."""

    async def test(group: Group) -> None:
        def delivered(noting: Noting, *delivery: Any, **facts: Any) -> None:
            asyncio.get_running_loop().call_later(0.3, partial(deliver, noting, *delivery, **facts))

        await publish_many(group)
        receiver = await group.member(prefetch=MANY)
        found = await collect(receiver, MANY)
        await noted(receiver, [(one.token, int(one.message.body) + 1) for one in reversed(found)])
        await receiver.close()
        deliver = Noting.delivered
        monkeypatch.setattr(Noting, "delivered", delivered)
        receiver = await group.member(prefetch=MANY)
        found = await collect(receiver, MANY)
        assert [(int(one.message.body), one.spent) for one in found] == [(n, n + 1) for n in range(MANY)]
        await receiver.close()

    at(any_broker, test)


async def publish_many(group: Group) -> None:
    """Numbered, each with a key of its own."""
    await group.publish(*(message(b"%d" % number, key=b"%d" % number) for number in range(MANY)))


@pytest.mark.parametrize("alone", [False, True])
def test_when_a_session_is_closed_the_notes_of_all_that_is_done_are_gone(
    any_broker: Broker, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Each second one was acknowledged in a frame of its own, and the channel kept most of these back.

    Alone: without the wait for the channel of the messages, which gives that of the notes time.
    """

    async def at_once(*_: object) -> None: ...

    if alone:
        monkeypatch.setattr(consuming, "acted_upon", at_once)

    async def test(group: Group) -> None:
        await publish_many(group)
        receiver = await group.member(prefetch=MANY)
        found = await collect(receiver, MANY)
        await noted(receiver, [(one.token, 1) for one in found])
        await settle(receiver, found[1::2])
        await receiver.close()
        with stranger(any_broker) as channel:
            assert lying_now(channel, group.notes) == MANY // 2
        if alone:
            return
        receiver = await group.member(prefetch=MANY)
        assert {one.spent for one in await collect(receiver, MANY // 2)} == {1}
        await receiver.close()

    at(any_broker, test)


def test_what_is_done_takes_its_notes_with_it(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(*(message(b"%d" % number) for number in range(20)))
        receiver = await group.member()
        found = await collect(receiver, 20)
        for one in found:
            await noted(receiver, [(one.token, 1)])
            await noted(receiver, [(one.token, 2)])
            await settle(receiver, [one])
        await receiver.close()
        receiver = await group.member()
        await group.publish(message(b"left"))
        (last,) = await collect(receiver, 1)
        note = asyncio.create_task(noted(receiver, [(last.token, 1)]))
        await asyncio.sleep(0)  # the note is under way
        await settle(receiver, [last])
        await receiver.close()
        await asyncio.gather(note, return_exceptions=True)

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 0) == 0
    assert lying(any_broker, f"{group.topic}.g", 0) == 0


def test_a_stale_token_is_a_lost_lease_and_the_others_are_noted(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(message(b"1"), message(b"2"), message(b"3"))
        receiver = await group.member()
        first, second, third = await collect(receiver, 3)
        await settle(receiver, [first])
        await settle(receiver, [second], RELEASE)
        asked = [(one.token, 4) for one in (first, second, third)]
        with pytest.raises(LeaseLost, match="3 deliveries"):
            await noted(receiver, [*asked, ((0, 1), 4)])
        await receiver.close()
        receiver = await group.member()
        assert [one.spent for one in await collect(receiver, 2)] == [0, 4]
        with pytest.raises(LeaseLost):
            await noted(receiver, asked[2:])
        await receiver.close()

    at(any_broker, test)


def test_a_session_that_gives_back_keeps_the_count(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(message(b"1"), message(b"2"))
        receiver = await group.member()
        for attempt in range(5):
            found = await collect(receiver, 2)
            assert [one.spent for one in found] == [attempt, 0]
            await noted(receiver, [(found[0].token, attempt + 1)])
            await settle(receiver, found, RELEASE)
        await settle(receiver, await collect(receiver, 2))
        await receiver.close()

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 0) == 0


def test_of_messages_that_are_alike_each_keeps_its_own_count(any_broker: Broker) -> None:
    """A stranger's, without an id, the same bytes again and again."""

    async def test(group: Group) -> None:
        await group.publish(*(message(b"tick", id=None) for _ in range(3)))
        receiver = await group.member()
        found = await collect(receiver, 3)
        await noted(receiver, [(found[0].token, 3)])
        await settle(receiver, found[1:2])
        await receiver.close()
        receiver = await group.member()
        first, second = await collect(receiver, 2)
        assert (first.spent, second.spent) == (3, 0)
        await settle(receiver, [first])
        await receiver.close()
        receiver = await group.member()
        assert [one.spent for one in await collect(receiver, 1)] == [0]
        await receiver.close()

    at(any_broker, test)


@pytest.mark.own_broker
def test_notes_outlive_a_restart_of_the_broker(rabbitmq_broker: Broker) -> None:
    async def test(group: Group) -> None:
        stranges = {"f": 1.5, "n": None, "deep": {"b": [1, b"\xff"], "a": True}, "text": "\N{SNOWMAN}"}
        await group.publish(message(b"1", headers=stranges), message(b"2"))
        receiver = await group.member()
        found = await collect(receiver, 2)
        await noted(receiver, [(found[0].token, 2)])
        rabbitmq_broker.restart()
        with pytest.raises(ConnectionLost):
            await noted(receiver, [(found[0].token, 3)])
        await receiver.close()
        receiver = await group.member(group.process())
        assert [one.spent for one in await collect(receiver, 2)] == [2, 0]
        await receiver.close()

    at(rabbitmq_broker, test)


@pytest.mark.own_broker
def test_while_the_broker_blocks_a_note_ends_in_time_and_acknowledgements_go_on(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(*(message(b"%d" % number) for number in range(3)))
        receiver = await group.member()
        first, second, third = await collect(receiver, 3)
        await noted(receiver, [(first.token, 1)])
        with any_broker.memory_alarm():
            await until_blocked(group)
            started = time.monotonic()
            with pytest.raises(BackendError, match=r"notes.*blocks publishers") as caught:
                await noted(receiver, [(third.token, 1)])
            assert time.monotonic() - started < 30, "the alarm would last for ever"
            assert caught.value.retryable
            assert not isinstance(caught.value, (ConnectionLost, LeaseLost, PublishError))
            await settle(receiver, [first, second])
            await receiver.close()
            receiver = await group.member()  # who takes over is not kept waiting either
            (third,) = await collect(receiver, 1)
            assert third.spent == 0
        await noted(receiver, [(third.token, 2)])
        await receiver.close()

    async def until_blocked(group: Group) -> None:
        """RabbitMQ says so only to a connection that publishes: what it read before is unknown."""
        deadline = time.monotonic() + PATIENCE
        elsewhere = Outgoing(WireMessage(b""), "elsewhere", "dead")
        sender = await group.backends[0].open_sender()
        while time.monotonic() < deadline:
            try:
                await sender.send([elsewhere], 0.3)
            except PublishError as error:
                if "blocks publishers" in str(error) and error.rejected:
                    break
        await sender.close()

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 1) == 1


def test_notes_that_vanish_after_they_were_counted_are_not_waited_for(
    any_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(group: Group) -> None:
        async def consume(link: Link, channel: Channel, queue: str, prefetch: int) -> str:
            if queue == group.notes and not purged:
                with stranger(any_broker) as other:
                    purged.append(other.queue_purge(queue).method.message_count)
            return await begin(link, channel, queue, prefetch)

        await group.publish(message(b"1"))
        receiver = await group.member()
        (found,) = await collect(receiver, 1)
        await noted(receiver, [(found.token, 2)])
        await receiver.close()
        purged: list[int] = []
        begin = Link.consume
        monkeypatch.setattr(Link, "consume", consume)
        receiver = await group.member()
        assert [one.spent for one in await collect(receiver, 1)] == [0]
        assert purged == [1]
        await receiver.close()

    at(any_broker, test)


def test_nothing_begins_while_a_predecessor_holds_notes_even_if_rabbitmq_could_not_tell(
    any_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers that there are no messages and no consumers when it cannot reach the queue's leader in 250 ms."""

    async def test(group: Group) -> None:
        async def declare(channel: Channel, queue: str = "", **options: Any) -> Declared:
            answer: Declared = await asked[type(channel)](channel, queue, **options)
            if queue == group.notes and not told:
                told.append(answer)
                return Declared(queue, 0, 0)
            return answer

        await group.publish(message(b"1"))
        receiver = await group.member()
        (found,) = await collect(receiver, 1)
        await noted(receiver, [(found.token, 2)])
        await receiver.close()
        told: list[Declared] = []
        asked: dict[type, Any] = {
            kind: kind.queue_declare for kind in (aiormq_driver.AiormqChannel, pika_driver.PikaChannel)
        }
        with stranger(any_broker) as predecessor:
            predecessor.basic_consume(group.notes, lambda *_: None)
            predecessor.connection.process_data_events(0.5)
            for kind in asked:
                monkeypatch.setattr(kind, "queue_declare", declare)
            receiver = await group.member()
            assert await receiver.receive(1, 1.0) == []
            assert told[0].consumers == 1
        assert [one.spent for one in await collect(receiver, 1)] == [2]
        await receiver.close()

    at(any_broker, test)


def test_a_strangers_message_among_the_notes_is_taken_away(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        with stranger(any_broker) as channel:
            channel.basic_publish("", group.notes, b"hello")
        await group.publish(message(b"1"))
        receiver = await group.member()
        await settle(receiver, await collect(receiver, 1))
        await receiver.close()

    group = at(any_broker, test)
    assert lying(any_broker, group.notes, 0) == 0


def test_without_its_queue_of_notes_an_ordered_group_does_not_begin(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        with stranger(any_broker) as channel:
            channel.queue_delete(group.notes)
        with pytest.raises(ConfigurationError, match=rf"{group.notes}.*topology apply"):
            await group.member()
        receiver = await group.member(ordering="none")
        await receiver.close()

    at(any_broker, test)


def test_a_session_ends_with_its_queue_of_notes(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        receiver = await group.member()
        with stranger(any_broker) as channel:
            channel.queue_delete(group.notes)
        with pytest.raises(ConnectionLost, match=group.notes):
            await receiver.receive(1, PATIENCE)
        await receiver.close()

    at(any_broker, test)


def test_a_session_that_is_lost_while_it_notes_says_so(any_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(message(b"1"))
        receiver = await group.member()
        (found,) = await collect(receiver, 1)
        note = asyncio.create_task(noted(receiver, [(found.token, 1)]))
        await asyncio.sleep(0)  # the note is under way
        link = group.backends[0]._links["receiving"]
        assert link.stream.transport is not None
        link.stream.transport.abort()
        with pytest.raises(ConnectionLost):
            await note
        await receiver.close()
        receiver = await group.member()
        assert [one.spent for one in await collect(receiver, 1)] == [1]
        await receiver.close()

    at(any_broker, test)


def test_a_group_without_order_takes_no_notes(rabbitmq_broker: Broker) -> None:
    async def test(group: Group) -> None:
        await group.publish(message(b"1"))
        receiver = await group.member(ordering="none")
        (found,) = await collect(receiver, 1)
        with pytest.raises(ConfigurationError, match="ordering"):
            await noted(receiver, [(found.token, 1)])
        with stranger(rabbitmq_broker) as channel:
            assert channel.queue_declare(group.notes, passive=True).method.consumer_count == 0
        await receiver.close()

    at(rabbitmq_broker, test)
