"""A backend on a Kafka topic of its own, and what tests of Kafka do with it at the seam."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from mqkit.backend import BlockingReceiver, BlockingSender, Counts, Settlement, Subscription
from mqkit.backends.kafka.client import KafkaBackend
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE
PATIENCE = 120.0
Source = Literal["group", "dead", "tail"]


def deny(kind: str, text: str) -> None:
    """Notifications that a test does not look at."""


def wait_until(fact: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not fact():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.02)


class Session:
    """A backend, and a topic of its own with the group `g`."""

    def __init__(self, url: str, *options: object, groups: Sequence[str] = ("g",)) -> None:
        self.url = url
        self.backend = KafkaBackend(f"{url}/?rdkafka.session.timeout.ms=6000")
        self.topic = f"t-{uuid4().hex[:12]}"
        self.opened: list[BlockingReceiver | BlockingSender] = []
        self.need = TopicNeed(self.topic, frozenset(groups), options)
        self.backend.declare(Topology((self.need,)))
        self.sender = self.backend.open_sender()

    def receiver(
        self, group: str = "g", source: Source = "group", notify: Callable[[str, str], None] = deny
    ) -> BlockingReceiver:
        receiver = self.backend.open_receiver(Subscription(topic=self.topic, group=group, source=source), notify)
        self.opened.append(receiver)
        return receiver

    def publish(self, *bodies: bytes, key: bytes | None = None, timeout: float = 10, **where: Any) -> None:
        self.sender.send([Outgoing(WireMessage(body, key=key), self.topic, **where) for body in bodies], timeout)

    def counts(self, group: str = "g") -> Counts:
        return self.backend.inspect(self.topic, group)

    def close(self) -> None:
        for receiver in self.opened:
            receiver.close()
        self.sender.close()
        admin = AdminClient({"bootstrap.servers": self.url.removeprefix("kafka://")})
        names = [name for name in admin.list_topics(timeout=10).topics if name.partition(".")[0] == self.topic]
        for deleted in admin.delete_topics(names).values():
            deleted.result(PATIENCE)
        self.backend.close()


def take(receiver: BlockingReceiver, number: int, patience: float = PATIENCE) -> list[Delivery]:
    """Exactly so many deliveries."""
    found: list[Delivery] = []
    deadline = time.monotonic() + patience
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came within {patience:g} s"
        found += receiver.receive(number - len(found), 0.2)
    return found


def nothing(receiver: BlockingReceiver, seconds: float = 1.0) -> None:
    deadline = time.monotonic() + seconds
    while (rest := deadline - time.monotonic()) > 0:
        assert not receiver.receive(10, rest)


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


def done(*deliveries: Delivery) -> list[tuple[object, Settlement]]:
    return [(delivery.token, DONE) for delivery in deliveries]
