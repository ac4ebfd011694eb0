"""What RabbitMQ alone does: faults, refusals, types, topology. What every backend does is tests/conformance.

A test talks to the seam, and to the broker with pika where it plays a stranger.
"""

import asyncio
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import pika
import pika.exceptions
import pytest

from mqkit import AsyncApp, Retry, Topic
from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.backends.rabbitmq import RabbitTopic, asynchronous, blocking, io_thread, turn
from mqkit.backends.rabbitmq.channels import Channel
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.places import due_queue
from mqkit.bridge import for_event_loop
from mqkit.errors import (
    AuthenticationFailed,
    BackendError,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    LeaseLost,
    MessageTooLarge,
    PublishError,
    TopologyError,
    Unroutable,
)
from mqkit.message import Delivery, HeaderValue, Outgoing, WireMessage
from mqkit.topology import STEPS, TopicNeed, Topology
from tests.brokers import Broker
from tests.rabbitmq_api import policy
from tests.rabbitmq_cleaning import remove_topics

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE
PATIENCE = 60.0
Colour: TypeAlias = Literal["asynchronous", "blocking"]


@dataclass(frozen=True, slots=True)
class Site:
    """A broker, and the colour of the backends that are tried on it."""

    broker: Broker
    colour: Colour

    def backend(self, url: str | None = None) -> Backend:
        """Of the broker's URL, or of another."""
        made = asynchronous.RabbitBackend if self.colour == "asynchronous" else blocking.RabbitBackend
        return for_event_loop(self.colour, made(url or self.broker.url))


@pytest.fixture(params=["asynchronous", "blocking"])
def colour(request: pytest.FixtureRequest) -> Colour:
    """Each in turn."""
    found: Colour = request.param
    return found


@pytest.fixture
def newest(rabbitmq_broker: Broker, colour: Colour) -> Site:
    """The newest version."""
    return Site(rabbitmq_broker, colour)


@pytest.fixture(
    params=[
        ("rabbitmq_broker", "asynchronous"),
        ("rabbitmq_broker", "blocking"),
        ("rabbitmq_old_broker", "asynchronous"),
    ],
    ids="-".join,
)
def each(request: pytest.FixtureRequest) -> Site:
    """Each version in turn; what the colours have of their own knows of no version."""
    broker, colour = request.param
    return Site(request.getfixturevalue(broker), colour)


def core(outside: Any) -> Any:
    """What a backend or session is at heart, whatever its colour."""
    while (inside := getattr(outside, "_backend", None) or getattr(outside, "_receiver", None)) is not None:
        outside = inside
    return getattr(outside, "_broker", outside)


def cut(backend: Backend, use: str) -> None:
    """Its connection is lost, as when a cable is pulled."""
    stream = core(backend)._links[use].stream
    stream.loop.call_soon_threadsafe(stream.abort)


class Session:
    """A backend, and a topic of its own with the group `g`."""

    def __init__(self, backend: Backend, topic: str) -> None:
        self.backend = backend
        self.topic = topic

    async def receiver(self, group: str = "g", **options: Any) -> Receiver:
        subscription = Subscription(topic=self.topic, group=group, **options)
        return await self.backend.open_receiver(subscription, lambda kind, text: None)

    def out(self, body: bytes = b"x", **options: Any) -> Outgoing:
        message = {name: options.pop(name) for name in ("headers", "key", "properties", "id") if name in options}
        return Outgoing(WireMessage(body, **message), options.pop("topic", self.topic), **options)

    async def send(self, *outgoing: Outgoing, timeout: float = PATIENCE) -> None:
        sender = await self.backend.open_sender()
        try:
            await sender.send(outgoing, timeout)
        finally:
            await sender.close()


