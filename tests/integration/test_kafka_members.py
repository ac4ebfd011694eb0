"""Members of a group on Kafka that come and go: what is given away, when, and that it is read again when it comes back."""

import time
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from mqkit.backend import BlockingReceiver, Subscription
from mqkit.backends.kafka import KafkaTopic
from mqkit.backends.kafka.client import KafkaBackend, consumer_config
from mqkit.backends.kafka.faults import Trouble
from mqkit.backends.kafka.member import Member
from mqkit.backends.kafka.options import parse_url
from mqkit.backends.kafka.tiers import Tier
from mqkit.message import Delivery
from tests.brokers import Broker
from tests.kafka_session import PATIENCE, RELEASE, Session, bodies, deny, done, take, wait_until

Protocol = Literal["classic", "consumer"]


@pytest.fixture
def sessions(kafka_broker: Broker) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*options: object) -> Session:
        made.append(Session(kafka_broker.url.rstrip("/"), *options))
        return made[-1]

    yield make
    for session in made:
        session.close()


def receiver_of(session: Session, protocol: Protocol, notify: Callable[[str, str], None] = deny) -> BlockingReceiver:
    backend = KafkaBackend(f"{session.url}/?protocol={protocol}")
    receiver = backend.open_receiver(Subscription(topic=session.topic, group="g", ordering="key"), notify)
    session.opened.append(receiver)
    return receiver


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_partition_goes_when_what_is_with_handlers_is_over_and_nothing_is_done_twice(
    sessions: Callable[..., Session], protocol: Protocol
) -> None:
    session = sessions(KafkaTopic(partitions=4))
    for number in range(40):
        session.publish(b"%d" % number, key=b"%d" % number)
    told: list[str] = []
    first = receiver_of(session, protocol, lambda kind, text: told.append(text))
    held = take(first, 40)
    second = receiver_of(session, protocol)
    recalls: list[object] = []

    def recalled() -> bool:
        assert not first.receive(0, 0.1)
        assert not second.receive(10, 0.1), "while the first is at work the second gets nothing"
        for recall in first.recalled():
            assert not recall.lost
            recalls.extend(delivery for delivery in held if recall.covers(delivery.token))
        return bool(recalls)

    wait_until(recalled, "the second's share is asked back")
    going = [delivery for delivery in held if delivery in recalls]
    assert 0 < len(going) < 40
    running, unstarted = going[:3], going[3:]
    first.settle([(delivery.token, RELEASE) for delivery in unstarted])
    quiet = time.monotonic() + 1
    while time.monotonic() < quiet:
        assert not first.receive(0, 0.1)
        assert not second.receive(10, 0.1)
    assert not [text for text in told if text.startswith(f"gave {session.topic}[")]
    first.settle(done(*running))
    again: list[Delivery] = []

    def there() -> bool:
        assert not first.receive(0, 0.05)
        again.extend(second.receive(100, 0.05))
        return len(again) >= len(unstarted)

    wait_until(there, "what had not started comes to the second")
    assert sorted(bodies(again)) == sorted(bodies(unstarted)), "and nothing that was done"
    second.settle(done(*again))
    first.settle(done(*(delivery for delivery in held if delivery not in going)))
    wait_until(
        lambda: not first.receive(9, 0.1) and not second.receive(9, 0.1) and session.counts().lag == 0, "all is done"
    )


def test_a_partition_that_was_paused_when_it_went_is_read_when_it_comes_back(
    sessions: Callable[..., Session],
) -> None:
    session = sessions(KafkaTopic(partitions=2))
    settings = parse_url(session.url)

    def member() -> Member:
        config = consumer_config(settings, f"{session.topic}.g")
        trouble = Trouble(settings.servers)
        made = Member(config, [Tier(session.topic)], interval=0.1, trouble=trouble, notify=deny, patience=5)
        made.join()
        return made

    def live(*members: Member) -> bool:
        for one in members:
            one.keep(0.02)
            one.hand_over()
        return True

    def read() -> bool:
        first.poll(0.02)
        first.take(1000, time.time(), lambda part, offset, message: found.append(message.body))
        return True

    found: list[bytes] = []
    first = member()
    try:
        for number in range(200):
            session.publish(b"early", key=b"%d" % number)
        wait_until(lambda: live(first) and first.flow.parked, "so much came unwanted that the partitions pause")
        second = member()
        wait_until(lambda: live(first, second) and len(second.partitions) == 1, "the second has one of them")
        wait_until(lambda: live(second) and read() and not first.flow.parked, "the first goes on with the other")
        second.closing().join(PATIENCE)
        wait_until(lambda: read() and len(first.partitions) == 2, "it comes back")
        for number in range(20):
            session.publish(b"late", key=b"%d" % number)
        wait_until(lambda: read() and found.count(b"late") == 20, "both partitions are read")
        assert found.count(b"early") == 200
    finally:
        first.closing().join(PATIENCE)
