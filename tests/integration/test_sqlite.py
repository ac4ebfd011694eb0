"""What SQLite alone does: one file, several processes, real locks, real deaths."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqkit.backend import BlockingReceiver, Counts, Settlement, Subscription
from mqkit.backends.memory import MemoryBackend
from mqkit.backends.sqlite import mqkit_backends
from mqkit.backends.sqlite.backend import SQLiteBackend
from mqkit.backends.sqlite.database import Database, WriteTurn
from mqkit.backends.sqlite.headers import dump, load
from mqkit.backends.sqlite.receiver import SQLiteReceiver
from mqkit.backends.sqlite.url import parse
from mqkit.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    LeaseLost,
    MessageTooLarge,
    PublishError,
    Unroutable,
)
from mqkit.message import Delivery, Headers, Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE
TOPOLOGY = Topology((TopicNeed("t", frozenset({"g", "h"})),))

WORKER = """
import sys, time
from mqkit.backend import Settlement, Subscription
from mqkit.backends.sqlite.backend import SQLiteBackend
from mqkit.errors import LeaseLost
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology

backend = SQLiteBackend(sys.argv[1])
role, rest = sys.argv[2], sys.argv[3:]
say = lambda *words: print(*words, flush=True)

def receiver(source="group", ordering="none"):
    wanted = Subscription(topic="t", group="g", source=source, ordering=ordering)
    return backend.open_receiver(wanted, lambda kind, text: None)

if role == "declare":
    say("here")
    sys.stdin.readline()
    backend.declare(Topology((TopicNeed("t", frozenset({"g", "h"})), TopicNeed(rest[0], frozenset({"g"})))))
    say("declared")
elif role == "publish":
    name, batches, size = rest[0], int(rest[1]), int(rest[2])
    sender = backend.open_sender()
    for i in range(batches):
        texts = [f"{name}-{i * size + j}" for j in range(size)]
        sender.send([Outgoing(WireMessage(t.encode(), key=t[-1:].encode()), "t", "g") for t in texts], 30)
        say(texts[-1])
elif role == "work":
    mine = receiver(ordering=rest[0])
    say("here")
    idle = time.monotonic()
    while time.monotonic() - idle < float(rest[1]):
        found = mine.receive(20, 0.1)
        if found:
            say(*(d.message.body.decode() for d in found))
            mine.settle([(d.token, Settlement.DONE) for d in found])
            idle = time.monotonic()
    mine.close()
elif role == "hold":
    mine = receiver(*rest)
    say("here")
    found = mine.receive(100, 30)
    say(*(d.message.body.decode() for d in found))
    sys.stdin.readline()
    try:
        mine.settle([(d.token, Settlement.DONE) for d in found])
        say("settled")
    except LeaseLost as error:
        say("lost", error)
    mine.close()
elif role == "stamp":
    mine = receiver()
    say("here")
    for line in sys.stdin:
        (d,) = mine.receive(1, 30)
        say(time.time() - float(d.message.body))
        mine.settle([(d.token, Settlement.DONE)])
    mine.close()