def at(site: Site, test: Callable[[Session], Awaitable[None]], *, query: str = "", **need: Any) -> None:
    """Runs `test` with a topic of its own; no task, and no warning, may be left.

    Where the broker was `restarted`, the topic stays: to delete a queue soon after a start breaks RabbitMQ 4.0 for good.
    """

    async def run() -> None:
        backend = site.backend(site.broker.url + query)
        topic = f"t-{uuid4().hex}"
        try:
            options = need.get("options", ())
            groups = frozenset(need.get("groups", ("g",)))
            await backend.declare(Topology((TopicNeed(topic, groups, options),)))
            await test(Session(backend, topic))
        finally:
            await backend.close()
            if not need.get("restarted"):
                remove_topics(site.broker, [topic])
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # of aiormq, in their last step
            assert not (await asyncio.wait(left, timeout=5))[1]
        assert io_thread.NAME not in {thread.name for thread in threading.enumerate()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(run())


async def collect(receiver: Receiver, number: int, timeout: float = PATIENCE) -> list[Delivery]:
    """Exactly `number` deliveries, or fail."""
    found: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(found) < number and time.monotonic() < deadline:
        found += await receiver.receive(number - len(found), 1.0)
    assert len(found) == number
    return found


async def settle(receiver: Receiver, found: Sequence[Delivery], settlement: Settlement = DONE) -> None:
    await receiver.settle([(delivery.token, settlement) for delivery in found])


async def until(fact: Callable[[], Awaitable[bool]], timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not await fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.05)


@contextmanager
def setting(broker: Broker, name: str, value: int, default: int) -> Iterator[None]:
    """Within the block the broker's own setting is another."""
    command = "application:set_env(rabbit, {}, {})"
    broker.evaluate(command.format(name, value))
    try:
        yield
    finally:
        broker.evaluate(command.format(name, default))


@contextmanager
def stranger(broker: Broker) -> Iterator[Any]:
    """A channel of a client that knows nothing of mqkit."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url.partition("?")[0]))
    try:
        yield connection.channel()
    finally:
        connection.close()


# --- connecting


def test_connecting_names_the_product_and_version(each: Site) -> None:
    async def test(session: Session) -> None:
        assert (await session.backend.connect(5)).startswith("RabbitMQ 4.")

    at(each, test)


def refusal(site: Site, url: str, timeout: float = 5) -> BaseException:
    async def run() -> BaseException:
        backend = site.backend(url)
        try:
            with pytest.raises(BackendError) as caught:
                await backend.connect(timeout)
        finally:
            await backend.close()
        return caught.value

    return asyncio.run(run())


def test_a_wrong_password_is_an_authentication_failure(newest: Site) -> None:
    error = refusal(newest, newest.broker.url.replace("guest:guest", "guest:wrong", 1))
    assert isinstance(error, AuthenticationFailed)
    assert "guest" in str(error)
    assert "wrong" not in str(error)


def test_a_virtual_host_that_is_not_there_is_an_authentication_failure(newest: Site) -> None:
    error = refusal(newest, newest.broker.url.replace("/?", "/nowhere?"))
    assert isinstance(error, AuthenticationFailed)
    assert "nowhere" in str(error)


def test_nobody_there_names_host_port_and_reason(newest: Site) -> None:
    error = refusal(newest, "amqp://127.0.0.1:1/")
    assert isinstance(error, ConnectionLost)
    assert "127.0.0.1:1" in str(error)
    assert "refused" in str(error)


def test_a_host_that_does_not_answer_is_given_up_in_time(newest: Site) -> None:
    async def run() -> None:
        async def silence(_reader: object, writer: asyncio.StreamWriter) -> None:
            await ended.wait()
            writer.close()

        ended = asyncio.Event()
        server = await asyncio.start_server(silence, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        backend = newest.backend(f"amqp://127.0.0.1:{port}/")
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"did not answer within 0\.3 s"):
            await backend.connect(0.3)
        assert time.monotonic() - started < 20, "not the minutes of TCP"
        await backend.close()
        ended.set()
        server.close()
        await server.wait_closed()

    asyncio.run(run())


# --- sending


def test_a_batch_arrives_once_in_its_order_and_in_each_group(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i, key=b"k") for i in range(2_000)))
        for group in ("g", "h"):
            receiver = await session.receiver(group, prefetch=50)
            found: list[Delivery] = []
            while len(found) < 2_000:
                some = await receiver.receive(50, PATIENCE)
                found += some
                await settle(receiver, some)
            assert [int(delivery.message.body) for delivery in found] == list(range(2_000))
            await receiver.close()

    at(each, test, groups=("g", "h"))


def test_several_batches_may_be_in_flight_and_keep_their_order(newest: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        batches = [[session.out(b"%d" % (10 * i + j), key=b"k") for j in range(10)] for i in range(50)]
        await asyncio.gather(*(sender.send(batch, PATIENCE) for batch in batches))
        receiver = await session.receiver(prefetch=500)
        assert [int(one.message.body) for one in await collect(receiver, 500)] == list(range(500))
        await receiver.close()
        await sender.close()

    at(newest, test)


def rejections(caught: "pytest.ExceptionInfo[PublishError]") -> dict[int, type[BaseException]]:
    assert caught.value.unknown == {}
    return {position: type(error) for position, error in caught.value.rejected.items()}


def test_what_nothing_would_receive_is_unroutable_and_the_rest_is_safe(each: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        lonely = session.topic + "-lonely"
        await session.backend.declare(Topology((TopicNeed(lonely),)))
        batch = [
            session.out(b"1"),
            session.out(topic="not-there"),
            session.out(topic=lonely, id="a"),
            session.out(topic="not-there", delay=1),
            session.out(topic=lonely, delay=1),
            session.out(group="nobody"),
            session.out(group="nobody", dead=True),
            session.out(group="nobody", delay=1),
            session.out(b"2"),
        ]
        for _ in range(2):  # and it stays usable
            with pytest.raises(PublishError) as caught:
                await sender.send(batch, PATIENCE)
            assert rejections(caught) == dict.fromkeys(range(1, 8), Unroutable)
        assert "'not-there'" in str(caught.value.rejected[1])
        assert lonely in str(caught.value.rejected[2])
        receiver = await session.receiver()
        assert [one.message.body for one in await collect(receiver, 4)] == [b"1", b"2", b"1", b"2"]
        await receiver.close()
        await sender.close()

    at(each, test)


def test_a_returned_message_is_matched_to_its_publish_among_many_in_flight(newest: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()

        async def one(i: int) -> bool:
            try:
                await sender.send([session.out(id=str(i), group="g" if i % 3 else "nobody")], PATIENCE)
            except PublishError as error:
                return not isinstance(error.rejected[0], Unroutable)
            return True

        outcomes = await asyncio.gather(*(one(i) for i in range(300)))
        assert outcomes == [bool(i % 3) for i in range(300)]
        await sender.close()

    at(newest, test)


def test_an_exchange_deleted_between_is_unroutable_and_the_sender_goes_on(each: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        await sender.send([session.out()], PATIENCE)
        with stranger(each.broker) as channel:
            channel.exchange_delete(session.topic)
        with pytest.raises(PublishError) as caught:
            await sender.send([session.out(group="g"), session.out(), session.out(group="g")], PATIENCE)
        assert isinstance(caught.value.rejected[1], Unroutable)
        assert caught.value.rejected.keys() | caught.value.unknown.keys() >= {1, 2}
        await sender.send([session.out(group="g")], PATIENCE)
        await sender.close()

    at(each, test)


def test_too_large_is_said_before_sending_and_by_the_broker(each: Site) -> None:
    limit = 67_108_864  # of the test's broker
    body = bytes(limit + 1)

    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        with pytest.raises(PublishError) as caught:
            await sender.send([session.out(bytes(100_000_001))], PATIENCE)
        error = caught.value.rejected[0]
        assert isinstance(error, MessageTooLarge)
        assert (error.size, error.limit) == (100_000_001, 100_000_000)
        for where in ("rabbitmq.conf", "rabbitmq.conf"):  # once from the broker, then known
            with pytest.raises(PublishError, match=where) as caught:
                await sender.send([session.out(body)], PATIENCE)
            error = caught.value.rejected[0]
            assert isinstance(error, MessageTooLarge)
            assert (error.size, error.limit) == (limit + 1, limit)
        await sender.send([session.out()], PATIENCE)
        await sender.close()

    at(each, test, query="&max_message_bytes=100000000")


def test_by_default_more_than_16_mebibytes_are_too_large(newest: Site) -> None:
    async def test(session: Session) -> None:
        with pytest.raises(PublishError) as caught:
            await session.send(session.out(bytes(16_777_217)))
        assert rejections(caught) == {0: MessageTooLarge}

    at(newest, test)


def test_twenty_megabytes_go_through(each: Site) -> None:
    body = bytes(range(256)) * 80_000

    async def test(session: Session) -> None:
        receiver = await session.receiver()
        await session.send(session.out(body), session.out(b"small"))
        found = await collect(receiver, 2)
        assert [one.message.body == body for one in found] == [True, False]
        await receiver.close()

    at(each, test, query="&max_message_bytes=60000000")


def test_headers_too_large_for_a_frame_are_refused_and_harm_no_other(newest: Site) -> None:
    async def test(session: Session) -> None:
        with pytest.raises(PublishError) as caught:
            await session.send(session.out(headers={"n": "x" * 140_000}), session.out())
        assert rejections(caught) == {0: MessageTooLarge}

    at(newest, test)


def test_what_amqp_cannot_carry_is_refused_and_harms_no_other(newest: Site) -> None:
    async def test(session: Session) -> None:
        with pytest.raises(PublishError) as caught:
            await session.send(session.out(headers={"n": 2**70}), session.out())
        assert rejections(caught) == {0: EncodeError}

    at(newest, test)


def test_a_full_queue_is_a_retryable_refusal(newest: Site) -> None:
    async def test(session: Session) -> None:
        pattern = f"^{session.topic}\\.g$"
        few = {"max-length": 3}  # RabbitMQ lets a few more in
        with policy(newest.broker, session.topic, pattern, **few), pytest.raises(PublishError) as caught:
            await session.send(*(session.out() for _ in range(2_000)))
        assert caught.value.rejected
        assert all(type(error) is BackendError and error.retryable for error in caught.value.rejected.values())

    at(newest, test)


@pytest.mark.own_broker
def test_a_blocking_broker_ends_each_send_in_time_and_in_truth(each: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        await sender.send([session.out()], PATIENCE)
        with each.broker.memory_alarm():
            await until(blocked(sender, session))
            started = time.monotonic()
            with pytest.raises(PublishError, match="blocks publishers") as caught:
                await sender.send([session.out(b"r%d" % i) for i in range(3)], 0.5)
            assert time.monotonic() - started < 15, "the alarm would last for ever"
            assert rejections(caught) == dict.fromkeys(range(3), BackendError)
            assert all(isinstance(e, BackendError) and e.retryable for e in caught.value.rejected.values())
            waiting = asyncio.create_task(sender.send([session.out(b"patient")], PATIENCE))
            receiver = await session.receiver()  # another connection, which is not blocked
            assert await receiver.receive(1, 5)
        await waiting
        await receiver.close()
        await sender.close()

    def blocked(sender: Any, session: Session) -> Callable[[], Awaitable[bool]]:
        async def is_blocked() -> bool:
            """RabbitMQ says so only to a connection that publishes: what it read before is unknown."""
            try:
                await sender.send([session.out(b"u")], 0.3)
            except PublishError as error:
                return bool(error.rejected) and not error.unknown
            return False

        return is_blocked

    at(each, test)


@pytest.mark.own_broker
def test_unconfirmed_when_the_connection_is_lost_is_unknown(newest: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        await sender.send([session.out()], PATIENCE)
        with newest.broker.paused():
            sending = asyncio.create_task(sender.send([session.out(), session.out()], PATIENCE))
            await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            cut(session.backend, "sending")
            with pytest.raises((ConnectionLost, PublishError)) as caught:
                await sending
            if isinstance(caught.value, PublishError):
                assert set(caught.value.unknown) == {0, 1}
        with pytest.raises(ConnectionLost):
            await sender.send([session.out()], 1)
        await sender.close()
        await session.send(session.out())

    at(newest, test)


@pytest.mark.own_broker
def test_a_frozen_broker_ends_a_send_in_its_time(newest: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        await sender.send([session.out()], PATIENCE)
        with newest.broker.paused():
            started = time.monotonic()
            with pytest.raises(PublishError, match="did not confirm within") as caught:
                await sender.send([session.out()], 0.5)
            assert set(caught.value.unknown) == {0}
            large = [session.out(bytes(2**20)) for _ in range(60)]
            with pytest.raises(PublishError) as caught:
                await sender.send(large, 0.5)
            assert caught.value.rejected, "all was written although nothing reads it"
            assert set(caught.value.unknown) | set(caught.value.rejected) == set(range(60))
            assert time.monotonic() - started < 30, "not the minutes of TCP"
        await sender.close()

    at(newest, test)


def test_a_closed_sender_and_receiver_say_so(newest: Site) -> None:
    async def test(session: Session) -> None:
        sender = await session.backend.open_sender()
        receiver = await session.receiver()
        for _ in range(2):
            await sender.close()
            await receiver.close()
        with pytest.raises(ClosedError):
            await sender.send([session.out()], 1)
        with pytest.raises(ClosedError):
            await receiver.receive(1, 1)

    at(newest, test)


# --- receiving


def test_what_was_not_settled_comes_again_and_the_broker_counts_it(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out(b"1"), session.out(b"2"))
        for count in range(3):
            receiver = await session.receiver()
            found = await collect(receiver, 2)
            assert [one.message.body for one in found] == [b"1", b"2"]
            assert [one.redelivered for one in found] == [count, count]
            cut(session.backend, "receiving")
            with pytest.raises(ConnectionLost):
                await receiver.receive(1, PATIENCE)
            await receiver.close()

    at(each, test)


@pytest.mark.parametrize("way", ["release", "close"])
def test_what_was_given_back_comes_again_in_order_and_4_3_counts_it_not(each: Site, way: str) -> None:
    async def test(session: Session) -> None:
        counts = (await session.backend.connect(5)).startswith("RabbitMQ 4.0")
        await session.send(*(session.out(b"%d" % i) for i in range(30)))
        receiver = await session.receiver()
        for round_ in range(25):  # more than RabbitMQ's own limit of 20
            found = await collect(receiver, 30)
            assert [int(one.message.body) for one in found] == list(range(30))
            assert {one.redelivered for one in found} == {round_ if counts else 0}
            if way == "release":
                await settle(receiver, found, RELEASE)
            else:
                await receiver.close()
                receiver = await session.receiver()
        await receiver.close()

    at(each, test)


def test_what_was_given_back_comes_before_what_waits(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i) for i in range(500)))
        receiver = await session.receiver(prefetch=10)
        found = await collect(receiver, 10)
        await settle(receiver, found[:1], RELEASE)
        again = await collect(receiver, 1)
        await settle(receiver, again)
        again += await collect(receiver, 1)
        assert b"0" in {one.message.body for one in again}  # after 10 at the latest, which may be on its way already
        await receiver.close()

    at(each, test)


def test_settling_settles_exactly_what_was_asked(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i) for i in range(40)))
        receiver = await session.receiver()
        found = await collect(receiver, 40)
        done = [*range(10), *range(11, 20), 25, 39]
        released = [10, 26, 38]
        await receiver.settle(
            [(found[i].token, DONE) for i in reversed(done)] + [(found[i].token, RELEASE) for i in released]
        )
        again = await collect(receiver, 3)
        assert sorted(int(one.message.body) for one in again) == released
        await receiver.close()
        receiver = await session.receiver()
        rest = await collect(receiver, 40 - len(done))
        assert sorted(int(one.message.body) for one in rest) == sorted(set(range(40)) - set(done))
        await receiver.close()

    at(each, test)


def test_a_stale_token_is_a_lost_lease_and_the_others_are_settled(newest: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out(b"1"), session.out(b"2"))
        first = await session.receiver()
        stale = await collect(first, 2)
        await first.close()
        second = await session.receiver()
        fresh = await collect(second, 2)
        strange: list[object] = ["nonsense", (1, 2, 3)]
        with pytest.raises(LeaseLost, match="3 deliveries"):
            await second.settle([(token, DONE) for token in (stale[0].token, fresh[0].token, *strange)])
        with pytest.raises(LeaseLost):
            await second.settle([(fresh[0].token, DONE)])
        await second.close()
        third = await session.receiver()
        assert [one.message.body for one in await collect(third, 1)] == [b"2"]
        await third.close()

    at(newest, test)


def test_no_more_than_prefetch_are_out(newest: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out() for _ in range(10)))
        receiver = await session.receiver(prefetch=3)
        found = await collect(receiver, 3)
        assert await receiver.receive(10, 0.3) == []
        await settle(receiver, found[:1])
        assert len(await collect(receiver, 1)) == 1
        await receiver.close()

    at(newest, test)


def test_what_waits_of_an_ordered_group_leaves_room_and_keeps_its_order_whoever_gives_it_back(each: Site) -> None:
    """RabbitMQ puts what is given back behind what was given back before and is not out again."""

    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i, key=b"k") for i in range(90)))
        first = await session.receiver(ordering="key", prefetch=5, aside=60)
        found = await collect(first, 60)  # as one does whose messages all wait for one key
        assert [int(one.message.body) for one in found] == list(range(60))
        await settle(first, found[:2])
        found = found[2:] + await collect(first, 7)
        assert await first.receive(100, 0.2) == []
        cut(session.backend, "receiving")  # as when its process dies
        await first.close()
        for _ in range(2):
            few = await session.receiver(ordering="key", prefetch=5)
            assert [int(one.message.body) for one in await collect(few, 1)] == [2]
            await few.close()
        last = await session.receiver(ordering="key")
        assert [int(one.message.body) for one in await collect(last, 88)] == list(range(2, 90))
        await last.close()

    at(each, test)


@pytest.mark.parametrize("size", [100, 50_000])
def test_as_many_are_out_as_there_is_room_for_their_bytes(each: Site, size: int) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"x" * size) for _ in range(60)))
        receiver = await session.receiver(prefetch=40, prefetch_bytes=200_000)
        most = 40 if size == 100 else 3
        found = await collect(receiver, most)
        assert await receiver.receive(100, 0.3) == []
        for _ in range(3):
            await settle(receiver, found[:1])
            found = found[1:] + await collect(receiver, 1)
        assert await receiver.receive(100, 0.3) == []
        await receiver.close()

    at(each, test)


def test_what_waits_of_a_group_without_order_leaves_room(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out() for _ in range(90)))
        receiver = await session.receiver(prefetch=5, aside=60)
        found = await collect(receiver, 65)
        await settle(receiver, found)
        await settle(receiver, await collect(receiver, 25))
        await receiver.close()

    at(each, test)


@pytest.mark.own_broker
@pytest.mark.timeout(300)
def test_a_restart_in_the_middle_loses_nothing_and_is_told_at_once(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i) for i in range(20)))
        await session.send(session.out(b"waits", group="g", delay=0.5))
        receiver = await session.receiver()
        found = await collect(receiver, 20)
        await settle(receiver, found[:10])
        waiting = asyncio.create_task(receiver.receive(0, 60))
        await asyncio.to_thread(each.broker.restart)
        with pytest.raises(ConnectionLost, match="CONNECTION_FORCED"):
            await waiting
        with pytest.raises(ConnectionLost):
            await settle(receiver, found[10:])
        await receiver.close()
        again = await session.receiver()
        # a retry whose time came while the broker started is sometimes forwarded only after RabbitMQ's own 180 s
        bodies = [one.message.body for one in await collect(again, 11, timeout=220)]
        assert sorted(bodies) == sorted([b"%d" % i for i in range(10, 20)] + [b"waits"])
        with pytest.raises(LeaseLost):
            await settle(again, found[10:])
        await again.close()

    at(each, test, restarted=True)


@pytest.mark.own_broker
def test_a_killed_broker_is_told_at_once(newest: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver()
        waiting = asyncio.create_task(receiver.receive(1, 60))
        await asyncio.to_thread(newest.broker.kill)
        try:
            started = time.monotonic()
            with pytest.raises(ConnectionLost):
                await waiting
            assert time.monotonic() - started < 30, "not the minute of the receive"
            with pytest.raises(ConnectionLost):
                await session.receiver()
            with pytest.raises(ConnectionLost):
                await session.backend.open_sender()
            await receiver.close()
        finally:
            await asyncio.to_thread(newest.broker.start)
        await (await session.receiver()).close()

    at(newest, test, restarted=True)


def test_a_deleted_queue_ends_the_session(each: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver()
        with stranger(each.broker) as channel:
            channel.queue_delete(f"{session.topic}.g")
        with pytest.raises(ConnectionLost, match="deleted"):
            await receiver.receive(1, PATIENCE)
        await receiver.close()
        with pytest.raises(ConfigurationError, match="there is no queue"):
            await session.receiver()
        await session.backend.declare(Topology((TopicNeed(session.topic, frozenset({"g"})),)))
        again = await session.receiver()
        await session.send(session.out(b"back"))
        assert (await collect(again, 1))[0].message.body == b"back"
        await again.close()

    at(each, test)


def test_wake_from_a_thread_ends_a_receive_now_or_next(newest: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver()
        for limit in (1, 0):
            waiting = asyncio.create_task(receiver.receive(limit, 30))
            await asyncio.to_thread(receiver.wake)
            async with asyncio.timeout(5):
                assert await waiting == []
        await asyncio.to_thread(receiver.wake)
        async with asyncio.timeout(5):
            assert await receiver.receive(1, 30) == []
        assert await receiver.receive(1, 0.05) == []
        await receiver.close()

    at(newest, test)


def test_waking_after_the_loop_is_gone_does_nothing(newest: Site) -> None:
    kept: list[Receiver] = []

    async def test(session: Session) -> None:
        kept.append(await session.receiver())
        await kept[0].close()

    at(newest, test)
    kept[0].wake()


def test_limit_zero_takes_nothing(newest: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out())
        receiver = await session.receiver()
        assert await receiver.receive(0, 0.2) == []
        assert len(await receiver.receive(1, PATIENCE)) == 1
        await receiver.close()

    at(newest, test)


def test_an_ordered_group_has_one_member_at_a_time_and_loses_its_order_to_none(each: Site) -> None:
    async def test(session: Session) -> None:
        elsewhere = each.backend()
        other = Session(elsewhere, session.topic)
        first = await session.receiver(ordering="key")
        second = await other.receiver(ordering="key")
        third = await session.receiver(ordering="key")
        await session.send(*(session.out(b"%d" % i, key=b"k") for i in range(30)))
        found = await collect(first, 30)
        assert await second.receive(1, 0.7) == []
        assert await third.receive(1, 0.7) == []
        await settle(first, found[:10])
        cut(session.backend, "receiving")  # as when its process dies
        assert [int(one.message.body) for one in await collect(second, 20)] == list(range(10, 30))
        await second.close()
        await elsewhere.close()
        await first.close()
        await third.close()
        last = await session.receiver(ordering="key")
        assert [int(one.message.body) for one in await collect(last, 20)] == list(range(10, 30))
        await last.close()

    at(each, test)


def test_of_members_that_open_together_one_begins_and_the_next_follows_at_once(each: Site) -> None:
    async def test(session: Session) -> None:
        members = await asyncio.gather(*(session.receiver(ordering="key") for _ in range(3)))
        await session.send(*(session.out(b"%d" % i, key=b"k") for i in range(3)))
        order: list[int] = []
        while members:
            asking = {asyncio.ensure_future(member.receive(10, PATIENCE)): member for member in members}
            found, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            (first,) = found
            order += [int(one.message.body) for one in first.result()[:1]]
            await settle(asking[first], first.result()[:1])
            for member in members:
                member.wake()
            await asyncio.wait(asking)
            members.remove(asking[first])
            await asking[first].close()
        assert order == [0, 1, 2]

    at(each, test)


def test_who_stands_by_asks_nothing_of_the_broker(each: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ writes an error to its log for each channel that it closes over a question."""

    async def test(session: Session) -> None:
        async def channel(link: Link, **options: Any) -> Channel:
            opened.append(link)
            return await open_channel(link, **options)

        first = await session.receiver(ordering="key")
        await session.send(session.out(key=b"k"))
        found = await collect(first, 1)
        standing_by = [await session.receiver(ordering="key") for _ in range(3)]
        opened: list[Link] = []
        open_channel = Link.channel
        monkeypatch.setattr(Link, "channel", channel)
        assert await asyncio.gather(*(member.receive(1, 1.5) for member in standing_by)) == [[], [], []]
        assert opened == []
        monkeypatch.undo()
        await settle(first, found)
        for member in (first, *standing_by):
            await member.close()

    at(each, test)


def test_a_token_that_an_operator_removed_is_offered_again(newest: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "STAND_BY", 0.1)

    async def test(session: Session) -> None:
        line = f"mqkit.turn:{session.topic}.g"
        first, second = [await session.receiver(ordering="key") for _ in range(2)]
        with stranger(newest.broker) as channel:

            async def waits() -> bool:
                return bool(channel.queue_declare(line, passive=True).method.message_count == 1)

            await until(waits)
            channel.queue_purge(line)
            asking = asyncio.ensure_future(second.receive(1, PATIENCE))
            await until(waits)
        second.wake()
        await asking
        for member in (first, second):
            await member.close()

    at(newest, test)


def test_a_member_whose_place_in_the_line_is_gone_ends_its_session(newest: Site) -> None:
    async def test(session: Session) -> None:
        members = [await session.receiver(ordering="key") for _ in range(2)]
        with stranger(newest.broker) as channel:
            channel.queue_delete(f"mqkit.turn:{session.topic}.g")
        for member in members:
            with pytest.raises(ConnectionLost, match=r"the queue 'mqkit\.turn:.*' was deleted"):
                await member.receive(1, PATIENCE)
            await member.close()

    at(newest, test)


def test_an_ordered_group_keeps_its_order_whatever_is_given_back_when(each: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver(ordering="key", prefetch=20)
        await session.send(*(session.out(b"%d" % i, key=b"k") for i in range(60)))
        found = await collect(receiver, 12)
        await settle(receiver, found[:2])
        await settle(receiver, found[5:], RELEASE)
        assert await receiver.receive(10, 0.3) == []
        with pytest.raises(LeaseLost):
            await settle(receiver, found[5:6])
        await settle(receiver, found[2:3])
        await settle(receiver, found[3:5], RELEASE)
        again = await collect(receiver, 7)
        assert [int(one.message.body) for one in again] == list(range(3, 10))
        await settle(receiver, again[4:], RELEASE)
        await receiver.close()
        receiver = await session.receiver(ordering="key")
        assert [int(one.message.body) for one in await collect(receiver, 57)] == list(range(3, 60))
        await receiver.close()

    at(each, test)


def test_what_was_settled_one_by_one_right_before_an_ordered_group_is_left_does_not_come_again(each: Site) -> None:
    """A channel keeps settlements back while more than 32 of its commands wait for the queue, and may forget them."""

    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % number, key=b"k") for number in range(300)))
        done = 0
        for _ in range(5):
            receiver = await session.receiver(ordering="key", prefetch=104)
            found = await collect(receiver, 50)
            assert [each.message.body for each in found] == [b"%d" % number for number in range(done, done + 50)]
            for delivery in found:
                await settle(receiver, [delivery])
            done += 50
            await receiver.close()

    at(each, test)


