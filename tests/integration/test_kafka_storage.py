"""What Kafka keeps of retries and dead letters, and what comes of it when it forgets the offsets of their group.

It forgets them by default a week after the group's last member has left; that is, it removes the group, as is done here.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does

from mqkit.backend import Counts, Subscription
from mqkit.backends.kafka.client import KafkaBackend
from mqkit.topology import Topology
from tests.brokers import Broker
from tests.kafka_session import PATIENCE, Session, bodies, done, nothing, take, wait_until

EARLIEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the driver's


@pytest.fixture
def session(kafka_broker: Broker) -> Iterator[Session]:
    session = Session(kafka_broker.url.rstrip("/"))
    yield session
    session.close()


@pytest.fixture
def admin(session: Session) -> AdminClient:
    return AdminClient({"bootstrap.servers": session.url.removeprefix("kafka://")})


def numbers(*span: int) -> list[bytes]:
    return [b"%d" % number for number in range(*span)]


def start_of(admin: AdminClient, name: str) -> int:
    """The first offset that there is."""
    place = TopicPartition(name, 0)
    asked: Any = admin.list_offsets({place: EARLIEST})
    return int(asked[place].result(PATIENCE).offset)


def forget(admin: AdminClient, group: str) -> None:
    """As the broker does when nobody was a member for long enough."""

    def forgotten() -> bool:
        (failure,) = [future.exception(PATIENCE) for future in admin.delete_consumer_groups([group]).values()]
        return failure is None or failure.args[0].name() == "GROUP_ID_NOT_FOUND"

    wait_until(forgotten, f"group {group} is gone")


def test_retries_that_are_finished_are_removed_while_the_group_works(session: Session, admin: AdminClient) -> None:
    receiver = session.receiver()
    session.publish(*numbers(30), group="g")
    found = take(receiver, 30)
    receiver.settle(done(*found[:10], *found[11:]))
    name = f"{session.topic}.g.retry.0ms"
    wait_until(lambda: not receiver.receive(1, 0.1) and start_of(admin, name) == 10, "all before the one that is open")
    receiver.settle(done(found[10]))
    wait_until(lambda: not receiver.receive(1, 0.1) and start_of(admin, name) == 30, "all")
    assert session.counts() == Counts(0, 0, 0, 0, 0)


def test_retries_that_are_finished_do_not_come_back_when_kafka_forgets_the_group(
    session: Session, admin: AdminClient
) -> None:
    receiver = session.receiver()
    session.publish(*numbers(20), group="g")
    session.publish(b"waits", group="g", delay=600)
    receiver.settle(done(*take(receiver, 20)))
    receiver.close()
    forget(admin, f"{session.topic}.g.retry")
    assert session.counts() == Counts(0, 0, 1, 0, 0)
    nothing(session.receiver(), 2)


def test_dead_letters_that_are_settled_are_removed_up_to_the_first_that_is_not(
    session: Session, admin: AdminClient
) -> None:
    session.publish(*numbers(20), group="g", dead=True)
    receiver = session.receiver(source="dead")
    found = take(receiver, 20)
    receiver.settle(done(*found[:10], *found[15:]))
    assert start_of(admin, f"{session.topic}.g.dlq") == 10
    receiver.settle(done(*found[10:15]))
    assert start_of(admin, f"{session.topic}.g.dlq") == 20
    receiver.close()
    assert session.counts().dead == 0


def settle_letters(session: Session, *settled: int) -> None:
    """In a session of their own, which reads all that there are."""
    receiver = session.receiver(source="dead")
    there = {int(delivery.message.body): delivery for delivery in take(receiver, session.counts().dead or 0)}
    assert not receiver.receive(1, 1), "as many as are counted"
    receiver.settle(done(*(there[number] for number in settled)))
    receiver.close()


def test_what_others_settled_counts_where_the_topic_that_tells_of_it_was_made_anew(
    session: Session, admin: AdminClient
) -> None:
    name = f"{session.topic}.g.dlq"
    session.publish(*numbers(10), group="g", dead=True)
    settle_letters(session, 5)
    assert session.counts().dead == 9
    forget(admin, name)
    assert session.counts().dead == 9, "read from the topic"
    admin.delete_topics([f"{name}.settled"])[f"{name}.settled"].result(PATIENCE)
    wait_until(lambda: f"{name}.settled" not in admin.list_topics(timeout=PATIENCE).topics, "it is gone")
    with closing(KafkaBackend(session.url)) as other:
        other.declare(Topology((session.need,)))
        subscription = Subscription(topic=session.topic, group="g", source="dead")
        receiver = other.open_receiver(subscription, lambda _, __: None)
        found = take(receiver, 10)
        receiver.settle(done(found[7]))
        receiver.close()
    forget(admin, name)
    assert session.counts().dead == 8


def test_dead_letters_that_are_settled_do_not_come_back_when_kafka_forgets_the_group(
    session: Session, admin: AdminClient
) -> None:
    name = f"{session.topic}.g.dlq"
    session.publish(*numbers(20), group="g", dead=True)
    for settled in ([0, 1], [5, 6, 7, 15], [19, 3]):
        settle_letters(session, *settled)
        forget(admin, name)
    assert session.counts().dead == 12
    assert start_of(admin, name) == 2
    settle_letters(session, *({*range(2, 20)} - {3, 5, 6, 7, 15, 18, 19}))
    forget(admin, name)
    assert session.counts() == Counts(0, 0, 0, 1, 0)
    settle_letters(session, 18)
    assert start_of(admin, name) == 20
    settle_letters(session)
    assert start_of(admin, f"{name}.settled") == 2, "nothing of the two facts need be known any more"


def test_dead_letters_of_a_topic_that_an_earlier_version_declared_are_settled_as_before(
    session: Session, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{session.topic}.g.dlq.settled"
    admin.delete_topics([name])[name].result(PATIENCE)
    wait_until(lambda: name not in admin.list_topics(timeout=PATIENCE).topics, "it is deleted")
    session.publish(*numbers(5), group="g", dead=True)
    settle_letters(session, 0, 3)
    assert bodies(take(session.receiver(source="dead"), 3)) == [b"1", b"2", b"4"]
    assert not caplog.records
