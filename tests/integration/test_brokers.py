"""That the brokers which the other tests stand on come up, keep what they must, and go away again.

Nothing of mqkit is used here: raw drivers talk to the brokers.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import docker
import pika
import pytest
from broker_images import BrokersUnavailable, provide
from broker_owners import KEPT, labels, remove, remove_leftovers, this_process
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from docker.models.containers import Container

from mqkit.testing.waiting import eventually
from tests.brokers import Broker, without

DEAD_PROCESS = 2**22 + 1  # no Linux kernel gives an id this high


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    image()  # skips where there is no engine
    client = docker.from_env()
    yield client
    client.close()


def connect(broker: Broker) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(broker.url.partition("?")[0]))


def publish_to_quorum_queue(broker: Broker, queue: str, body: bytes) -> None:
    connection = connect(broker)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def take_from_queue(broker: Broker, queue: str) -> bytes:
    """Consumes one message, then deletes the queue."""
    connection = connect(broker)
    channel = connection.channel()
    _, _, body = next(channel.consume(queue, auto_ack=True, inactivity_timeout=20))
    channel.cancel()
    channel.queue_delete(queue)
    connection.close()
    assert body is not None, "nothing came for 20 s"
    return bytes(body)


@pytest.mark.parametrize("fixture", ["rabbitmq_broker", "rabbitmq_old_broker"])
def test_rabbitmq_carries_a_message(fixture: str, request: pytest.FixtureRequest) -> None:
    broker: Broker = request.getfixturevalue(fixture)
    queue = f"brokers-{uuid.uuid4()}"
    publish_to_quorum_queue(broker, queue, b"hello")
    assert take_from_queue(broker, queue) == b"hello"


def test_rabbitmq_takes_a_body_of_32_mebibytes(rabbitmq_broker: Broker) -> None:
    queue = f"brokers-{uuid.uuid4()}"
    body = bytes(32 * 2**20)
    publish_to_quorum_queue(rabbitmq_broker, queue, body)
    assert take_from_queue(rabbitmq_broker, queue) == body


def test_rabbitmq_names_its_management_api_in_its_url(rabbitmq_broker: Broker) -> None:
    assert rabbitmq_broker.url.endswith(f"?management={rabbitmq_broker.management_url}")


@pytest.mark.own_broker
def test_rabbitmq_restarted_keeps_its_url_and_what_is_durable(rabbitmq_broker: Broker) -> None:
    url, queue = rabbitmq_broker.url, f"brokers-{uuid.uuid4()}"
    publish_to_quorum_queue(rabbitmq_broker, queue, b"still here")
    rabbitmq_broker.restart()
    assert rabbitmq_broker.url == url
    assert take_from_queue(rabbitmq_broker, queue) == b"still here"


def address(broker: Broker) -> str:
    return broker.url.removeprefix("kafka://")


def create_topic(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": address(broker)})
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic].result(20)


def produce(broker: Broker, topic: str, body: bytes) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": address(broker), "acks": "all"})
    producer.produce(topic, body, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(20) == 0
    assert failures == [None]


def consume(broker: Broker, topic: str) -> bytes:
    """Reads the first message of the topic, then deletes the topic."""
    consumer = Consumer(
        {"bootstrap.servers": address(broker), "group.id": str(uuid.uuid4()), "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    admin = AdminClient({"bootstrap.servers": address(broker)})
    admin.delete_topics([topic])[topic].result(20)
    assert message is not None, "nothing came for 20 s"
    assert message.error() is None
    return message.value() or b""


def test_kafka_carries_a_message(kafka_broker: Broker) -> None:
    topic = f"brokers-{uuid.uuid4()}"
    create_topic(kafka_broker, topic)
    produce(kafka_broker, topic, b"hello")
    assert consume(kafka_broker, topic) == b"hello"


@pytest.mark.own_broker
def test_kafka_restarted_keeps_its_url_and_its_topics(kafka_broker: Broker) -> None:
    url, topic = kafka_broker.url, f"brokers-{uuid.uuid4()}"
    create_topic(kafka_broker, topic)
    produce(kafka_broker, topic, b"still here")
    kafka_broker.restart()
    assert kafka_broker.url == url
    assert consume(kafka_broker, topic) == b"still here"


def image() -> str:
    try:
        return provide("rabbitmq")["rabbitmq"]
    except BrokersUnavailable as error:
        without(str(error))


def exists(engine: docker.DockerClient, container_id: str) -> bool:
    return bool(engine.containers.list(all=True, filters={"id": container_id}, ignore_removed=True))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_interrupted_removes_its_broker(end: signal.Signals, engine: docker.DockerClient) -> None:
    script = (
        "from broker_containers import rabbitmq\n"
        "with rabbitmq() as broker:\n"
        "    print(broker.container.id, flush=True)\n"
        "    input()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as run:
        assert run.stdout is not None
        container_id = run.stdout.readline().strip()
        assert container_id
        assert exists(engine, container_id)
        run.send_signal(end)
        run.wait(30)
    assert not exists(engine, container_id)


@pytest.fixture
def make_container(engine: docker.DockerClient) -> Iterator[Callable[[str], Container]]:
    """Makes a container with an owner, and does not start it."""
    made: list[Container] = []

    def make(owner: str) -> Container:
        made.append(engine.containers.create(image(), labels=labels(owner)))
        return made[-1]

    yield make
    for container in made:
        remove(container)


def test_leftovers_of_a_dead_run_are_removed_and_nothing_else(
    engine: docker.DockerClient, make_container: Callable[[str], Container]
) -> None:
    host, pid, started = this_process().split()
    dead = make_container(f"{host} {DEAD_PROCESS} {started}")
    reused = make_container(f"{host} {pid} 1")  # the id lives, but belongs to another process now
    living = make_container(this_process())
    kept = make_container(KEPT)
    elsewhere = make_container(f"another-{host} {DEAD_PROCESS} {started}")

    remove_leftovers(engine)

    # whoever else starts a broker just now may be at it too
    eventually(lambda: not any(exists(engine, each.id) for each in (dead, reused)), "both are gone")
    assert [exists(engine, each.id) for each in (living, kept, elsewhere)] == [True, True, True]