@pytest.mark.own_broker
def test_a_long_handler_keeps_its_message(each: Site) -> None:
    """RabbitMQ takes back after 30 minutes what is out; the test makes that seconds."""

    async def test(session: Session) -> None:
        await session.send(session.out())
        receiver = await session.receiver()
        found = await collect(receiver, 1)
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            assert await receiver.receive(0, 1.0) == []
        await settle(receiver, found)
        await receiver.close()

    with (
        setting(each.broker, "consumer_timeout", 2_000, 1_800_000),
        setting(each.broker, "channel_tick_interval", 1_000, 60_000),
    ):
        at(each, test)


# --- the way back


def test_a_retry_comes_back_to_its_group_alone_in_time_and_as_it_was(each: Site) -> None:
    async def test(session: Session) -> None:
        mine, other = await session.receiver("g"), await session.receiver("h")
        original = WireMessage(b"\x00body", {"n": 7, "x": "y"}, b"\xff\x00", "text/x", "id-1", {"correlation_id": "c"})
        started = time.monotonic()
        await session.send(Outgoing(original, session.topic, "g", delay=0.5))
        (found,) = await collect(mine, 1)
        assert time.monotonic() - started >= 0.5
        assert found.message == original
        assert found.returned
        assert await other.receive(1, 0.2) == []
        await mine.close()
        await other.close()

    at(each, test, groups=("g", "h"))


