"""What Kafka alone does: offsets, partitions, rebalances, tiers, faults. What every backend does is tests/conformance.

A test talks to the seam, and to the broker with confluent-kafka where it plays a stranger.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Timer
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from mqkit.backend import Counts, Subscription
from mqkit.backends.kafka import KafkaTopic
from mqkit.backends.kafka.client import KafkaBackend
from mqkit.backends.kafka.receiver import KafkaReceiver
from mqkit.backends.kafka.tiers import HELD
from mqkit.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    LeaseLost,
    MessageTooLarge,
    PublishError,
    TopologyError,
    Unroutable,
)
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology
from tests.brokers import Broker
from tests.kafka_session import (
    PATIENCE,
    RELEASE,
    Session,
    bodies,
    deny,
    done,
    nothing,
    take,
    wait_until,
)


@pytest.fixture
def url(kafka_broker: Broker) -> str:
    return kafka_broker.url.rstrip("/")


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    session = Session(url)
    yield session
    session.close()


@pytest.fixture
def sessions(url: str) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*options: object, **more: Any) -> Session:
        made.append(Session(url, *options, **more))
        return made[-1]

    yield make
    for session in made:
        session.close()


# -- offsets


def test_a_restart_repeats_what_was_not_finished_and_nothing_else(session: Session) -> None:
    session.publish(*(b"%d" % number for number in range(10)))
    first = session.receiver()
    deliveries = take(first, 8)
    first.settle(done(*deliveries[1:3], *deliveries[5:8]))
    first.close()
    second = session.receiver()
    found = take(second, 5)
    assert bodies(found) == [b"0", b"3", b"4", b"8", b"9"]
    assert {delivery.redelivered for delivery in found} == {0}, "nobody was lost"
    second.settle(done(*found))
    second.close()
    nothing(session.receiver(), 2)
    assert session.counts() == Counts(0, 0, 0, 0, 0)


def test_thousands_of_finished_messages_above_an_unfinished_one_are_not_repeated(session: Session) -> None:
    for start in range(0, 20_000, 5000):
        session.publish(*(b"%d" % number for number in range(start, start + 5000)))
    first = session.receiver()
    held = []
    for _ in range(20):
        deliveries = take(first, 1000)
        held += deliveries[::100]
        first.settle(done(*(delivery for delivery in deliveries if delivery not in held)))
    first.close()
    again = session.receiver()
    assert bodies(take(again, len(held))) == bodies(held)
    nothing(again)


def test_metadata_that_overflows_repeats_some_and_loses_nothing(session: Session) -> None:
    session.publish(*(b"%d" % number for number in range(8000)))
    first = session.receiver()
    deliveries = take(first, 8000)
    first.settle(done(*deliveries[::2]))
    first.close()
    second = session.receiver()
    found: list[Delivery] = []
    while batch := second.receive(8000, 3):
        found += batch
    again = bodies(found)
    assert len(again) == len(set(again)) < 8000, "some of what was finished is known"
    assert {b"%d" % number for number in range(1, 8000, 2)} <= set(again), "and nothing is lost"


def test_what_other_tools_committed_is_where_we_begin(session: Session, url: str) -> None:
    session.publish(b"0", b"1", b"2")
    stranger = Consumer({"bootstrap.servers": url.removeprefix("kafka://"), "group.id": f"{session.topic}.g"})
    stranger.commit(offsets=[TopicPartition(session.topic, 0, 1, "their own metadata")], asynchronous=False)
    stranger.close()
    assert bodies(take(session.receiver(), 2)) == [b"1", b"2"]


def test_a_released_message_comes_again_in_order_before_what_follows(session: Session) -> None:
    session.publish(*(b"%d" % number for number in range(6)))
    receiver = session.receiver()
    deliveries = take(receiver, 4)
    receiver.settle([(deliveries[2].token, RELEASE), (deliveries[0].token, RELEASE), *done(deliveries[1])])
    again = take(receiver, 4)
    assert bodies(again) == [b"0", b"2", b"4", b"5"]
    assert again[0].origin == deliveries[0].origin == f"{session.topic}[0]@0"
    receiver.settle(done(deliveries[3], *again))
    receiver.close()
    assert session.counts() == Counts(0, 0, 0, 0, 0)


LOST = """
import os, sys
from mqkit.backend import Subscription
from mqkit.backends.kafka.client import KafkaBackend
from mqkit.backends.kafka.receiver import KafkaReceiver
from mqkit.backends.kafka.tiers import HELD
url, topic = sys.argv[1:]
receiver = KafkaBackend(url).open_receiver(Subscription(topic=topic, group="g"), lambda *_: None)
found = []
while not found:
    found += receiver.receive(2, 1)
