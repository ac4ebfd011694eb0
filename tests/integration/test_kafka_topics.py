"""Topics of Kafka over time: deleted, made anew, made larger, and what other clients write into them."""

from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]  # it does

from mqkit.backend import Counts
from mqkit.backends.kafka import KafkaTopic
from mqkit.errors import ConnectionLost, PublishError, Unroutable
from tests.brokers import Broker
from tests.kafka_session import PATIENCE, Session, Source, bodies, done, take, wait_until


@pytest.fixture
def url(kafka_broker: Broker) -> str:
    return kafka_broker.url.rstrip("/")


@pytest.fixture
def sessions(url: str) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*options: object, **more: Any) -> Session:
        made.append(Session(url, *options, **more))
        return made[-1]

    yield make
    for session in made:
        session.close()


def servers(session: Session) -> dict[str, Any]:
    return {"bootstrap.servers": session.url.removeprefix("kafka://")}


def admin_of(session: Session) -> AdminClient:
    return AdminClient(servers(session) | {"allow.auto.create.topics": False})


def write(session: Session, *bodies: bytes, partition: int = 0, name: str = "", timestamp: int = 0) -> None:
    """As a stranger does; to a partition that is new as soon as the broker tells of it, which the driver waits for
    no longer than for its first answer.
    """
    topic, producer = name or session.topic, Producer(servers(session))
    wait_until(lambda: partition in producer.list_topics(topic, PATIENCE).topics[topic].partitions, "it is told of")
    failed: list[object] = []
    for body in bodies:
        producer.produce(
            topic,
            body,
            partition=partition,
            timestamp=timestamp,
            on_delivery=lambda error, _: failed.append(error),
        )
    assert producer.flush(PATIENCE) == 0
    assert not any(failed)


# -- publishing


def test_publishing_to_a_topic_that_was_deleted_is_refused_soon_and_makes_none(
    sessions: Callable[..., Session],
) -> None:
    session = sessions(KafkaTopic(partitions=6))
    session.publish(b"x")
    admin = admin_of(session)
    admin.delete_topics([session.topic])[session.topic].result(PATIENCE)
    wait_until(lambda: session.topic not in admin.list_topics(timeout=PATIENCE).topics, "the broker has deleted it")
    with pytest.raises(PublishError) as caught:
        session.publish(b"y", timeout=PATIENCE)
    assert isinstance(caught.value.rejected[0], Unroutable)
    with pytest.raises(PublishError, match="there is no topic"):
        session.publish(b"z")
    assert session.topic not in admin.list_topics(timeout=PATIENCE).topics


# -- topics that are made anew


def made_anew(session: Session, name: str, partitions: int = 1) -> None:
    """As an operator does."""
    admin = admin_of(session)
    admin.delete_topics([name])[name].result(PATIENCE)
    wait_until(lambda: name not in admin.list_topics(timeout=PATIENCE).topics, "it is deleted")
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(PATIENCE)
    wait_until(lambda: name in admin.list_topics(timeout=PATIENCE).topics, "it is there again")


def numbers(*span: int) -> list[bytes]:
    return [b"%d" % number for number in range(*span)]


def test_a_group_reads_all_of_a_topic_that_was_made_anew_while_it_read_the_old_one(
    sessions: Callable[..., Session],
) -> None:
    session = sessions(KafkaTopic(partitions=1))
    receiver = session.receiver()
    session.publish(*numbers(20))
    old = take(receiver, 20)
    receiver.settle(done(*old[:10]))
    made_anew(session, session.topic)
    write(session, *numbers(100, 150))  # more than there were: the position in the old log is one in the new log, too
    with pytest.raises(ConnectionLost, match=f"topic {session.topic} was deleted and made anew"):
        wait_until(lambda: receiver.settle(done(*receiver.receive(10, 0.2))), "the session ends")
    receiver.close()
    assert session.counts() == Counts(50, 0, 0, 0, 50), "nothing of it counts as finished"
    again = session.receiver()
    found = take(again, 50)
    assert bodies(found) == numbers(100, 150)
    again.settle(done(*found))
    again.close()
    session.publish(b"through the old sender")
    assert bodies(take(session.receiver(), 1)) == [b"through the old sender"]