def test_what_comes_through_the_topic_is_not_returned_whatever_it_claims(each: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver()
        await session.send(
            session.out(headers={"mqkit-attempts": "9", "x-delivery-count": 99}),
            session.out(delay=0.5, headers={"x-death": "forged"}),
        )
        found = await collect(receiver, 2)
        assert [one.returned for one in found] == [False, False]
        assert [one.redelivered for one in found] == [0, 0]
        await settle(receiver, found, RELEASE)
        assert all(one.redelivered < 2 for one in await collect(receiver, 2))
        await receiver.close()

    at(each, test)


def test_a_delayed_message_comes_to_every_group_and_to_who_listens(each: Site) -> None:
    async def test(session: Session) -> None:
        receivers = [await session.receiver("g"), await session.receiver("h"), await session.receiver(source="tail")]
        started = time.monotonic()
        await session.send(session.out(b"later", key=b"k", delay=1))
        for receiver in receivers:
            (found,) = await collect(receiver, 1)
            assert time.monotonic() - started >= 1
            assert (found.message.body, found.message.key, found.message.headers) == (b"later", b"k", {})
            assert not found.returned
            await receiver.close()

    at(each, test, groups=("g", "h"))


@pytest.mark.own_broker
@pytest.mark.parametrize("gone", ["its group", "all of it"])
def test_what_was_delayed_for_nobody_any_more_holds_back_no_other_and_comes_when_there_is_somebody(
    each: Site, gone: str
) -> None:
    """RabbitMQ holds back what lies in a queue behind 32 messages that it cannot dead-letter."""

    async def test(session: Session) -> None:
        deserted = TopicNeed(f"{session.topic}-deserted", frozenset({"g"}))
        await session.backend.declare(Topology((deserted,)))
        await session.send(*(session.out(topic=deserted.name, delay=0.5) for _ in range(40)))
        with stranger(each.broker) as channel:
            channel.queue_delete(f"{deserted.name}.g")
            if gone == "all of it":
                channel.queue_delete(due_queue(deserted.name))
                channel.exchange_delete(deserted.name)
        await asyncio.sleep(1.0)  # their time comes while there is no place to go: that is the case, not a wait
        receiver = await session.receiver()
        await session.send(session.out(b"mine", delay=0.5))
        assert [delivery.message.body for delivery in await collect(receiver, 1)] == [b"mine"]
        await receiver.close()
        if gone == "its group":
            await session.backend.declare(Topology((deserted,)))
            receiver = await Session(session.backend, deserted.name).receiver()
            await settle(receiver, await collect(receiver, 40, timeout=60))
            await receiver.close()

    with setting(each.broker, "dead_letter_worker_publisher_confirm_timeout", 1_000, 180_000):
        at(each, test)


def test_many_retries_leave_no_trace_in_the_headers(each: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver()
        message = WireMessage(b"x", {"n": 1}, b"k", id="1")
        await session.send(Outgoing(message, session.topic))
        for attempt in range(6):
            (found,) = await collect(receiver, 1)
            assert found.message == message
            assert found.returned is bool(attempt)
            await session.send(Outgoing(found.message, session.topic, "g", delay=0.5))
            await settle(receiver, [found])
        await receiver.close()

    at(each, test)


@pytest.mark.own_broker
def test_a_retry_whose_group_is_gone_for_a_while_is_kept(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out(b"keep me", group="g", delay=0.5))
        with stranger(each.broker) as channel:
            channel.queue_delete(f"{session.topic}.g")
        await asyncio.sleep(1.0)  # its time comes while there is no place to go: that is the case, not a wait
        await session.backend.declare(Topology((TopicNeed(session.topic, frozenset({"g"})),)))
        receiver = await session.receiver()
        (found,) = await collect(receiver, 1, timeout=60)
        assert found.message.body == b"keep me"
        await receiver.close()

    with setting(each.broker, "dead_letter_worker_publisher_confirm_timeout", 1_000, 180_000):
        at(each, test)


@pytest.mark.own_broker
def test_what_is_published_while_a_groups_queue_is_missing_comes_when_it_is_there_again(each: Site) -> None:
    async def test(session: Session) -> None:
        with stranger(each.broker) as channel:
            channel.queue_delete(f"{session.topic}.g")
        bodies = {str(n).encode() for n in range(50)}
        await session.send(*(session.out(body) for body in bodies))
        await session.backend.declare(Topology((TopicNeed(session.topic, frozenset({"g", "h"})),)))
        for group in ("g", "h"):
            receiver = await session.receiver(group)
            found = await collect(receiver, 50, timeout=60)
            assert {delivery.message.body for delivery in found} == bodies
            await settle(receiver, found)
            await receiver.close()

    with setting(each.broker, "dead_letter_worker_publisher_confirm_timeout", 1_000, 180_000):
        at(each, test, groups=("g", "h"))


def test_a_publisher_makes_the_queues_of_its_groups_anew(newest: Site) -> None:
    topic = Topic(f"t-{uuid4().hex}", dict, groups=["g"])

    async def test() -> None:
        async with AsyncApp(newest.broker.url) as app:
            await app.publish(topic, {"n": 1})
            with stranger(newest.broker) as channel:
                channel.queue_delete(f"{topic.name}.g")
                channel.exchange_delete(topic.name)
            await app.publish(topic, {"n": 2}, timeout=PATIENCE)
            assert (await app.inspect(topic, "g")).ready == 1

    asyncio.run(test())


@pytest.mark.parametrize("deleted", [False, True])
def test_the_queue_of_a_longer_retry_is_made_when_one_waits_there_and_again_when_it_was_deleted(
    newest: Site, *, deleted: bool
) -> None:
    topic = Topic(f"t-{uuid4().hex}", int)
    retries = f"{topic.name}.g.retry.60000ms"

    async def test() -> None:
        app = AsyncApp(newest.broker.url)

        @app.subscribe(topic, group="g", retry=Retry(attempts=2, wait_initial=60, wait_jitter=0))
        async def fail(payload: int) -> None:
            raise ValueError

        async def state() -> str:
            return next(one.state for one in await app.examine() if one.name == retries)

        async def waits(number: int) -> None:
            async def fact() -> bool:
                return (await app.inspect(topic, "g")).waiting == number

            await until(fact)

        async with app, app.working():
            assert await state() == "on-demand"
            assert (await app.inspect(topic, "g")).waiting == 0
            await app.publish(topic, 1)
            await waits(1)
            assert await state() == "present"
            if deleted:
                with stranger(newest.broker) as channel:
                    channel.queue_delete(retries)
                await waits(0)
                await app.publish(topic, 2)
                await waits(1)

    asyncio.run(test())


def test_what_the_broker_itself_would_drop_lands_among_the_dead_letters(each: Site) -> None:
    async def test(session: Session) -> None:
        with stranger(each.broker) as channel:
            channel.basic_publish(session.topic, "", b"short-lived", pika.BasicProperties(expiration="100"))
        dead = await session.receiver(source="dead")
        (found,) = await collect(dead, 1)
        assert found.message.body == b"short-lived"
        assert found.message.headers == {}
        assert "expired" in str(found.message.properties["x-death"])
        await dead.close()

    at(each, test)


def test_a_delivery_limit_of_the_topic_dead_letters(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out(b"poison"))
        for _ in range(3):
            receiver = await session.receiver()
            await collect(receiver, 1)
            cut(session.backend, "receiving")
            await receiver.close()
        dead = await session.receiver(source="dead")
        assert (await collect(dead, 1))[0].message.body == b"poison"
        await dead.close()

    at(each, test, options=(RabbitTopic(delivery_limit=2),))


def test_dead_letters_are_read_in_order_and_stay_until_done(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i, group="g", dead=True) for i in range(20)))
        for _ in range(2):
            dead = await session.receiver(source="dead", prefetch=200)
            found = await collect(dead, 20)
            assert [int(one.message.body) for one in found] == list(range(20))
            await dead.close()
        dead = await session.receiver(source="dead")
        await settle(dead, (await collect(dead, 20))[:5])
        await dead.close()

        async def fifteen() -> bool:
            return (await session.backend.inspect(session.topic, "g")).dead == 15

        await until(fifteen)

    at(each, test)