os._exit(9)
"""


def test_a_process_that_ends_with_its_first_delivery_loses_nothing_and_is_counted(session: Session) -> None:
    session.publish(b"poison")
    script = [sys.executable, "-c", LOST, f"{session.url}/?rdkafka.session.timeout.ms=6000", session.topic]
    for _ in range(2):
        assert subprocess.run(script, timeout=PATIENCE, check=False).returncode == 9
    session.publish(b"published later")
    receiver = session.receiver()
    found = take(receiver, 2)
    assert (found[0].message.body, found[0].redelivered) == (b"poison", 2)
    session.publish(b"fresh")
    (fresh,) = take(receiver, 1)
    assert fresh.redelivered == 0


# -- notes


def test_a_partition_that_was_taken_away_cannot_be_noted_and_brings_its_notes(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(partitions=4))
    for number in range(40):
        session.publish(b"%d" % number, key=b"%d" % number)
    first = session.receiver()
    before = take(first, 40)
    first.note([(delivery.token, 1 + int(delivery.message.body)) for delivery in before])
    second = session.receiver()
    moved: dict[str, Delivery] = {}

    def shared() -> bool:
        assert not first.receive(10, 0.05), "nothing is new to the first"
        moved.update((delivery.origin, delivery) for delivery in second.receive(100, 0.05))
        return len({origin.partition("@")[0] for origin in moved}) == 2

    wait_until(shared, "the second member gets two partitions of the four")
    nothing(second, 0.5)
    assert all(delivery.spent == 1 + int(delivery.message.body) for delivery in moved.values())
    with pytest.raises(LeaseLost, match=rf"the partition of {len(moved)} deliveries was taken away"):
        first.note([(delivery.token, 99) for delivery in before])
    first.close()
    second.close()
    assert {d.origin: d.spent for d in take(session.receiver(), 40)} == {
        d.origin: 1 + int(d.message.body) if d.origin in moved else 99 for d in before
    }


@pytest.mark.own_broker
def test_a_note_returns_when_the_broker_has_it_and_not_before(session: Session, kafka_broker: Broker) -> None:
    receiver = session.receiver()
    session.publish(b"x")
    (delivery,) = take(receiver, 1)
    with ThreadPoolExecutor(1) as thread:
        with kafka_broker.paused():
            noted = thread.submit(receiver.note, [(delivery.token, 2)])
            with pytest.raises(TimeoutError):
                noted.result(1.5)
        noted.result(PATIENCE)
    receiver.close()
    assert take(session.receiver(), 1)[0].spent == 2


@pytest.mark.own_broker
def test_a_note_that_nobody_confirms_ends_the_session_in_time(
    session: Session, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = session.receiver()
    session.publish(b"x")
    (delivery,) = take(receiver, 1)
    monkeypatch.setattr("mqkit.backends.kafka.member.PATIENCE", 1.0)
    with kafka_broker.paused():
        start = time.monotonic()
        with pytest.raises(ConnectionLost, match="no commit was confirmed for 1 s"):
            receiver.note([(delivery.token, 2)])
        with pytest.raises(ConnectionLost):
            receiver.receive(1, 0)
        assert time.monotonic() - start < 15, "not the minutes that the client would try"
        receiver.close()


def test_noting_loses_and_repeats_nothing_of_what_comes_meanwhile(session: Session) -> None:
    receiver = session.receiver()
    session.publish(*(b"%d" % number for number in range(2000)))
    found = take(receiver, 1)
    spent = 0
    while len(found) < 2000:
        spent += 1
        receiver.note([(found[0].token, spent)])
        found += take(receiver, min(200, 2000 - len(found)))
    receiver.settle(done(*found[1:]))
    receiver.close()
    assert bodies(found) == [b"%d" % number for number in range(2000)]
    (again,) = take(session.receiver(), 1)
    assert (again.message.body, again.spent) == (b"0", spent)


def test_a_dead_letter_can_be_noted_beside_what_others_settle(session: Session) -> None:
    session.publish(b"0", b"1", group="g", dead=True)
    first, second = session.receiver(source="dead"), session.receiver(source="dead")
    mine, theirs = take(first, 2), take(second, 2)
    first.note([(mine[1].token, 2)])
    second.settle(done(theirs[0]))
    first.settle(done(mine[0]))
    with pytest.raises(LeaseLost, match="1 dead letters"):
        first.note([(mine[0].token, 1), (mine[1].token, 3)])
    (left,) = take(session.receiver(source="dead"), 1)
    assert (left.message.body, left.spent) == (b"1", 3)


# -- members


def test_a_rebalance_shares_the_topic_and_a_stale_token_settles_nothing(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(partitions=4))
    for number in range(40):
        session.publish(b"%d" % number, key=b"%d" % number)
    told: list[tuple[str, str]] = []
    first = session.receiver(notify=lambda kind, text: told.append((kind, text)))
    before = {delivery.origin: delivery for delivery in take(first, 40)}
    second = session.receiver()
    moved: dict[str, Delivery] = {}

    def shared() -> bool:
        assert not first.receive(10, 0.05), "nothing is new to the first"
        moved.update((delivery.origin, delivery) for delivery in second.receive(100, 0.05))
        return len({origin.partition("@")[0] for origin in moved}) == 2

    wait_until(shared, "the second member gets two partitions of the four, and what is unfinished in them")
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        assert shared(), "and no more of them"
    assert moved.keys() == {o for o in before if o.partition("@")[0] in {m.partition("@")[0] for m in moved}}
    assert any(kind == "rebalance" and text.startswith("gave ") for kind, text in told)
    with pytest.raises(LeaseLost, match=rf"the partition of {len(moved)} deliveries was taken away"):
        first.settle(done(*before.values()))
    wait_until(lambda: not first.receive(9, 0.1) and session.counts().lag == len(moved), "the first settled its own")
    second.settle(done(*moved.values()))
    second.close()
    wait_until(lambda: not first.receive(9, 0.1) and session.counts().lag == 0, "the second settled the others")
    nothing(first)


def test_messages_of_one_key_stay_in_order_over_partitions_and_a_restart(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(partitions=4))
    for number in range(50):
        for key in (b"a", b"b", b"c"):
            session.publish(b"%d" % number, key=key)
    found: list[Delivery] = []
    for _ in range(3):
        receiver = session.receiver()
        batch = take(receiver, 50)
        receiver.settle(done(*batch))
        receiver.close()
        found += batch
    for key in (b"a", b"b", b"c"):
        assert [int(d.message.body) for d in found if d.message.key == key] == list(range(50))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_both_group_protocols_deliver(session: Session, url: str, protocol: str) -> None:
    session.publish(b"x")
    backend = KafkaBackend(f"{url}/?protocol={protocol}")
    receiver = backend.open_receiver(Subscription(topic=session.topic, group="g"), deny)
    receiver.settle(done(*take(receiver, 1)))
    receiver.close()
    assert session.counts().lag == 0
    backend.close()


def test_while_nothing_is_wanted_little_is_read_and_nothing_lost(session: Session) -> None:
    receiver = session.receiver()
    session.publish(b"0")
    receiver.settle(done(*take(receiver, 1)))
    session.publish(*(b"%d" % number for number in range(1, 200)))
    for _ in range(60):
        assert receiver.receive(0, 0.01) == []
        receiver.wake()
    assert bodies(take(receiver, 199)) == [b"%d" % number for number in range(1, 200)]


@pytest.mark.parametrize("limit", [0, 10])
def test_a_wake_ends_a_pending_receive_at_once(session: Session, limit: int) -> None:
    receiver = session.receiver()
    nothing(receiver, 0.5)
    took = []
    for _ in range(5):
        timer = Timer(0.1, receiver.wake)
        timer.start()
        start = time.monotonic()
        assert receiver.receive(limit, 60) == []
        took.append(time.monotonic() - start - 0.1)
        timer.join()
    assert min(took) < 5, "a fraction of the time-out, on a busy machine too"
    receiver.wake()
    start = time.monotonic()
    receiver.receive(limit, 60)
    assert time.monotonic() - start < 30, "a wake before it counts, too"


# -- tiers


@pytest.mark.parametrize("where", [{}, {"group": "g"}])
def test_a_delay_is_kept_by_the_broker_to_the_step(session: Session, where: dict[str, Any]) -> None:
    receiver = session.receiver()
    nothing(receiver, 0.5)
    for delay in (0.5, 2.0, 1.0):
        start = time.time()
        session.publish(b"%g" % delay, delay=delay, **where)
        (delivery,) = take(receiver, 1)
        assert time.time() - start >= delay
        assert delivery.returned is bool(where)
        receiver.settle(done(delivery))


def test_a_replay_comes_at_once_and_to_its_group_alone(sessions: Callable[..., Session]) -> None:
    session = sessions(groups=("g", "h"))
    receiver, other = session.receiver(), session.receiver("h")
    nothing(receiver, 0.5)
    session.publish(b"again", group="g")
    (delivery,) = take(receiver, 1)
    assert delivery.returned
    nothing(other)


def test_a_delayed_message_comes_to_every_group(sessions: Callable[..., Session]) -> None:
    session = sessions(groups=("g", "h"))
    session.publish(b"later", delay=1)
    for group in ("g", "h"):
        (delivery,) = take(session.receiver(group), 1)
        assert not delivery.returned


def test_many_waiting_messages_are_held_by_the_broker_and_come_in_time(session: Session) -> None:
    """More than are held in memory, so that the partition pauses and goes on."""
    receiver = session.receiver()
    assert isinstance(receiver, KafkaReceiver)
    nothing(receiver, 0.5)
    number = 3000
    start = time.time()
    session.publish(*(b"%d" % n for n in range(number)), group="g", delay=2)
    sent = time.time()
    nothing(receiver, start + 1.6 - time.time())
    held = [len(partition.waiting) for partition in receiver._members[0]._delayed]
    assert HELD <= sum(held) <= HELD + 10, "as many as one receive asks for may be too many"
    nothing(receiver, start + 1.9 - time.time())
    found = take(receiver, number, 10)
    assert sent - start < 1
    assert time.time() - sent < 3
    assert sorted(int(body) for body in bodies(found)) == list(range(number))
    receiver.settle(done(*found))
    receiver.close()
    assert session.counts() == Counts(0, 0, 0, 0, 0)


def test_a_waiting_message_hides_none_that_is_ready(session: Session) -> None:
    receiver = session.receiver()
    session.publish(b"much later", group="g", delay=600)
    session.publish(b"now")
    assert bodies(take(receiver, 1)) == [b"now"]
    wait_until(lambda: session.counts().waiting == 1, "it waits")


# -- sending


def test_an_unknown_topic_is_refused_at_once_and_the_rest_is_sent(session: Session) -> None:
    nowhere = Outgoing(WireMessage(b"x"), "no-such-topic")
    start = time.monotonic()
    with pytest.raises(PublishError) as caught:
        session.sender.send([nowhere, Outgoing(WireMessage(b"y"), session.topic)], 60)
    assert time.monotonic() - start < 20
    assert isinstance(caught.value.rejected[0], Unroutable)
    assert "no-such-topic" in str(caught.value)
    assert not caught.value.unknown
    assert bodies(take(session.receiver(), 1)) == [b"y"]


def test_a_topic_that_was_deleted_is_unroutable_and_found_when_it_is_back(session: Session) -> None:
    session.publish(b"x")
    admin = AdminClient({"bootstrap.servers": session.url.removeprefix("kafka://")})
    admin.delete_topics([session.topic])[session.topic].result(PATIENCE)

    def is_refused() -> bool:
        try:
            session.publish(b"x", timeout=5)
        except (PublishError, ConnectionLost):
            return True
        return False

    wait_until(is_refused, "the broker does not take what goes with the log that it is about to delete")
    session.sender.close()
    session.sender = session.backend.open_sender()
    with pytest.raises(PublishError) as caught:
        session.publish(b"x", timeout=5)
    assert isinstance(caught.value.rejected[0], Unroutable)
    session.backend.declare(Topology((session.need,)))
    session.publish(b"x", timeout=5)


@pytest.mark.parametrize("size", [1_048_588, 20_000_000])
def test_too_large_a_message_is_refused_with_both_sizes_and_the_rest_is_sent(session: Session, size: int) -> None:
    batch = [Outgoing(WireMessage(body), session.topic) for body in (b"a", b"x" * size, b"b")]
    with pytest.raises(PublishError) as caught:
        session.sender.send(batch, 30)
    assert set(caught.value.rejected) == {1}
    assert not caught.value.unknown
    reason = caught.value.rejected[1]
    assert isinstance(reason, MessageTooLarge)
    assert (reason.size > size, reason.limit) == (True, 1_048_588)
    assert bodies(take(session.receiver(), 2)) == [b"a", b"b"]


def test_the_largest_message_that_fits_in_is_sent_and_not_one_byte_more(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(max_message_bytes=700_000))
    overhead = 61 + 3 + 1 + 2 + 1 + 3 + 1  # a batch, and a record of that length without key and headers
    session.publish(b"x" * (700_000 - overhead))
    with pytest.raises(PublishError, match="message of 700,001 bytes is larger than the 700,000 bytes"):
        session.publish(b"x" * (700_001 - overhead))


def test_small_messages_that_make_too_large_a_batch_are_all_sent(sessions: Callable[..., Session]) -> None:
    """The broker measures batches; a client that does not know of its limit would have all of them refused."""
    session = sessions(KafkaTopic(max_message_bytes=10_000))
    batch = [b"%05d" % number + b"x" * 995 for number in range(100)]
    with pytest.raises(PublishError) as caught:
        session.publish(*batch)
    assert not caught.value.rejected, "none of them is too large"
    session.publish(*batch)
    assert bodies(take(session.receiver(), 100)) == batch


def test_20_megabytes_go_all_the_ways(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(max_message_bytes=2**25))
    body = bytes(range(256)) * 80_000
    receiver = session.receiver()
    for where in ({}, {"group": "g"}, {"group": "g", "delay": 0.5}, {"delay": 0.5}):
        session.publish(body, timeout=60, **where)
        (delivery,) = take(receiver, 1)
        assert delivery.message.body == body
        receiver.settle(done(delivery))
    session.publish(body, group="g", dead=True, timeout=60)
    assert bodies(take(session.receiver(source="dead"), 1)) == [body]


def test_a_closed_session_says_so(session: Session) -> None:
    receiver, dead = session.receiver(), session.receiver(source="dead")
    for one in (receiver, dead, session.sender):
        one.close()
        one.close()
    with pytest.raises(ClosedError):
        receiver.receive(1, 1)
    with pytest.raises(ClosedError):
        dead.receive(1, 1)
    with pytest.raises(ClosedError):
        session.publish(b"x")


def test_a_strangers_record_is_a_message(session: Session) -> None:
    stranger = Producer({"bootstrap.servers": session.url.removeprefix("kafka://")})
    headers: Any = [("a", b"\xff"), ("b", None), ("b", "2"), ("content-type", "text/plain")]
    stranger.produce(session.topic, None, b"\xfe", headers=headers)
    assert stranger.flush(10) == 0
    (delivery,) = take(session.receiver(), 1)
    message = delivery.message
    assert (message.body, message.key, message.content_type) == (b"", b"\xfe", "text/plain")
    assert message.headers == {"a": b"\xff", "b": [None, "2"]}
    session.sender.send([Outgoing(message, session.topic, "g", dead=True)], 10)
    raw = Consumer({"bootstrap.servers": session.url.removeprefix("kafka://"), "group.id": "stranger"})
    raw.assign([TopicPartition(f"{session.topic}.g.dlq", 0, 0)])
    record = raw.poll(PATIENCE)
    raw.close()
    assert record is not None
    assert (record.value(), record.key()) == (None, b"\xfe"), "a null stays a null"


# -- dead letters, tails, counts


def test_dead_letters_stay_until_they_are_settled_whoever_looks(session: Session) -> None:
    session.publish(*(b"%d" % number for number in range(6)), group="g", dead=True)
    one, other = session.receiver(source="dead"), session.receiver(source="dead")
    mine, theirs = take(one, 6), take(other, 6)
    start = time.monotonic()
    assert one.receive(10, 60) == []
    assert time.monotonic() - start < 30, "the end is told at once"
    one.settle([*done(mine[1]), (mine[2].token, RELEASE)])
    other.settle(done(theirs[4]))
    one.settle(done(mine[0]))
    assert session.counts().dead == 3
    assert bodies(take(session.receiver(source="dead"), 3)) == [b"2", b"3", b"5"]
    session.publish(b"6", group="g", dead=True)
    assert bodies(take(one, 1)) == [b"6"], "a new one comes to who looks already"


def test_no_dead_letters_are_told_at_once(session: Session) -> None:
    receiver = session.receiver(source="dead")
    start = time.monotonic()
    assert receiver.receive(10, 60) == []
    assert time.monotonic() - start < 30


def test_a_tail_sees_what_comes_from_now_on_and_leaves_no_trace(session: Session) -> None:
    session.publish(b"before")
    tail = session.receiver("people", source="tail")
    session.publish(b"after")
    session.publish(b"later", delay=0.5)
    assert bodies(take(tail, 2)) == [b"after", b"later"]
    tail.close()
    assert session.backend.groups(session.topic) == [(session.topic, "g")]
    assert session.counts().ready == 2


def test_another_process_sees_what_is_in_flight(session: Session) -> None:
    receiver = session.receiver()
    session.publish(*(b"%d" % number for number in range(10)))
    session.publish(b"waits", group="g", delay=600)
    session.publish(b"dead", group="g", dead=True)
    deliveries = take(receiver, 4)
    elsewhere = KafkaBackend(session.url)

    def stands(expected: Counts) -> None:
        def equal() -> bool:
            receiver.receive(0, 0.1)
            return elsewhere.inspect(session.topic, "g") == expected

        wait_until(equal, f"{expected}, not {elsewhere.inspect(session.topic, 'g')}", 10)

    stands(Counts(6, 4, 1, 1, 10))
    receiver.settle(done(*deliveries[1:3]))
    stands(Counts(6, 2, 1, 1, 8))
    receiver.settle([(deliveries[0].token, RELEASE)])
    stands(Counts(7, 1, 1, 1, 8))
    receiver.close()
    assert elsewhere.inspect(session.topic, "g") == Counts(8, 0, 1, 1, 8)
    elsewhere.close()


def test_what_does_not_exist_is_named_with_what_does(session: Session) -> None:
    with pytest.raises(ConfigurationError, match=r"no topic 'nope'.*declare it first"):
        session.backend.inspect("nope", "g")
    with pytest.raises(ConfigurationError, match=r"no group 'nope'.*its groups are: g"):
        session.backend.inspect(session.topic, "nope")
    with pytest.raises(ConfigurationError, match=r"no group 'nope'"):
        session.receiver("nope")
    with pytest.raises(ConfigurationError, match=r"no topic 'nope'"):
        session.backend.open_receiver(Subscription(topic="nope", group="g", source="tail"), deny)


# -- topology


def test_declaring_is_idempotent_from_many_at_once_and_can_be_used_when_it_returns(url: str) -> None:
    name = f"t-{uuid4().hex[:12]}"
    topology = Topology((TopicNeed(name, frozenset({"g"}), (KafkaTopic(partitions=3, retention=3600),)),))
    backends = [KafkaBackend(url) for _ in range(5)]
    assert {finding.state for finding in backends[0].examine(topology)} == {"missing"}
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda backend: backend.declare(topology), backends))
    assert backends[0].inspect(name, "g") == Counts(0, 0, 0, 0, 0)
    assert {finding.state for finding in backends[0].examine(topology)} == {"present"}
    wanted = KafkaTopic(partitions=2, config={"retention.ms": "1", "max.message.bytes": "2000000"})
    with pytest.raises(TopologyError) as caught:
        backends[1].declare(Topology((TopicNeed(name, frozenset({"g"}), (wanted,)),)))
    text = str(caught.value)
    assert f"topic {name}: partitions is 3, wanted 2; partitions cannot be taken away" in text
    assert f"topic {name}: retention.ms is 3600000, wanted 1; kafka-configs --alter" in text
    assert f"topic {name}.g.dlq: max.message.bytes is" in text
    admin = AdminClient({"bootstrap.servers": url.removeprefix("kafka://")})
    admin.delete_topics([name])[name].result(PATIENCE)
    for backend in backends:
        backend.close()


def test_what_kafka_cannot_make_is_a_topology_error(url: str) -> None:
    backend = KafkaBackend(url)
    odd = KafkaTopic(config={"no.such.setting": "1"})
    for option, text in ((KafkaTopic(replication=7), "[Rr]eplication"), (odd, "no.such.setting")):
        topology = Topology((TopicNeed(f"t-{uuid4().hex[:12]}", options=(option,)),))
        with pytest.raises(TopologyError, match=rf"cannot make topic .*{text}"):
            backend.declare(topology)
    backend.close()


# -- faults


def test_nobody_at_the_address_is_a_lost_connection_that_names_it_and_the_reason(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = KafkaBackend("kafka://127.0.0.1:9/")
    with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:9.*Connection refused"):
        backend.connect(1)
    backend.close()
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert capfd.readouterr().err == ""


def test_the_broker_tells_who_it_is(session: Session) -> None:
    assert session.backend.connect(10).startswith("Kafka, cluster ")
    odd = KafkaBackend(f"{session.url}/?rdkafka.no.such.setting=1")
    with pytest.raises(ConfigurationError, match=r"no.such.setting"):
        odd.connect(10)


@pytest.mark.own_broker
def test_a_restart_of_the_broker_is_told_and_repeats_nothing(session: Session, kafka_broker: Broker) -> None:
    told: list[str] = []
    receiver = session.receiver(notify=lambda kind, _: told.append(kind))
    session.publish(b"0", b"1")
    held, other = take(receiver, 2)
    # an outage before both have what is theirs ends the session: nobody could tell them where to begin
    wait_until(lambda: not receiver.receive(0, 0.1) and told.count("rebalance") >= 2, "the retries have a member, too")
    with kafka_broker.stopped():
        wait_until(lambda: not receiver.receive(10, 0.1) and "disconnected" in told, "the outage is told")
        receiver.settle(done(other))
    wait_until(lambda: not receiver.receive(10, 0.1) and "connected" in told, "its end is told")
    session.sender.close()
    session.sender = session.backend.open_sender()
    session.publish(b"2")
    found = take(receiver, 1)
    while b"2" not in bodies(found):  # it took longer than a membership lasts, so what was held comes again
        found += take(receiver, 1)
    assert b"1" not in bodies(found)
    if len(found) == 1:
        receiver.settle(done(held))
    receiver.settle(done(*found))
    receiver.close()
    assert session.counts() == Counts(0, 0, 0, 0, 0)


@pytest.mark.parametrize("suffix", ["", ".g.retry.500ms"])
def test_a_topic_that_is_deleted_ends_the_session_and_can_be_declared_again(session: Session, suffix: str) -> None:
    receiver = session.receiver()
    session.publish(b"x")
    receiver.settle(done(*take(receiver, 1)))
    name = session.topic + suffix
    admin = AdminClient({"bootstrap.servers": session.url.removeprefix("kafka://")})
    admin.delete_topics([name])[name].result(PATIENCE)
    with pytest.raises(ConnectionLost, match=f"topic {name} was deleted"):
        nothing(receiver, PATIENCE)
    receiver.close()
    with pytest.raises(ConfigurationError, match="declare it"):
        session.receiver()
    session.backend.declare(Topology((session.need,)))
    again = session.receiver()
    session.sender.close()
    session.sender = session.backend.open_sender()
    session.publish(b"y")
    assert b"y" in bodies(take(again, 1))


@pytest.mark.own_broker
def test_while_the_broker_is_away_everything_ends_in_time(session: Session, kafka_broker: Broker) -> None:
    receiver = session.receiver()
    session.publish(*(b"%d" % number for number in range(100)))
    deliveries = take(receiver, 10)
    with kafka_broker.paused():
        start = time.monotonic()
        receiver.settle(done(*deliveries))
        receiver.receive(10, 0.5)
        with pytest.raises((PublishError, ConnectionLost)):
            session.publish(b"x", timeout=1)
        receiver.close()
        session.sender.close()
        assert time.monotonic() - start < 40
