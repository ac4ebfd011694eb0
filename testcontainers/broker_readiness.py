"""When a broker is ready: facts that are asked for until they hold, never a pause."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pika
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from docker.models.containers import Container
from pika.exceptions import AMQPError

START_TIMEOUT = 90.0


class BrokerDidNotStart(RuntimeError):
    """The container ended, or its broker answered nobody in time; the text ends with its last words."""


def wait_until(is_ready: Callable[[], bool], container: Container, timeout: float = START_TIMEOUT) -> None:
    """Returns as soon as `is_ready()`.

    Raises:
        BrokerDidNotStart: The container ended, or `timeout` seconds passed.
    """
    deadline = time.monotonic() + timeout
    while not is_ready():
        container.reload()
        if container.status != "running" or time.monotonic() > deadline:
            last_words = container.logs(tail=20).decode(errors="replace")
            raise BrokerDidNotStart(f"{container.name} is {container.status}, and not ready:\n{last_words}")
        time.sleep(0.1)


def amqp_answers(port: int) -> bool:
    """Whether a client can open a connection and a channel."""
    if not _speaks_amqp(port):  # the driver would log an error with its traceback, at each try
        return False
    parameters = pika.ConnectionParameters(
        "127.0.0.1", port, socket_timeout=2, stack_timeout=5, connection_attempts=1, blocked_connection_timeout=5
    )
    try:
        connection = pika.BlockingConnection(parameters)
        connection.channel()
        connection.close()
    except (AMQPError, OSError):
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))  # the engine's proxy accepts for a broker that is not up, and hangs up
    except OSError:
        return False


def http_answers(url: str) -> bool:
    """Whether anything at all listens to HTTP there: without credentials, a refusal is an answer."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own loopback URL
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except OSError:
        return False


def kafka_answers(port: int) -> bool:
    """Whether the broker gives its metadata and every partition has a leader."""
    settings: dict[str, Any] = {
        "bootstrap.servers": f"127.0.0.1:{port}",
        "socket.connection.setup.timeout.ms": 1000,
        "log_level": 0,
        "error_cb": _ignore,
    }
    admin = AdminClient(settings)
    try:
        metadata = admin.list_topics(timeout=1)
    except KafkaException:
        return False
    partitions = [each for topic in metadata.topics.values() for each in topic.partitions.values()]
    return bool(metadata.brokers) and all(each.leader >= 0 for each in partitions)


def _ignore(_error: object) -> None:
    """A broker that is not up yet is no news here; without a callback the driver prints it."""