# --- strangers


@pytest.mark.parametrize("ahead", [1, 7])
def test_all_dead_letters_may_be_out_and_go_back_in_their_order(each: Site, ahead: int) -> None:
    """Of a consumer, AMQP lets no more than 65,535 be out; here each window is a consumer, and small."""

    async def test(session: Session) -> None:
        async def numbers(receiver: Receiver) -> list[Delivery]:
            found: list[Delivery] = []
            while page := await receiver.receive(5, PATIENCE):
                found += page
            return found

        def shown(found: Sequence[Delivery]) -> list[int]:
            return [int(one.message.body) for one in found]

        await session.send(*(session.out(b"%d" % i, group="g", dead=True) for i in range(200)))
        for read in (3, 30, 110):
            receiver = await session.receiver(source="dead", prefetch=ahead, prefetch_bytes=4_000)
            assert shown(await collect(receiver, read)) == list(range(read))
            await receiver.close()
        receiver = await session.receiver(source="dead", prefetch=ahead, prefetch_bytes=4_000)
        found = await numbers(receiver)
        assert shown(found) == list(range(200))
        await settle(receiver, [*found[:2], *found[50:60], found[199]])
        with pytest.raises(LeaseLost):
            await settle(receiver, found[:1])
        await receiver.close()
        receiver = await session.receiver(source="dead", prefetch=ahead)
        again = await numbers(receiver)
        assert shown(again) == [*range(2, 50), *range(60, 199)]
        await settle(receiver, again)
        assert await receiver.receive(5, PATIENCE) == []
        await receiver.close()

    at(each, test)


