"""The memory backend alone: its URL, its faults, its clock, and its lanes against their promises."""

import threading
import time
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backend import Counts, Settlement, Subscription
from mqkit.backends.memory import MemoryBackend, mqkit_backends
from mqkit.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    LeaseLost,
    MessageTooLarge,
    PublishError,
    Unroutable,
)
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE


def silent(kind: str, text: str) -> None: ...


def fresh(*groups: str, options: str = "") -> MemoryBackend:
    backend = MemoryBackend(f"memory://{uuid4().hex}{options}")
    backend.declare(Topology((TopicNeed("t", frozenset(groups)),)))
    return backend


def post(backend: MemoryBackend, *bodies: str, key: bytes | None = None, **rest: object) -> None:
    sender = backend.open_sender()
    sender.send([Outgoing(WireMessage(body.encode(), key=key), "t", **rest) for body in bodies], 1)  # type: ignore[arg-type]  # any field
    sender.close()


def bodies(deliveries: object) -> list[str]:
    return [d.message.body.decode() for d in deliveries]  # type: ignore[attr-defined]  # a sequence of deliveries


def subscription(**rest: object) -> Subscription:
    return Subscription(**{"topic": "t", "group": "g", **rest})  # type: ignore[arg-type]  # any field


@pytest.fixture
def backend() -> MemoryBackend:
    return fresh("g")


