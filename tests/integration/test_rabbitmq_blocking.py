"""What only the blocking colour has: threads that call, a thread that keeps the connections, processes that fork."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from mqkit.backend import BlockingReceiver, Settlement, Subscription
from mqkit.backends.rabbitmq.blocking import RabbitBackend
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology
from tests.brokers import Broker
from tests.rabbitmq_cleaning import remove_topics

PATIENCE = 60.0


@pytest.fixture
def topic() -> str:
    return f"t-{uuid4().hex}"


@pytest.fixture
def backend(rabbitmq_broker: Broker, topic: str) -> Iterator[RabbitBackend]:
    """Its heartbeat is a second, so RabbitMQ gives up a silent connection after two or three."""
    found = RabbitBackend(rabbitmq_broker.url + "&heartbeat=1")
    found.declare(Topology((TopicNeed(topic, frozenset({"g"})),)))
    yield found
    found.close()
    remove_topics(rabbitmq_broker, [topic])


def listen(backend: RabbitBackend, topic: str) -> BlockingReceiver:
    return backend.open_receiver(Subscription(topic=topic, group="g"), lambda *_: None)


def collect(receiver: BlockingReceiver, number: int) -> list[Delivery]:
    found: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < number and time.monotonic() < deadline:
        found += receiver.receive(number - len(found), 1.0)
    assert len(found) == number
    return found


def test_heartbeats_go_on_while_every_thread_that_calls_is_busy(backend: RabbitBackend, topic: str) -> None:
    sender, receiver = backend.open_sender(), listen(backend, topic)
    sender.send([Outgoing(WireMessage(b"1"), topic)], PATIENCE)
    (found,) = collect(receiver, 1)
    time.sleep(6)  # a handler that blocks: that is the case, not a wait
    receiver.settle([(found.token, Settlement.DONE)])
    sender.send([Outgoing(WireMessage(b"2"), topic)], PATIENCE)
    (found,) = collect(receiver, 1)
    assert (found.message.body, found.redelivered) == (b"2", 0)
    receiver.close()
    sender.close()


def test_a_sender_serves_one_thread_after_the_other_and_is_closed_by_a_third(
    backend: RabbitBackend, topic: str
) -> None:
    sender = backend.open_sender()
    for i in range(5):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(sender.send, [Outgoing(WireMessage(b"%d" % i), topic)], PATIENCE).result()
    sender.close()
    receiver = listen(backend, topic)
    assert [one.message.body for one in collect(receiver, 5)] == [b"0", b"1", b"2", b"3", b"4"]
    receiver.close()


def test_many_threads_may_ask_one_backend_at_once(backend: RabbitBackend, topic: str) -> None:
    def work(i: int) -> str:
        sender = backend.open_sender()
        sender.send([Outgoing(WireMessage(b"%d" % i), topic)], PATIENCE)
        sender.close()
        assert backend.inspect(topic, "g").dead == 0
        return backend.connect(PATIENCE)

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(work, range(32)))) == 1
    receiver = listen(backend, topic)
    assert {int(one.message.body) for one in collect(receiver, 32)} == set(range(32))
    receiver.close()


def test_closing_the_backend_before_its_sessions_leaves_nothing(backend: RabbitBackend, topic: str) -> None:
    before = threading.active_count()
    sender, receiver = backend.open_sender(), listen(backend, topic)
    backend.close()
    receiver.wake()
    receiver.close()
    sender.close()
    assert threading.active_count() < before


ALONE = """
import gc, os, sys
from mqkit.backend import Settlement, Subscription
from mqkit.backends.rabbitmq.blocking import RabbitBackend
from mqkit.errors import ClosedError
from mqkit.message import Outgoing, WireMessage

url, topic, child_does = sys.argv[1:]
backend = RabbitBackend(url)
sender = backend.open_sender()
receiver = backend.open_receiver(Subscription(topic=topic, group="g"), lambda *_: None)

def send(body, by=sender):
    by.send([Outgoing(WireMessage(body), topic)], 20)

send(b"before")
child = os.fork()
if not child:
    if child_does == "close":
        try:
            send(b"by the wrong process")
        except ClosedError as error:
            assert "forked" in str(error)
        else:
            sys.exit("it was sent")
        receiver.wake(), receiver.close(), sender.close(), backend.close()
        own = RabbitBackend(url)
        send(b"by the child", own.open_sender())
    del backend, sender, receiver, send
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
send(b"after")
wanted, found = 3 if child_does == "close" else 2, []
while len(found) < wanted:
    deliveries = receiver.receive(10, 20)
    assert deliveries, found
    found += [(delivery.message.body, delivery.redelivered) for delivery in deliveries]
    receiver.settle([(delivery.token, Settlement.DONE) for delivery in deliveries])
print(found)
"""
"""Neither the child nor the parent closes what it leaves behind: their end must be quiet all the same."""


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("child_does", ["nothing", "close"])
def test_a_forked_process_harms_its_parent_in_no_way(rabbitmq_broker: Broker, topic: str, child_does: str) -> None:
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    run = subprocess.run(
        [sys.executable, *warnings, "-c", ALONE, rabbitmq_broker.url, topic, child_does],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    by_child = [(b"by the child", 0)] if child_does == "close" else []
    assert run.stdout == f"{[(b'before', 0), *by_child, (b'after', 0)]}\n"