def test_who_wants_few_dead_letters_is_sent_few(newest: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(*(session.out(b"%d" % i, group="g", dead=True) for i in range(50)))
        receiver = await session.receiver(source="dead", prefetch=5)
        await collect(receiver, 5)
        assert (await session.backend.inspect(session.topic, "g")).dead == 45
        await receiver.close()

    at(newest, test)


def test_a_reader_of_dead_letters_whose_queue_goes_away_ends(newest: Site) -> None:
    async def test(session: Session) -> None:
        receiver = await session.receiver(source="dead")
        with stranger(newest.broker) as channel:
            channel.queue_delete(f"{session.topic}.g.dlq")
        with pytest.raises(ConnectionLost, match="was deleted"):
            await collect(receiver, 1)
        await receiver.close()
        with pytest.raises(ConfigurationError, match=r"there is no queue '.*\.dlq'"):
            await session.receiver(source="dead")

    at(newest, test)


def test_a_strangers_types_survive_receiving_and_a_retry(each: Site) -> None:
    headers: Mapping[str, Any] = {
        "str": "text",
        "bytes": b"\xff\x00",
        "int": -5,
        "long": 2**40,
        "true": True,
        "none": None,
        "decimal": Decimal("1.50"),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "list": [1, "two", [3]],
        "table": {"a": {"b": 1}},
    }
    properties: dict[str, HeaderValue] = {
        "correlation_id": "c",
        "reply_to": "r",
        "type": "t",
        "app_id": "a",
        "content_encoding": "utf-8",
        "priority": 3,
    }

    async def test(session: Session) -> None:
        receiver = await session.receiver()
        with stranger(each.broker) as channel:
            sent = pika.BasicProperties(headers=dict(headers), timestamp=1_700_000_000, message_id="m", **properties)
            channel.basic_publish(session.topic, "routing.key", b"body", sent)
        expected = {**properties, "timestamp": datetime.fromtimestamp(1_700_000_000, tz=UTC)}
        for returned in (False, True):
            (found,) = await collect(receiver, 1)
            message = found.message
            assert dict(message.headers) == headers
            assert {k: type(v) for k, v in message.headers.items()} == {k: type(v) for k, v in headers.items()}
            assert (message.key, message.id, message.body) == (b"routing.key", "m", b"body")
            assert message.properties == expected
            assert found.returned is returned
            await session.send(Outgoing(message, session.topic, "g", delay=0.5))
            await settle(receiver, [found])
        await receiver.close()

    at(each, test)


def test_a_hostile_message_is_delivered_and_ends_nothing(each: Site) -> None:
    """The client library's own reading would give up the connection over each of these, for ever."""

    async def test(session: Session) -> None:
        receiver = await session.receiver()
        with stranger(each.broker) as channel:
            hostile: list[dict[str, Any]] = [{"time": datetime(9999, 1, 1, tzinfo=UTC)}, {"": ""}, {"x" * 200: 1}]
            for headers in hostile:
                channel.basic_publish(session.topic, "", b"", pika.BasicProperties(headers=headers))
            channel.basic_publish(session.topic, "", b"", pika.BasicProperties(timestamp=2**63 - 1))
            deep: Any = []
            for _ in range(200):
                deep = [deep]
            channel.basic_publish(session.topic, "", b"", pika.BasicProperties(headers={"deep": deep}))
        found = await collect(receiver, 5)
        for one in found:
            await session.send(Outgoing(one.message, session.topic, "g"))
        await settle(receiver, found)
        copies = await collect(receiver, 5)
        assert [one.message for one in copies] == [one.message for one in found]
        await receiver.close()

    at(each, test)


def test_bytes_that_are_no_text_survive_as_they_are(each: Site) -> None:
    """Content type, id and routing key that are not UTF-8: only by hand can these be sent."""
    text = "caf\udce9"

    async def test(session: Session) -> None:
        receiver = await session.receiver()
        message = WireMessage(b"", {text: text}, text.encode("utf-8", "surrogateescape"), text, text)
        await session.send(Outgoing(message, session.topic))
        (found,) = await collect(receiver, 1)
        assert found.message == message
        await receiver.close()

    at(each, test)


# --- topology


def test_declaring_again_and_at_once_is_harmless(each: Site) -> None:
    async def test(session: Session) -> None:
        topology = Topology((TopicNeed(session.topic + "-many", frozenset({"a", "b"})),))
        backends = [each.backend() for _ in range(5)]
        await asyncio.gather(*(backend.declare(topology) for backend in backends))
        assert {one.state for one in await backends[0].examine(topology)} == {"present", "on-demand"}
        await asyncio.gather(*(backend.declare(topology.waiting(STEPS)) for backend in backends))
        assert {one.state for one in await backends[0].examine(topology)} == {"present"}
        for backend in backends:
            await backend.close()

    at(each, test)


def test_examining_changes_nothing_and_finds_what_is_missing(each: Site) -> None:
    async def test(session: Session) -> None:
        name = session.topic + "-absent"
        topology = Topology((TopicNeed(name, frozenset({"g"})),))
        for _ in range(2):
            found = [one for one in await session.backend.examine(topology) if one.name.startswith(name)]
            assert {one.state for one in found} == {"missing", "on-demand"}
            assert Counter(one.state for one in found if one.kind == "queue") == {"missing": 5, "on-demand": 7}
            assert {one.kind for one in found} == {"exchange", "queue", "binding"}

    at(each, test)


def test_examining_works_without_the_management_api(newest: Site) -> None:
    async def test(session: Session) -> None:
        url = newest.broker.url.partition("?")[0] + "?management=http://127.0.0.1:1"
        backend = newest.backend(url)
        there = TopicNeed(session.topic, frozenset({"g"}))
        absent = TopicNeed(session.topic + "-absent", frozenset({"g"}))
        states = {one.name: one.state for one in await backend.examine(Topology((there, absent)))}
        assert states[f"{session.topic}.g"] == "present"
        assert states[f"{session.topic}-absent.g"] == "missing"
        assert states[f"{session.topic}-absent"] == "missing"
        assert states[f"{session.topic}-absent.g.retry.500ms"] == "missing"
        assert states[f"{session.topic}-absent.g.retry.60000ms"] == "on-demand"
        with pytest.raises(ConfigurationError, match="could not look at which groups there are"):
            await backend.groups()
        assert (await backend.inspect(session.topic, "g")).in_flight == 0
        receiver = await session.receiver()
        assert (await backend.inspect(session.topic, "g")).in_flight is None
        await receiver.close()
        await backend.close()

    at(newest, test)


@pytest.mark.parametrize("management", [True, False])
def test_a_queue_with_other_settings_is_left_alone_and_named(each: Site, *, management: bool) -> None:
    async def test(session: Session) -> None:
        name = session.topic + "-other"
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 5}
        with stranger(each.broker) as channel:
            channel.queue_declare(f"{name}.g", durable=True, arguments=arguments)
        url = each.broker.url if management else each.broker.url.partition("?")[0] + "?management=http://127.0.0.1:1"
        backend = each.backend(url)
        topology = Topology((TopicNeed(name, frozenset({"g"})),))
        with pytest.raises(TopologyError) as caught:
            await backend.declare(topology)
        text = "\n".join(caught.value.differences)
        assert f"{name}.g" in text
        if management:
            assert "x-delivery-limit is 5, wanted 1000000000" in text
            assert "x-dead-letter-routing-key is not set" in text
            (examined,) = [one for one in await backend.examine(topology) if one.name == f"{name}.g"]
            assert examined.state == "differs"
        else:
            assert len(caught.value.differences) == 1
        with stranger(each.broker) as channel:
            channel.queue_declare(f"{name}.g", durable=True, arguments=arguments)
        await backend.close()

    at(each, test)