"""


class Process:
    """A worker in a process of its own."""

    def __init__(self, url: str, role: str, *rest: str) -> None:
        self.inner = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, role, *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.inner.stdout is not None
        return self.inner.stdout.readline().strip()

    def go(self) -> None:
        assert self.inner.stdin is not None
        self.inner.stdin.write("go\n")
        self.inner.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.inner.send_signal(number)

    def end(self, code: int = 0) -> str:
        """All that it still says until it ends; not `communicate`, which forgets what `says` has read ahead."""
        assert self.inner.stdin is not None
        assert self.inner.stdout is not None
        self.inner.stdin.close()
        text = self.inner.stdout.read()
        assert self.inner.wait(timeout=60) == code
        return text

    def kill(self) -> None:
        self.inner.kill()
        with self.inner:
            pass


Start = Callable[..., Process]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mq.db"


@pytest.fixture
def backend(path: Path) -> SQLiteBackend:
    backend = SQLiteBackend(f"sqlite:///{path}")
    backend.declare(TOPOLOGY)
    return backend


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start(role: str, *rest: str, options: str = "") -> Process:
        started.append(Process(f"sqlite:///{path}{options}", role, *rest))
        return started[-1]

    yield start
    for process in started:
        process.kill()


Open = Callable[..., BlockingReceiver]


@pytest.fixture
def receive_from(backend: SQLiteBackend) -> Iterator[Open]:
    opened: list[BlockingReceiver] = []

    def open_one(other: SQLiteBackend | None = None, **rest: Any) -> BlockingReceiver:
        opened.append((other or backend).open_receiver(subscription(**rest), silent))
        return opened[-1]

    yield open_one
    for receiver in opened:
        receiver.close()


def silent(kind: str, text: str) -> None: ...


def subscription(**rest: Any) -> Subscription:
    return Subscription(**{"topic": "t", "group": "g", **rest})


def post(backend: SQLiteBackend | MemoryBackend, *bodies: str | bytes, key: bytes | None = None, **rest: Any) -> None:
    sender = backend.open_sender()
    try:
        messages = [WireMessage(b.encode() if isinstance(b, str) else b, key=key) for b in bodies]
        sender.send([Outgoing(message, "t", **rest) for message in messages], 10)
    finally:
        sender.close()


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [d.message.body.decode() for d in deliveries]


def rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
        return int(count)


def eventually(fact: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- the URL and the file


def test_the_plugin_names_a_class_that_exists() -> None:
    (spec,) = mqkit_backends()
    assert spec.blocking == f"{SQLiteBackend.__module__}:{SQLiteBackend.__name__}"
    assert spec.schemes == ("sqlite",)


def test_a_url_names_a_relative_or_an_absolute_file() -> None:
    assert parse("sqlite:///some.db").path == str(Path.cwd() / "some.db")
    assert parse("sqlite:////some/odd%20name%3F.db?lease=2.5").path == "/some/odd name?.db"
    assert parse("sqlite:////x.db?lease=2.5&busy_timeout=1&max_message_bytes=7").lease == 2.5


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite://some.db", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///x/", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?leese=3", "no option 'leese'; there is busy_timeout, lease, max_message_bytes"),
        ("sqlite:///x.db?lease=soon", "lease is a number above zero, not 'soon'"),
        ("sqlite:///x.db?busy_timeout=-1", "busy_timeout is a number above zero"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        SQLiteBackend(url)


def test_connect_says_what_is_there_and_makes_nothing(path: Path) -> None:
    backend = SQLiteBackend(f"sqlite:///{path}")
    assert backend.connect(1) == f"SQLite {sqlite3.sqlite_version}, {path}, a new file"
    assert backend.groups() == ()
    assert {finding.state for finding in backend.examine(TOPOLOGY)} == {"missing"}
    with pytest.raises(ConfigurationError, match="does not exist"):
        backend.inspect("t", "g")
    with pytest.raises(ConfigurationError, match="does not exist"):
        backend.open_receiver(subscription(), silent)
    assert not path.exists()
    backend.declare(TOPOLOGY)
    assert backend.connect(1).endswith(" kB")


def test_connect_refuses_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no directory"):
        SQLiteBackend(f"sqlite:///{tmp_path}/not/there.db").connect(1)
    with pytest.raises(ConfigurationError, match="is a directory"):
        SQLiteBackend(f"sqlite:///{tmp_path}").connect(1)


def test_a_file_of_somebody_else_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    backend = SQLiteBackend(f"sqlite:///{path}")
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigurationError, match="not a SQLite database"):
        backend.connect(1)
    assert path.read_bytes() == b"not a database at all" * 100
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE auth_user (id)")
    with pytest.raises(ConfigurationError, match="a file of its own"):
        SQLiteBackend(f"sqlite:///{other}").declare(TOPOLOGY)
    assert rows(other, "sqlite_master") == 1


def test_a_file_of_another_version_is_refused(backend: SQLiteBackend, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for attempt in (lambda: backend.connect(1), backend.open_sender, lambda: backend.declare(TOPOLOGY)):
        with pytest.raises(ConfigurationError, match="version 99"):
            attempt()


def test_a_file_of_the_first_version_is_upgraded_with_all_that_is_in_it(
    backend: SQLiteBackend, path: Path, receive_from: Open
) -> None:
    post(backend, "waiting", group="g")
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("ALTER TABLE delivery DROP COLUMN spent")
        earlier.execute("ALTER TABLE delivery DROP COLUMN begun")
        earlier.execute("PRAGMA user_version = 1")
        earlier.execute("SELECT topic_group, state, message, key, member, due, returned, times FROM delivery")
        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(lambda _: backend.connect(5), range(4)))) == 1
        receiver = receive_from()
        (delivery,) = receiver.receive(1, 1)
        assert (bodies([delivery]), delivery.spent) == (["waiting"], 0)
        receiver.note([(delivery.token, 2)])
        with earlier:
            earlier.execute("INSERT INTO delivery (topic_group, state, message, key, due, returned) "
                            "SELECT id, 3, 1, NULL, NULL, 1 FROM topic_group WHERE name = 'h'")  # fmt: skip
    receiver.close()
    assert receive_from().receive(1, 1)[0].spent == 2
    assert backend.inspect("t", "h").dead == 1, "who worked with the file before can go on"


def test_a_file_that_was_replaced_ends_the_sessions(backend: SQLiteBackend, path: Path, receive_from: Open) -> None:
    sender, receiver = backend.open_sender(), receive_from()
    for file in path.parent.glob("mq.db*"):
        file.unlink()
    with pytest.raises(ConnectionLost, match="removed or replaced"):
        sender.send([Outgoing(WireMessage(b""), "t")], 1)
    with pytest.raises(ConnectionLost, match="removed or replaced"):
        receiver.settle([])
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="removed or replaced"):
        receiver.receive(1, 60)
    assert time.monotonic() - started < 30
    sender.close()


def test_many_processes_declare_at_once(start: Start, path: Path) -> None:
    processes = [start("declare", f"topic{n}") for n in range(4)]
    assert [process.says() for process in processes] == ["here"] * 4
    for process in processes:
        process.go()
    assert [process.end().strip() for process in processes] == ["declared"] * 4
    groups = SQLiteBackend(f"sqlite:///{path}").groups()
    assert groups == sorted([("t", "g"), ("t", "h"), *((f"topic{n}", "g") for n in range(4))])


def test_examine_tells_what_declare_would_make(backend: SQLiteBackend) -> None:
    wanted = Topology((TopicNeed("t", frozenset({"g", "x"})), TopicNeed("u")))
    assert {(f.kind, f.name): f.state for f in backend.examine(wanted)} == {
        ("topic", "t"): "present",
        ("group", "t.g"): "present",
        ("group", "t.x"): "missing",
        ("topic", "u"): "missing",
    }
    backend.declare(wanted)
    assert {f.state for f in backend.examine(wanted)} == {"present"}
    assert backend.groups("t") == [("t", "g"), ("t", "h"), ("t", "x")]


@pytest.mark.parametrize(("topic", "group"), [("x", "g"), ("t", "x")])
def test_what_does_not_exist_is_named(backend: SQLiteBackend, topic: str, group: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'x'.*there is (t|g, h)$"):
        backend.inspect(topic, group)
    with pytest.raises(ConfigurationError, match=r"'x'.*declare it"):
        backend.open_receiver(subscription(topic=topic, group=group), silent)


# --- what travels

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(timezones=st.just(UTC) | st.none()).map(lambda when: when.replace(fold=0))
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters()), VALUES, max_size=4))
def test_headers_come_back_with_value_and_type(headers: dict[str, Any]) -> None:
    back = load(dump(headers))
    assert repr(dict(back)) == repr(headers)


@given(
    st.dictionaries(st.text(st.characters(categories=["Cs", "Lu"])), st.text(st.characters(categories=["Cs", "Lu"])))
)
def test_half_characters_are_not_joined(headers: dict[str, Any]) -> None:
    assert dict(load(dump(headers))) == headers


@pytest.mark.parametrize(
    "headers",
    [
        {"x": 10**5000},
        {"x": {"bytes": "AAE="}},
        {"x": {"map": []}},
        {"bytes": "AAE="},
        {"x": [{"unknown": {"tag": 1}}]},
        {"x": float("inf")},
        {"x": Decimal("-0.00"), "y": Decimal("sNaN")},
        {"x": datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)},
        {"x": True, "y": 1, "z": 1.0},
        {"x": "\x00\n\"'\\"},
    ],
)
def test_hostile_headers_come_back_as_they_were(headers: Headers) -> None:
    assert sorted(map(str, load(dump(headers)))) == sorted(headers)
    for name, value in load(dump(headers)).items():
        if isinstance(value, int) and not isinstance(value, bool):
            assert value == headers[name]
        else:
            assert repr(value) == repr(headers[name])


def test_a_header_that_cannot_be_stored_is_rejected_by_position(backend: SQLiteBackend) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    sender = backend.open_sender()
    with pytest.raises(PublishError) as caught:
        sender.send(
            [
                Outgoing(WireMessage(b"", {"x": object()}), "t"),  # type: ignore[dict-item]  # what a careless caller does
                Outgoing(WireMessage(b""), "t"),
                Outgoing(WireMessage(b"", {"x": deep}), "t"),
            ],
            1,
        )
    sender.close()
    assert caught.value.rejected.keys() == {0, 2}
    assert all(isinstance(error, EncodeError) for error in caught.value.rejected.values())
    assert backend.inspect("t", "g").ready == 1


def test_a_message_comes_as_it_was_sent(backend: SQLiteBackend, receive_from: Open) -> None:
    message = WireMessage(
        body=bytes(range(256)),
        headers={"n": math.pi, "b": b"\x00", "when": datetime(2026, 1, 1, tzinfo=UTC)},
        key=b"\xff\x00",
        content_type="application/json; \ud800",
        id="an id with \x00 and é",
        properties={"priority": 5},
    )
    sender = backend.open_sender()
    sender.send([Outgoing(message, "t"), Outgoing(WireMessage(b""), "t")], 1)
    sender.close()
    full, empty = receive_from().receive(10, 1)
    assert full.message == message
    assert empty.message == WireMessage(b"")
    assert (full.origin, full.unique, full.topic, full.group, full.returned) == ("t#1", True, "t", "g", False)


def test_a_body_of_twenty_megabytes_travels(backend: SQLiteBackend, receive_from: Open) -> None:
    body = os.urandom(1 << 20) * 20
    post(backend, body, body, body, body)
    receiver = receive_from()
    first = receiver.receive(100, 1)
    assert len(first) < 100
    assert first[0].message.body == body
    receiver.settle([(d.token, DONE) for d in first])


def test_a_message_over_the_limit_names_both_sizes(path: Path, backend: SQLiteBackend) -> None:
    small = SQLiteBackend(f"sqlite:///{path}?max_message_bytes=3")
    assert small.capabilities.max_message_bytes == 3
    with pytest.raises(PublishError) as caught:
        post(small, "four", "yes")
    error = caught.value.rejected[0]
    assert isinstance(error, MessageTooLarge)
    assert (error.size, error.limit) == (4, 3)
    assert backend.inspect("t", "g").ready == 1


def test_what_would_reach_nobody_is_rejected_by_position(backend: SQLiteBackend, receive_from: Open) -> None:
    backend.declare(Topology((TopicNeed("lonely"),)))
    tail = receive_from(topic="lonely", source="tail")
    sender, message = backend.open_sender(), WireMessage(b"m")
    ways = [("nowhere", None), ("t", None), ("lonely", None), ("t", "x"), ("\ud800", None)]
    with pytest.raises(PublishError) as caught:
        sender.send([Outgoing(message, topic, group) for topic, group in ways], 1)
    sender.close()
    assert caught.value.rejected.keys() == {0, 2, 3, 4}
    assert all(isinstance(error, Unroutable) for error in caught.value.rejected.values())
    assert backend.inspect("t", "g").ready == 1
    assert not tail.receive(1, 0)


# --- one file, several members


def test_a_body_is_stored_once_and_goes_with_the_last_group(
    backend: SQLiteBackend, path: Path, receive_from: Open
) -> None:
    post(backend, "a", "b")
    assert rows(path, "message") == 2
    for group, left in (("g", 2), ("h", 0)):
        receiver = receive_from(group=group)
        receiver.settle([(d.token, DONE) for d in receiver.receive(10, 1)])
        assert rows(path, "message") == left
    assert rows(path, "delivery") == 0


def test_released_and_returned_deliveries_keep_their_place(backend: SQLiteBackend, receive_from: Open) -> None:
    first, second = receive_from(), receive_from()
    post(backend, "a", "b", "c", "d")
    found = first.receive(3, 1)
    first.settle([(found[1].token, RELEASE)])
    first.close()
    again = second.receive(10, 1)
    assert bodies(again) == ["a", "b", "c", "d"]
    assert [d.redelivered for d in again] == [0, 0, 0, 0], "nobody was lost"


def test_nobody_settles_what_is_not_his(backend: SQLiteBackend, receive_from: Open) -> None:
    first, second = receive_from(), receive_from()
    post(backend, "a", "b")
    (mine,), (other,) = first.receive(1, 1), second.receive(1, 1)
    with pytest.raises(LeaseLost, match="1 of 2"):
        first.settle([(other.token, DONE), (mine.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 1, 0, 0)
    with pytest.raises(LeaseLost, match="1 of 1"):
        first.settle([(mine.token, DONE)])
    second.settle([(other.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_no_more_than_prefetch_are_out(backend: SQLiteBackend, receive_from: Open) -> None:
    receiver = receive_from(prefetch=2)
    post(backend, "a", "b", "c")
    found = receiver.receive(10, 1)
    assert bodies(found) == ["a", "b"]
    assert not receiver.receive(10, 0.05)
    receiver.settle([(found[0].token, DONE)])
    assert bodies(receiver.receive(10, 1)) == ["c"]


def test_of_one_key_only_one_member_has_messages_at_a_time(backend: SQLiteBackend, receive_from: Open) -> None:
    first, second = receive_from(ordering="key"), receive_from(ordering="key")
    post(backend, "a1", "a2", "a3", key=b"a")
    post(backend, "b1", key=b"b")
    post(backend, "n1")
    (a1,) = first.receive(1, 1)
    assert bodies(second.receive(10, 1)) == ["b1", "n1"]
    first.settle([(a1.token, RELEASE)])
    found = second.receive(2, 1)
    assert bodies(found) == ["a1", "a2"]
    assert not first.receive(10, 0.05)
    threading.Timer(0.05, second.settle, [[(d.token, DONE) for d in found]]).start()
    assert bodies(first.receive(10, 10)) == ["a3"]


def test_a_key_that_takes_long_leaves_room_for_others(backend: SQLiteBackend, receive_from: Open) -> None:
    receiver = receive_from(ordering="key", prefetch=16)
    post(backend, *(f"a{n}" for n in range(30)), key=b"a")
    post(backend, "b", key=b"b")
    post(backend, "n")
    found = receiver.receive(16, 1)
    assert bodies(found) == ["a0", "a1", "b", "n"]
    assert not receiver.receive(12, 0)
    receiver.settle([(found[0].token, DONE)])
    assert bodies(receiver.receive(16, 1)) == ["a2"]


def test_dead_letters_persist_and_come_in_order(path: Path, backend: SQLiteBackend, receive_from: Open) -> None:
    post(backend, "a", "b", group="g", dead=True)
    dead = receive_from(source="dead")
    letters = dead.receive(10, 30)
    assert bodies(letters) == ["a", "b"]
    assert all(letter.returned for letter in letters)
    started = time.monotonic()
    assert not dead.receive(10, 60)
    assert time.monotonic() - started < 30
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 2)
    dead.settle([(letters[0].token, RELEASE), (letters[1].token, DONE)])
    dead.close()
    assert bodies(receive_from(SQLiteBackend(f"sqlite:///{path}"), source="dead").receive(10, 1)) == ["a"]


def test_a_tail_sees_what_comes_and_leaves_nothing(backend: SQLiteBackend, path: Path, receive_from: Open) -> None:
    post(backend, "before")
    tail = receive_from(source="tail")
    post(backend, "after", "later")
    assert bodies(tail.receive(1, 1)) == ["after"]
    assert backend.groups() == [("t", "g"), ("t", "h")]
    before = rows(path, "delivery")
    tail.close()
    assert rows(path, "delivery") == before - 2
    assert rows(path, "topic_group") == 2
    assert rows(path, "message") == 3


# --- time


def test_what_is_due_and_not_taken_yet_is_counted_once(backend: SQLiteBackend) -> None:
    post(backend, "soon", group="g", delay=0.05)
    post(backend, "later", group="g", delay=3600)
    assert eventually(lambda: bool(backend.inspect("t", "g").ready), 30)
    assert backend.inspect("t", "g") == Counts(1, 0, 1, 0)


def test_what_is_delayed_comes_when_its_time_has_come_and_not_before(
    backend: SQLiteBackend, receive_from: Open
) -> None:
    receiver = receive_from()
    started = time.time()
    delays = [0.31, 0.07, 0.11, 0.19, 0.23]
    for delay in delays:
        post(backend, str(started + delay), group="g", delay=started + delay - time.time())
    found: list[float] = []
    while len(found) < len(delays):
        deliveries = receiver.receive(10, 60)
        now = time.time()
        assert deliveries
        assert all(delivery.returned for delivery in deliveries)
        found += [now - float(delivery.message.body) for delivery in deliveries]
    assert min(found) >= 0


@pytest.mark.parametrize("limit", [0, 10])
def test_wake_ends_a_pending_receive_or_the_next(receive_from: Open, limit: int) -> None:
    receiver = receive_from()
    threading.Timer(0.05, receiver.wake).start()
    started = time.monotonic()
    assert not receiver.receive(limit, 60)
    receiver.wake()
    assert not receiver.receive(limit, 60)
    assert time.monotonic() - started < 30


def test_what_another_process_publishes_arrives_within_50_ms(backend: SQLiteBackend, start: Start) -> None:
    process = start("stamp")
    assert process.says() == "here"
    sender = backend.open_sender()
    taken = []
    for _ in range(60):
        process.go()
        time.sleep(0.02)  # so that it waits already, in one phase or another of its looking
        sender.send([Outgoing(WireMessage(str(time.time()).encode()), "t", "g")], 5)
        taken.append(float(process.says()))
    sender.close()
    assert sorted(taken)[15] < 0.05, (
        "a look every 0.2 s would find a quarter of them so soon; this is for busy machines"
    )


# --- trouble


def test_a_sender_that_cannot_get_the_lock_has_written_nothing(backend: SQLiteBackend, path: Path) -> None:
    sender = backend.open_sender()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="locked"):
            sender.send([Outgoing(WireMessage(b"x"), "t")], 0.3)
        assert time.monotonic() - started > 0.2
        other.execute("ROLLBACK")
    sender.send([Outgoing(WireMessage(b"y"), "t")], 5)
    sender.close()
    assert backend.inspect("t", "g").ready == 1


def test_who_waits_for_another_writer_of_its_own_process_waits_as_long_as_that_one_gets_on(
    backend: SQLiteBackend, path: Path
) -> None:
    turn = WriteTurn()
    begun, finish = threading.Event(), threading.Event()
    looks: list[bool] = []

    def write_long() -> None:
        database = Database(str(path), turn, durable=False, patience=20)
        with database.write():
            begun.set()
            finish.wait(60)
        database.close()

    def look() -> bool:
        looks.append(turn.writing)
        if len(looks) == 2:  # the first was after its patience had ended
            finish.set()
        return False

    thread = threading.Thread(target=write_long)
    thread.start()
    assert begun.wait(60)
    other = Database(str(path), turn, durable=False, patience=0)
    with pytest.raises(ConnectionLost, match="by this process for too long"), other.write(patience=0):
        pass
    with other.write(stop=look) as mine:
        assert mine
    thread.join()
    assert looks[:2] == [True, True]
    other.close()


def test_a_receiver_that_cannot_get_the_lock_says_so_or_wakes(
    path: Path, backend: SQLiteBackend, receive_from: Open
) -> None:
    patient = receive_from(SQLiteBackend(f"sqlite:///{path}?busy_timeout=60"))
    hasty = receive_from(SQLiteBackend(f"sqlite:///{path}?busy_timeout=0.3"))
    post(backend, "x")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.1, patient.wake).start()
        started = time.monotonic()
        assert not patient.receive(1, 60)
        assert time.monotonic() - started < 30
        with pytest.raises(ConnectionLost, match="locked"):
            hasty.receive(1, 30)
        other.execute("ROLLBACK")
    hasty.close()
    hasty.close()
    with pytest.raises(ClosedError):
        hasty.receive(1, 0)


def test_what_a_killed_process_held_is_delivered_again_at_once(
    backend: SQLiteBackend, start: Start, receive_from: Open
) -> None:
    holder = start("hold")
    assert holder.says() == "here"
    post(backend, *map(str, range(50)), group="g")
    held = holder.says().split()
    receiver = receive_from()
    waiting = receiver.receive(100, 0)
    assert len(held) + len(waiting) == 50
    holder.signal(signal.SIGKILL)
    started = time.monotonic()
    again = receiver.receive(100, 60)
    assert time.monotonic() - started < 15, "half of the lease, which would end its hold, too"
    assert bodies(again) == held
    assert all(delivery.redelivered == 1 for delivery in again)


def test_a_stopped_process_keeps_its_messages_until_its_lease_ends(
    backend: SQLiteBackend, start: Start, receive_from: Open
) -> None:
    holder = start("hold", options="?lease=2")
    assert holder.says() == "here"
    post(backend, "x", group="g")
    assert holder.says() == "x"
    receiver = receive_from()
    holder.signal(signal.SIGSTOP)
    started = time.monotonic()
    (delivery,) = receiver.receive(1, 20)
    assert time.monotonic() - started > 1.2
    holder.go()
    holder.signal(signal.SIGCONT)
    assert holder.says().startswith("lost 1 of 1")
    holder.end()
    assert backend.inspect("t", "g").in_flight == 1
    receiver.settle([(delivery.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_whoever_lost_his_lease_is_told_before_he_gets_more_and_settles_nothing(
    path: Path, backend: SQLiteBackend, receive_from: Open
) -> None:
    forgetful = SQLiteBackend(f"sqlite:///{path}?lease=0.5")
    assert forgetful.capabilities.lease == 0.5
    late = receive_from(forgetful)
    post(backend, "x", group="g")
    (old,) = late.receive(1, 1)
    assert eventually(lambda: backend.inspect("t", "g").ready == 1, 5)
    with pytest.raises(ConnectionLost, match=r"no sign of life for 0\.5 s, so others got what it had"):
        late.receive(1, 1)
    receiver = receive_from()
    (new,) = receiver.receive(1, 1)
    with pytest.raises(LeaseLost):
        late.settle([(old.token, DONE)])
    assert backend.inspect("t", "g").in_flight == 1
    receiver.settle([(new.token, DONE)])
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_what_is_published_is_on_the_disk_when_it_returns(backend: SQLiteBackend) -> None:
    sender = backend.open_sender()
    database, seen = sender._database, []
    database.connection.set_trace_callback(
        lambda sql: seen.append(database.number("synchronous")) if sql == "COMMIT" else None
    )
    sender.send([Outgoing(WireMessage(b"x"), "t")], 5)
    database.connection.set_trace_callback(None)
    assert seen == [2], "FULL"
    assert database.pragma("journal_mode") == "wal"
    sender.close()


def test_a_note_is_on_the_disk_when_it_returns(backend: SQLiteBackend, receive_from: Open) -> None:
    receiver = receive_from()
    assert isinstance(receiver, SQLiteReceiver)
    post(backend, "x", group="g")
    (delivery,) = receiver.receive(1, 1)
    database, seen = receiver._database, []
    database.connection.set_trace_callback(
        lambda sql: seen.append(database.number("synchronous")) if sql == "COMMIT" else None
    )
    receiver.note([(delivery.token, 1)])
    receiver.settle([(delivery.token, RELEASE)])
    database.connection.set_trace_callback(None)
    assert seen == [2, 1], "FULL for the note; to settle NORMAL is enough"


def test_whoever_lost_his_lease_notes_nothing(path: Path, backend: SQLiteBackend, receive_from: Open) -> None:
    receiver, other = receive_from(SQLiteBackend(f"sqlite:///{path}?lease=0.5")), receive_from()
    post(backend, "x", "y", group="g")
    held = receiver.receive(2, 1)
    assert eventually(lambda: backend.inspect("t", "g").ready == 2, 5)
    (taken,) = other.receive(1, 1)
    with pytest.raises(LeaseLost, match="2 of 2"):
        receiver.note([(delivery.token, 7) for delivery in held])
    other.settle([(taken.token, RELEASE)])
    assert [delivery.spent for delivery in other.receive(2, 1)] == [0, 0]


def test_nobody_holds_messages_who_was_given_up(backend: SQLiteBackend, path: Path, receive_from: Open) -> None:
    receiver = receive_from()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM member")  # what others do when its lease is over
        post(backend, "x", group="g")
        (delivery,) = receiver.receive(1, 5)
        held = "SELECT COUNT(*) FROM delivery JOIN member ON member.id = delivery.member WHERE state = 1"
        assert other.execute(held).fetchone() == (1,)
    receiver.settle([(delivery.token, DONE)])


def test_a_number_is_never_used_again(backend: SQLiteBackend, receive_from: Open) -> None:
    for number in (1, 2, 3):
        post(backend, "x", group="g")
        receiver = receive_from()
        (delivery,) = receiver.receive(1, 5)
        assert delivery.origin == f"t#{number}"
        receiver.settle([(delivery.token, DONE)])


def test_whoever_asks_keeps_his_messages_beyond_the_lease(
    path: Path, backend: SQLiteBackend, receive_from: Open
) -> None:
    receiver = receive_from(SQLiteBackend(f"sqlite:///{path}?lease=0.6"))
    post(backend, "x", group="g")
    (delivery,) = receiver.receive(1, 1)
    for _ in range(8):
        assert not receiver.receive(0, 0.2)
    receiver.settle([(delivery.token, DONE)])


def test_the_tail_of_a_killed_process_goes_away(
    backend: SQLiteBackend, path: Path, start: Start, receive_from: Open
) -> None:
    holder = start("hold", "tail")
    assert holder.says() == "here"
    assert rows(path, "topic_group") == 3
    post(backend, "x")
    holder.says()
    receive_from()
    holder.signal(signal.SIGKILL)
    assert eventually(lambda: rows(path, "topic_group") == 2, 2)
    assert rows(path, "delivery") == 2


def test_what_was_sent_survives_the_death_of_the_sender(
    backend: SQLiteBackend, start: Start, receive_from: Open
) -> None:
    process = start("publish", "p", "100000", "7")
    for _ in range(20):
        last = process.says()
    process.signal(signal.SIGKILL)
    sent = [last, *process.end(-signal.SIGKILL).split()][-1]
    receiver, found = receive_from(prefetch=1000), []
    while some := receiver.receive(1000, 0):
        found += bodies(some)
        receiver.settle([(d.token, DONE) for d in some])
    assert found == [f"p-{n}" for n in range(len(found))]
    assert len(found) % 7 == 0
    assert int(sent.removeprefix("p-")) < len(found)


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_processes_share_a_group_without_loss_and_without_doubles(
    backend: SQLiteBackend, start: Start, ordering: str
) -> None:
    workers = [start("work", ordering, "10") for _ in range(3)]
    assert [worker.says() for worker in workers] == ["here"] * 3
    publishers = [start("publish", name, "60", "10") for name in ("p", "q")]
    for publisher in publishers:
        publisher.end()
    heard = [worker.end().split() for worker in workers]
    done = [text for texts in heard for text in texts]
    assert len(done) == len(set(done)) == 1200
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_a_worker_that_dies_again_and_again_loses_nothing(
    backend: SQLiteBackend, start: Start, receive_from: Open
) -> None:
    post(backend, *map(str, range(400)), group="g")
    heard: set[str] = set()
    for _ in range(3):
        worker = start("work", "key", "5")
        assert worker.says() == "here"
        heard.update(worker.says().split())
        worker.signal(signal.SIGKILL)
        heard.update(worker.end(-signal.SIGKILL).split())
    receiver = receive_from()
    while some := receiver.receive(100, 1.5):
        heard.update(bodies(some))
        receiver.settle([(d.token, DONE) for d in some])
    assert heard == set(map(str, range(400)))
    assert backend.inspect("t", "g") == Counts(0, 0, 0, 0)


def test_the_file_shrinks_again(backend: SQLiteBackend, path: Path, receive_from: Open) -> None:
    body = os.urandom(40_000)
    for _ in range(10):
        post(backend, *[body] * 100, group="g")
    receiver = receive_from()
    while some := receiver.receive(100, 0):
        receiver.settle([(d.token, DONE) for d in some])
    with closing(sqlite3.connect(path)) as connection:
        assert eventually(lambda: connection.execute("PRAGMA page_count").fetchone()[0] < 3000, 20)
    receiver.close()
    assert path.stat().st_size < 3000 * 4096


# --- against the reference

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from([None, b"a", b"b"])),
        st.tuples(st.just("dead"), st.none()),
        st.tuples(st.just("take"), st.tuples(st.integers(0, 1), st.integers(1, 3))),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from(Settlement))),
        st.tuples(st.just("close"), st.integers(0, 1)),
        st.tuples(st.just("bury"), st.sampled_from(Settlement)),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(actions=ACTIONS)
def test_it_does_what_the_memory_backend_does(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, Any]]
) -> None:
    place = tmp_path_factory.mktemp("same")
    traces = []
    for backend in (SQLiteBackend(f"sqlite:///{place}/mq.db"), MemoryBackend(f"memory://{place.name}")):
        backend.declare(TOPOLOGY)
        sender = backend.open_sender()
        receivers: list[BlockingReceiver] = [backend.open_receiver(subscription(), silent) for _ in range(2)]
        held: list[list[Delivery]] = [[], []]
        trace: list[object] = []
        for number, (kind, detail) in enumerate(actions):
            message = WireMessage(str(number).encode(), {"n": number})
            match kind:
                case "post":
                    sender.send([Outgoing(message, "t"), Outgoing(message, "t", "g")], 5)
                case "dead":
                    sender.send([Outgoing(message, "t", "g", dead=True)], 5)
                case "take":
                    member, count = detail
                    found = receivers[member].receive(count, 0)
                    held[member] += found
                    trace.append([(d.origin, d.message, d.returned, d.redelivered) for d in found])
                case "settle":
                    member, index, how = detail
                    if index < len(held[member]):
                        receivers[member].settle([(held[member].pop(index).token, how)])
                case "close":
                    receivers[detail].close()
                    held[detail].clear()
                    receivers[detail] = backend.open_receiver(subscription(), silent)
                case "bury":
                    dead = backend.open_receiver(subscription(source="dead"), silent)
                    letters = dead.receive(2, 5)
                    trace.append(bodies(letters))
                    dead.settle([(d.token, detail) for d in letters[:1]])
                    dead.close()
            trace.append(backend.inspect("t", "g"))
            trace.append(backend.inspect("t", "h"))
        for session in (sender, *receivers):
            session.close()
        traces.append(trace)
    assert traces[0] == traces[1]