def test_the_plugin_names_a_class_that_exists() -> None:
    (spec,) = mqkit_backends()
    assert spec.blocking == f"mqkit.backends.memory:{MemoryBackend.__name__}"
    assert spec.schemes == ("memory",)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("memory://x?limit=1", "no option 'limit'; there is max_message_bytes"),
        ("memory://x?max_message_bytes=many", "a number of bytes, not 'many'"),
        ("memory://x?max_message_bytes=0", "a number of bytes, not '0'"),
        ("memory://x/y", "nothing behind the name"),
        ("memory:///x", "nothing behind the name"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        MemoryBackend(url)


def test_the_same_name_is_the_same_broker_and_another_is_not() -> None:
    name = uuid4().hex
    MemoryBackend(f"memory://{name}").declare(Topology((TopicNeed("t", frozenset({"g"})),)))
    assert MemoryBackend(f"memory://{name}").groups() == [("t", "g")]
    assert MemoryBackend(f"memory://{name}x").groups() == []


def test_every_group_gets_a_message_once() -> None:
    backend = fresh("g", "h")
    post(backend, "a", "b")
    for group in ("g", "h"):
        receiver = backend.open_receiver(subscription(group=group), silent)
        deliveries = receiver.receive(10, 0)
        assert bodies(deliveries) == ["a", "b"]
        assert [d.origin for d in deliveries] == ["t#1", "t#2"]
        receiver.settle([(d.token, DONE) for d in deliveries])
        assert not receiver.receive(10, 0)
        receiver.close()
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_what_would_reach_nobody_is_rejected_by_position_and_the_rest_is_sent(backend: MemoryBackend) -> None:
    backend.declare(Topology((TopicNeed("lonely"),)))
    tail = backend.open_receiver(subscription(topic="lonely", source="tail"), silent)
    message = WireMessage(b"m")
    sender = backend.open_sender()
    with pytest.raises(PublishError) as caught:
        sender.send(
            [
                Outgoing(message, "nowhere"),
                Outgoing(message, "t"),
                Outgoing(message, "lonely"),
                Outgoing(message, "t", "x"),
            ],
            1,
        )
    assert caught.value.rejected.keys() == {0, 2, 3}
    assert all(isinstance(error, Unroutable) for error in caught.value.rejected.values())
    assert not caught.value.unknown
    assert backend.inspect("t", "g").ready == 1
    assert not tail.receive(1, 0)


def test_a_message_over_the_limit_names_both_sizes() -> None:
    backend = fresh("g", options="?max_message_bytes=3")
    assert backend.capabilities.max_message_bytes == 3
    with pytest.raises(PublishError) as caught:
        post(backend, "four", "yes")
    error = caught.value.rejected[0]
    assert isinstance(error, MessageTooLarge)
    assert (error.size, error.limit) == (4, 3)
    assert backend.inspect("t", "g").ready == 1


def test_what_the_publisher_changes_afterwards_changes_nothing(backend: MemoryBackend) -> None:
    headers: dict[str, str] = {"colour": "red"}
    sender = backend.open_sender()
    sender.send([Outgoing(WireMessage(b"", headers), "t")], 1)
    headers["colour"] = "blue"
    (delivery,) = backend.open_receiver(subscription(), silent).receive(1, 0)
    assert delivery.message.headers == {"colour": "red"}


def test_what_is_due_and_not_taken_yet_is_counted_once(backend: MemoryBackend) -> None:
    post(backend, "soon", group="g", delay=0.05)
    post(backend, "later", group="g", delay=3600)
    deadline = time.monotonic() + 30
    while not backend.inspect("t", "g").ready:
        assert time.monotonic() < deadline, "its time has come"
        time.sleep(0.01)
    assert backend.inspect("t", "g") == Counts(1, 0, 1, 0)


def test_a_delay_ends_exactly_when_it_should(backend: MemoryBackend) -> None:
    receiver = backend.open_receiver(subscription(), silent)
    started = time.monotonic()
    post(backend, "late", group="g", delay=0.2)
    post(backend, "now")
    assert bodies(receiver.receive(10, 0)) == ["now"]
    assert backend.inspect("t", "g") == Counts(0, 1, 1, 0)
    (late,) = receiver.receive(10, 5)
    assert late.returned
    assert time.monotonic() - started >= 0.2


def test_the_clock_can_be_put_forward(backend: MemoryBackend) -> None:
    receiver = backend.open_receiver(subscription(), silent)
    post(backend, "late", delay=3600)
    assert not receiver.receive(1, 0)
    threading.Timer(0.05, MemoryBackend.broker(backend.name).advance, [3600]).start()
    assert bodies(receiver.receive(1, 10)) == ["late"]


def test_a_waiting_receive_returns_as_soon_as_there_is_something(backend: MemoryBackend) -> None:
    receiver = backend.open_receiver(subscription(), silent)
    threading.Timer(0.05, post, [backend, "x"]).start()
    started = time.monotonic()
    assert bodies(receiver.receive(10, 60)) == ["x"]
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("limit", [0, 10])
def test_wake_ends_a_pending_receive_or_the_next(backend: MemoryBackend, limit: int) -> None:
    receiver = backend.open_receiver(subscription(), silent)
    threading.Timer(0.05, receiver.wake).start()
    started = time.monotonic()
    assert not receiver.receive(limit, 60)
    receiver.wake()
    assert not receiver.receive(limit, 60)
    assert time.monotonic() - started < 30


def test_no_more_than_prefetch_are_out(backend: MemoryBackend) -> None:
    receiver = backend.open_receiver(subscription(prefetch=2), silent)
    post(backend, "a", "b", "c")
    first = receiver.receive(10, 0)
    assert bodies(first) == ["a", "b"]
    assert not receiver.receive(10, 0)
    receiver.settle([(first[0].token, DONE)])
    assert bodies(receiver.receive(10, 0)) == ["c"]


def test_what_is_given_back_returns_to_its_place(backend: MemoryBackend) -> None:
    first, second = (backend.open_receiver(subscription(), silent) for _ in range(2))
    post(backend, "a", "b", "c", "d")
    deliveries = first.receive(3, 0)
    first.settle([(deliveries[1].token, RELEASE)])
    first.close()
    again = second.receive(10, 0)
    assert bodies(again) == ["a", "b", "c", "d"]
    assert [d.redelivered for d in again] == [0, 0, 0, 0], "nobody was lost"


def test_nobody_settles_what_is_not_his(backend: MemoryBackend) -> None:
    first, second = (backend.open_receiver(subscription(), silent) for _ in range(2))
    post(backend, "a", "b")
    (mine,), (other,) = first.receive(1, 0), second.receive(1, 0)
    with pytest.raises(LeaseLost, match="1 of 2"):
        first.settle([(other.token, DONE), (mine.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 1, 0, 0)
    with pytest.raises(LeaseLost, match="1 of 1"):
        first.settle([(mine.token, DONE)])
    second.settle([(other.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_dead_letters_are_looked_at_in_order_and_stay_until_done(backend: MemoryBackend) -> None:
    post(backend, "a", "b", group="g", dead=True)
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 2)
    assert not backend.open_receiver(subscription(), silent).receive(1, 0)
    dead = backend.open_receiver(subscription(source="dead"), silent)
    letters = dead.receive(10, 10)
    assert bodies(letters) == ["a", "b"]
    assert not dead.receive(10, 10)
    dead.settle([(letters[0].token, RELEASE), (letters[1].token, DONE)])
    assert bodies(dead.receive(10, 10)) == ["a"]
    dead.close()
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 1)


def test_a_tail_sees_what_comes_from_now_on_and_takes_it_from_nobody(backend: MemoryBackend) -> None:
    post(backend, "before")
    tail = backend.open_receiver(subscription(source="tail"), silent)
    post(backend, "after")
    assert bodies(tail.receive(10, 0)) == ["after"]
    tail.close()
    assert backend.groups() == [("t", "g")]
    assert backend.inspect("t", "g").ready == 2


def test_an_interrupted_broker_ends_sessions_and_keeps_messages(backend: MemoryBackend) -> None:
    broker = MemoryBackend.broker(backend.name)
    receiver, sender = backend.open_receiver(subscription(), silent), backend.open_sender()
    post(backend, "a")
    (held,) = receiver.receive(1, 0)
    threading.Timer(0.05, broker.interrupt).start()
    with pytest.raises(ConnectionLost):
        receiver.receive(1, 10)
    for attempt in (backend.open_sender, lambda: backend.connect(1), lambda: backend.inspect("t", "g")):
        with pytest.raises(ConnectionLost):
            attempt()
    broker.restore()
    with pytest.raises(ConnectionLost):
        receiver.settle([(held.token, DONE)])
    with pytest.raises(ConnectionLost):
        sender.send([], 1)
    receiver.close()
    sender.close()
    again = backend.open_receiver(subscription(), silent)
    assert bodies(again.receive(1, 0)) == ["a"]


def test_what_was_closed_says_so(backend: MemoryBackend) -> None:
    receiver, sender = backend.open_receiver(subscription(), silent), backend.open_sender()
    for session in (receiver, sender, receiver, sender):
        session.close()
    with pytest.raises(ClosedError):
        receiver.receive(1, 0)
    with pytest.raises(ClosedError):
        receiver.settle([])
    with pytest.raises(ClosedError):
        sender.send([], 0)


@pytest.mark.parametrize(("topic", "group"), [("x", "g"), ("t", "x")])
def test_what_does_not_exist_is_named_with_what_does(backend: MemoryBackend, topic: str, group: str) -> None:
    known = "there is t" if topic == "x" else "there is g"
    with pytest.raises(ConfigurationError, match=f"'x'.*{known}"):
        backend.inspect(topic, group)
    with pytest.raises(ConfigurationError, match=f"'x'.*{known}"):
        backend.open_receiver(subscription(topic=topic, group=group), silent)


def test_examine_tells_what_declare_would_make(backend: MemoryBackend) -> None:
    wanted = Topology((TopicNeed("t", frozenset({"g", "h"})), TopicNeed("u")))
    states = {(f.kind, f.name): f.state for f in backend.examine(wanted)}
    assert states == {
        ("topic", "t"): "present",
        ("group", "t.g"): "present",
        ("group", "t.h"): "missing",
        ("topic", "u"): "missing",
    }
    backend.declare(wanted)
    backend.declare(wanted)
    assert {f.state for f in backend.examine(wanted)} == {"present"}


def test_of_one_key_only_one_member_has_messages_at_a_time() -> None:
    backend = fresh("g")
    first, second = (backend.open_receiver(subscription(ordering="key"), silent) for _ in range(2))
    post(backend, "a1", "a2", "a3", key=b"a")
    post(backend, "b1", key=b"b")
    (a1,) = first.receive(1, 0)
    assert bodies(second.receive(10, 0)) == ["b1"]
    assert backend.inspect("t", "g").ready == 2
    first.settle([(a1.token, RELEASE)])
    a = second.receive(2, 0)
    assert bodies(a) == ["a1", "a2"]
    assert not first.receive(10, 0)
    threading.Timer(0.05, second.settle, [[(d.token, DONE) for d in a]]).start()
    assert bodies(first.receive(10, 10)) == ["a3"]


def test_what_becomes_due_does_not_overtake_what_is_parked(backend: MemoryBackend) -> None:
    first, second = (backend.open_receiver(subscription(ordering="key"), silent) for _ in range(2))
    post(backend, "a1", "a2", key=b"a")
    post(backend, "a3", key=b"a", delay=60)
    assert bodies(first.receive(1, 0)) == ["a1"]
    assert not second.receive(1, 0)
    MemoryBackend.broker(backend.name).advance(60)
    assert bodies(first.receive(1, 0)) == ["a2"]


def test_a_key_that_takes_long_leaves_room_for_others(backend: MemoryBackend) -> None:
    receiver = backend.open_receiver(subscription(ordering="key", prefetch=16), silent)
    post(backend, *(f"a{n}" for n in range(30)), key=b"a")
    post(backend, "b", key=b"b")
    found = receiver.receive(16, 0)
    assert bodies(found) == ["a0", "a1", "b"]
    receiver.settle([(found[0].token, DONE)])
    assert bodies(receiver.receive(16, 0)) == ["a2"]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from([None, b"a", b"b", b"c"])),
        st.tuples(st.just("late"), st.sampled_from([None, b"a", b"b"])),
        st.tuples(st.just("advance"), st.none()),
        st.tuples(st.just("take"), st.tuples(st.integers(0, 2), st.integers(1, 3))),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from(Settlement))),
        st.tuples(st.just("close"), st.integers(0, 2)),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_whatever_happens_keys_keep_their_order_and_nothing_is_lost(actions: list[tuple[str, object]]) -> None:
    """Two members never hold the same key; a key is taken in order of position; all that was sent gets done."""
    backend = fresh("g")
    broker = MemoryBackend.broker(backend.name)
    sender = backend.open_sender()
    receivers = [backend.open_receiver(subscription(ordering="key"), silent) for _ in range(3)]
    held: list[list[Delivery]] = [[], [], []]
    done: list[str] = []
    late: set[str] = set()
    sent = 0

    def take(member: int, count: int) -> int:
        found = receivers[member].receive(count, 0)
        for delivery in found:
            key, place = delivery.message.key, int(delivery.message.body)
            if key is not None:
                others = [d for other in range(3) if other != member for d in held[other]]
                assert key not in {d.message.key for d in others}
                mine = [int(d.message.body) for d in held[member] if d.message.key == key]
                unseen = {str(n) for n in range(place)} - set(done) - late
                assert not [n for n in unseen if keys[n] == key and int(n) not in mine]
            held[member].append(delivery)
        return len(found)

    keys: dict[str, bytes | None] = {}
    for kind, detail in actions:
        match kind, detail:
            case "post" | "late", (bytes() | None) as key:
                body = str(sent)
                sent += 1
                keys[body] = key
                if kind == "late":
                    late.add(body)
                sender.send([Outgoing(WireMessage(body.encode(), key=key), "t", delay=60 if kind == "late" else 0)], 1)
            case "advance", None:
                broker.advance(60)
                late.clear()
            case "take", (int(member), int(count)):
                take(member, count)
            case "settle", (int(member), int(index), Settlement() as how) if index < len(held[member]):
                delivery = held[member].pop(index)
                receivers[member].settle([(delivery.token, how)])
                if how is DONE:
                    done.append(delivery.message.body.decode())
            case "close", int(member):
                receivers[member].close()
                receivers[member] = backend.open_receiver(subscription(ordering="key"), silent)
                held[member].clear()
    broker.advance(60)
    late.clear()
    for member in range(3):
        receivers[member].settle([(d.token, DONE) for d in held[member]])
        done += [d.message.body.decode() for d in held[member]]
        held[member].clear()
    while take(0, 10):
        receivers[0].settle([(d.token, DONE) for d in held[0]])
        done += [d.message.body.decode() for d in held[0]]
        held[0].clear()
    assert sorted(done, key=int) == [str(n) for n in range(sent)]
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)