def test_a_policy_that_deletes_what_waits_is_told_of_each_queue(each: Site) -> None:
    async def test(session: Session) -> None:
        need = Topology((TopicNeed(session.topic, frozenset({"g"})),))
        name = f"tidy-{session.topic}"
        assert not [line for one in await session.backend.examine(need) for line in one.dangers]
        with policy(each.broker, name, rf"^{session.topic}\..*(retry|dlq)", expires=1_800_000):
            found = {one.name: one.dangers for one in await session.backend.examine(need) if one.dangers}
        assert {f"{session.topic}.g.dlq", f"{session.topic}.g.retry.notes", f"{session.topic}.g.retry.60000ms"} <= {
            *found
        }
        assert f"{session.topic}.g" not in found
        (line,) = found[f"{session.topic}.g.dlq"]
        assert f"the policy {name!r} deletes the queue, with all that is in it" in line

    at(each, test)


def test_an_exchange_of_another_type_is_left_alone_and_named(each: Site) -> None:
    async def test(session: Session) -> None:
        name = session.topic + "-typed"
        with stranger(each.broker) as channel:
            channel.exchange_declare(name, "topic", durable=True)
        need = TopicNeed(name, frozenset({"g"}))
        with pytest.raises(TopologyError, match="type is topic, wanted fanout"):
            await session.backend.declare(Topology((need,)))
        options = (RabbitTopic(exchange_type="topic"),)
        await session.backend.declare(Topology((TopicNeed(name, frozenset({"g"}), options),)))

    at(each, test)