@pytest.mark.parametrize("place", ["", ".g.retry.0ms", ".g.dlq"])
def test_nothing_of_a_topic_that_was_made_anew_while_nobody_read_it_is_passed_over(
    sessions: Callable[..., Session], place: str
) -> None:
    session = sessions(KafkaTopic(partitions=1))
    source: Source = "dead" if place == ".g.dlq" else "group"
    name = session.topic + place
    write(session, *numbers(10), name=name)
    receiver = session.receiver(source=source)
    receiver.settle(done(*take(receiver, 10)))
    made_anew(session, name)  # and the commit on the way out is one for the old log
    receiver.close()
    write(session, *numbers(100, 120), name=name)
    assert bodies(take(session.receiver(source=source), 20)) == numbers(100, 120)


def test_dead_letters_of_a_new_topic_are_not_settled_by_who_reads_the_old_one(sessions: Callable[..., Session]) -> None:
    session = sessions()
    session.publish(*numbers(10), group="g", dead=True)
    receiver = session.receiver(source="dead")
    old = take(receiver, 10)
    made_anew(session, f"{session.topic}.g.dlq")
    write(session, *numbers(100, 110), name=f"{session.topic}.g.dlq")
    receiver.settle(done(*old))
    receiver.close()
    assert session.counts().dead == 10
    assert bodies(take(session.receiver(source="dead"), 10)) == numbers(100, 110)


# -- partitions


@pytest.mark.parametrize("source", ["group", "tail"])
def test_a_partition_that_is_added_is_read_within_seconds(sessions: Callable[..., Session], source: Source) -> None:
    session = sessions(KafkaTopic(partitions=1))
    receiver = session.receiver(source=source)
    session.publish(b"0")
    receiver.settle(done(*take(receiver, 1)))
    admin = admin_of(session)
    admin.create_partitions([NewPartitions(session.topic, 2)])[session.topic].result(PATIENCE)
    write(session, b"1", partition=1)
    assert bodies(take(receiver, 1, patience=60)) == [b"1"]
    session.publish(*numbers(10), key=b"0")
    write(session, b"more", partition=1)
    assert b"more" in bodies(take(receiver, 11)), "and the first is read on"


# -- what others write and remove


@pytest.mark.parametrize("suffix", ["g.retry.2000ms", "delay.2000ms"])
def test_a_message_waits_its_time_whatever_the_clock_of_who_wrote_it_says(
    sessions: Callable[..., Session], suffix: str
) -> None:
    session = sessions()
    told: list[str] = []
    receiver = session.receiver(notify=lambda kind, _: told.append(kind))
    wait_until(lambda: not receiver.receive(0, 0.1) and told.count("rebalance") >= 2, "all partitions are there")
    began = monotonic()
    an_hour_ago = int((time() - 3600) * 1000)
    write(session, b"of a slow clock", name=f"{session.topic}.{suffix}", timestamp=an_hour_ago)
    assert bodies(take(receiver, 1)) == [b"of a slow clock"]
    assert monotonic() - began >= 2


def test_a_group_that_has_finished_all_is_at_zero_whatever_transactions_left_in_the_log(
    sessions: Callable[..., Session],
) -> None:
    session = sessions(KafkaTopic(partitions=1))
    receiver = session.receiver()
    producer = Producer(servers(session) | {"transactional.id": session.topic})
    producer.init_transactions(PATIENCE)
    for ending in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for body in numbers(5):
            producer.produce(session.topic, body, partition=0)
        producer.flush(PATIENCE)
        ending(PATIENCE)
    receiver.settle(done(*take(receiver, 10)))
    wait_until(
        lambda: not receiver.receive(1, 0.1) and session.counts() == Counts(0, 0, 0, 0, 0), "all counts are zero"
    )
    producer.begin_transaction()
    producer.produce(session.topic, b"taken back", partition=0)
    producer.flush(PATIENCE)
    assert session.counts().lag == 0, "nobody is given it"
    producer.abort_transaction(PATIENCE)
    wait_until(lambda: not receiver.receive(1, 0.1) and session.counts().lag == 0, "the end of it is passed, too")
    receiver.close()
    assert session.counts() == Counts(0, 0, 0, 0, 0)


def test_what_retention_took_before_the_group_had_it_is_told(
    sessions: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    session = sessions(KafkaTopic(partitions=1))
    session.publish(*numbers(10))
    receiver = session.receiver()
    receiver.settle(done(*take(receiver, 5)))
    receiver.close()
    session.publish(*numbers(10, 30))
    place, admin = TopicPartition(session.topic, 0, 25), admin_of(session)
    admin.delete_records([place])[place].result(PATIENCE)
    assert bodies(take(session.receiver(), 5)) == numbers(25, 30)
    assert f"{session.topic}[0]: 20 messages that group {session.topic}.g had not finished were removed" in caplog.text
