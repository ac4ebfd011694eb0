"""Topics of Kafka over time: deleted, made anew, made larger, and what other clients write into them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # it does

from mqkit.backends.kafka import KafkaTopic
from mqkit.errors import PublishError, Unroutable
from tests.brokers import Broker
from tests.kafka_session import PATIENCE, Session, bodies, done, take, wait_until


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


def write(session: Session, *bodies: bytes, partition: int = 0, name: str = "") -> None:
    """As a stranger does."""
    producer = Producer(servers(session))
    for body in bodies:
        producer.produce(name or session.topic, body, partition=partition)
    assert producer.flush(PATIENCE) == 0


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


# -- partitions


def test_a_partition_that_is_added_is_read_within_seconds(sessions: Callable[..., Session]) -> None:
    session = sessions(KafkaTopic(partitions=1))
    receiver = session.receiver()
    session.publish(b"0")
    receiver.settle(done(*take(receiver, 1)))
    admin = admin_of(session)
    admin.create_partitions([NewPartitions(session.topic, 2)])[session.topic].result(PATIENCE)
    write(session, b"1", partition=1)
    assert bodies(take(receiver, 1)) == [b"1"]