def test_an_exchange_of_an_existing_system_carries_a_topic(each: Site) -> None:
    async def test(session: Session) -> None:
        legacy = session.topic + "-legacy"
        topic = session.topic + "-new"
        with stranger(each.broker) as channel:
            channel.exchange_declare(legacy, "topic", durable=True)
        options = (RabbitTopic(exchange=legacy, exchange_type="topic", binding_keys=("cd.*",)),)
        await session.backend.declare(Topology((TopicNeed(topic, frozenset({"g"}), options),)))
        new = Session(session.backend, topic)
        receiver = await new.receiver()
        tail = await new.receiver(source="tail", options=options)
        with stranger(each.broker) as channel:
            channel.basic_publish(legacy, "cd.sold", b"theirs")
            channel.basic_publish(legacy, "dvd.sold", b"not ours")
        await new.send(new.out(b"ours", key=b"cd.bought"), new.out(b"later", delay=0.5))
        assert [one.message.body for one in await collect(receiver, 3)] == [b"theirs", b"ours", b"later"]
        assert [one.message.body for one in await collect(tail, 3)] == [b"theirs", b"ours", b"later"]
        await receiver.close()
        await tail.close()

    at(each, test)


def test_inspect_counts_what_is_ready_waiting_dead_and_out(each: Site) -> None:
    async def test(session: Session) -> None:
        counts = await session.backend.inspect(session.topic, "g")
        assert (counts.ready, counts.waiting, counts.dead, counts.in_flight) == (0, 0, 0, 0)
        need = Topology((TopicNeed(session.topic, frozenset(["g"])),))
        await session.backend.declare(need.waiting([60, 3600]))
        await session.send(
            *(session.out() for _ in range(5)),
            session.out(group="g", delay=60),
            session.out(group="g", delay=3600),
            session.out(group="g", dead=True),
        )
        receiver = await session.receiver(prefetch=2)
        await collect(receiver, 2)

        async def counted() -> bool:
            found = await session.backend.inspect(session.topic, "g")
            return (found.ready, found.waiting, found.dead, found.in_flight) == (3, 2, 1, 2)

        await until(counted)
        await receiver.close()

    at(each, test)


def test_inspecting_a_group_that_is_not_there_names_those_that_are(each: Site) -> None:
    async def test(session: Session) -> None:
        with pytest.raises(ConfigurationError, match=f"g of {session.topic}"):
            await session.backend.inspect(session.topic, "nobody")
        assert await session.backend.groups(session.topic) == [(session.topic, "g")]
        assert (session.topic, "g") in await session.backend.groups()

    at(each, test)


def test_a_tail_sees_what_comes_and_leaves_nothing_behind(each: Site) -> None:
    async def test(session: Session) -> None:
        await session.send(session.out(b"before"))
        tail = await session.receiver("me", source="tail")
        await session.send(session.out(b"now", key=b"k"))
        (found,) = await collect(tail, 1)
        assert (found.message.body, found.message.key, found.returned) == (b"now", b"k", False)
        await settle(tail, [found])
        queue = core(tail)._queue
        await tail.close()
        with stranger(each.broker) as channel, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
            channel.queue_declare(queue, passive=True)
        with pytest.raises(ConfigurationError, match="no exchange"):
            await Session(session.backend, "not-there").receiver(source="tail")

    at(each, test)
