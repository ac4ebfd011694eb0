"""Storing beside the loop: what cannot be stored holds up nothing else, is kept, and takes its last form in time."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from mqkit import pump
from mqkit.errors import (
    AuthenticationFailed,
    BackendError,
    MessageTooLarge,
    MqkitError,
    PublishError,
    TopologyError,
    Unroutable,
)
from mqkit.message import Message, Outgoing, WireMessage
from mqkit.retry import Retry
from mqkit.storing import STORE_TIMEOUT
from mqkit.topic import Topic
from mqkit.wrapping import wrap
from tests.unit.scripted import Script, accept
from tests.unit.test_pump import Works, broken, fine, pumping
from tests.unit.virtual_time import until

FULL = BackendError("the queue is full", retryable=True)
TOO_LARGE = MessageTooLarge(11, 10, "the broker")


def refusing(error: MqkitError, which: Any = lambda outgoing: True) -> Script:
    """A broker that refuses some, and takes the rest."""

    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        rejected = {i: error for i, outgoing in enumerate(batch) if which(outgoing)}
        if rejected:
            raise PublishError(rejected=rejected)

    return script


async def blocked(batch: Sequence[Outgoing], timeout: float) -> None:
    await asyncio.sleep(timeout)
    raise PublishError(rejected=dict.fromkeys(range(len(batch)), FULL))


async def bad_or_good(payload: Any) -> None:
    if payload == "bad":
        raise ValueError("no")


def test_while_copies_are_not_taken_the_rest_is_received_handled_and_settled() -> None:
    async def work(works: Works) -> None:
        works.backend.script = blocked
        started = asyncio.get_running_loop().time()
        good = []
        for i in range(100):
            if i % 10 == 0:
                works.backend.give(b'"bad"', id=f"bad {i}")
            good.append(works.backend.give(b'"good"', id=f"good {i}"))
        await works.settled(*good)
        assert asyncio.get_running_loop().time() - started < 1
        assert not works.backend.of("sent")
        works.backend.script = accept
        await works.settled(*range(1, 111))

    pumping(bad_or_good, work, concurrency=1, prefetch=3)


@pytest.mark.parametrize("error", [FULL, TOO_LARGE, Unroutable("gone"), AuthenticationFailed("no")], ids=repr)
def test_more_copies_than_there_is_room_for_leave_the_room_to_others(error: MqkitError) -> None:
    async def work(works: Works) -> None:
        works.backend.script = refusing(error)
        for i in range(50):
            works.backend.give(b'"bad"', id=str(i))
        await works.settled(works.backend.give(b'"good"', id="good"))
        await asyncio.sleep(200)
        assert works.backend.of("done") == [51]
        works.backend.script = accept
        await works.settled(*range(1, 52))

    pumping(bad_or_good, work, concurrency=2, prefetch=3)


def test_a_result_that_is_not_taken_now_is_sent_again_and_its_message_is_no_dead_letter() -> None:
    async def handler(payload: Any) -> str:
        return "made"

    async def work(works: Works) -> None:
        works.backend.script = refusing(FULL)
        token = works.backend.give()
        await asyncio.sleep(30)
        assert works.backend.sends
        assert not works.backend.of("done")
        works.backend.script = accept
        await works.settled(token)

    works = pumping(handler, work, publish=Topic("results", None))
    assert [(outgoing.topic, outgoing.dead) for outgoing in works.backend.of("sent")] == [("results", False)]


def test_a_try_to_store_takes_some_seconds_and_the_next_one_has_the_same_order() -> None:
    tried: list[list[Any]] = []
    patience: list[float] = []

    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        tried.append([outgoing.message.headers["ce_id"] for outgoing in batch])
        patience.append(timeout)
        if asyncio.get_running_loop().time() < 20:
            await blocked(batch, timeout)

    async def work(works: Works) -> None:
        works.backend.script = script
        await works.settled(*(works.backend.give(id=str(i)) for i in range(10)))

    works = pumping(broken, work, retry=Retry(attempts=1), concurrency=1)
    assert max(patience) <= STORE_TIMEOUT
    assert [outgoing.message.headers["ce_id"] for outgoing in works.backend.of("sent")] == [str(i) for i in range(10)]
    assert len(tried) > 3


def test_one_place_that_is_full_holds_up_no_other() -> None:
    async def handler(payload: Any, message: Message[Any]) -> None:
        raise ValueError("no")

    async def work(works: Works) -> None:
        works.backend.script = refusing(FULL, lambda outgoing: not outgoing.dead)
        waits = works.backend.give(id="waits")
        await until(lambda: works.backend.sends)
        dies = works.backend.give(id="dies", returned=True, headers={"mqkit-attempts": "4"})
        started = asyncio.get_running_loop().time()
        await works.settled(dies)
        assert asyncio.get_running_loop().time() - started < 5
        assert waits not in works.backend.of("done")
        works.backend.script = accept
        await works.settled(waits)

    pumping(handler, work, retry=Retry(attempts=5))


@pytest.mark.parametrize("attempts", [1, 5], ids=["dead letter", "retry"])
def test_a_missing_place_is_declared_again_and_used_at_once(attempts: int) -> None:
    async def work(works: Works) -> None:
        async def script(batch: Sequence[Outgoing], timeout: float) -> None:
            if not works.backend.declared:
                raise PublishError(rejected=dict.fromkeys(range(len(batch)), Unroutable("somebody deleted it")))

        works.backend.script = script
        tokens = [works.backend.give(id=str(i)) for i in range(20)]
        started = asyncio.get_running_loop().time()
        await works.settled(*tokens)
        assert asyncio.get_running_loop().time() - started < 0.5
        assert works.backend.declared == 1

    pumping(broken, work, retry=Retry(attempts=attempts))


@pytest.mark.parametrize(("wait", "steps"), [(0.5, []), (1, [{1.0}]), (60, [{60.0}])])
def test_a_place_that_is_made_on_demand_is_made_once_before_what_waits_there(
    wait: float, steps: list[set[float]], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(works: Works) -> None:
        async def script(batch: Sequence[Outgoing], timeout: float) -> None:
            if not works.backend.steps_declared and steps:
                raise PublishError(rejected=dict.fromkeys(range(len(batch)), Unroutable("there is no queue")))

        works.backend.script = script
        for i in range(3):
            await works.settled(works.backend.give(id=str(i)))
        assert [*map(set, works.backend.steps_declared)] == steps
        assert works.backend.declared == 0

    pumping(broken, work, retry=Retry(attempts=5, wait_initial=wait, wait_jitter=0))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_each_step_of_a_long_delay_has_its_place_made() -> None:
    async def work(works: Works) -> None:
        headers = {"mqkit-left": "80", "mqkit-attempts": "1"}
        await works.settled(works.backend.give(id="a", returned=True, headers=headers))
        assert [*map(set, works.backend.steps_declared)] == [{60.0}]

    pumping(fine, work, exact_delay=False)


def test_while_a_place_cannot_be_made_what_would_wait_there_stays_and_all_else_goes_on() -> None:
    async def work(works: Works) -> None:
        async def script(batch: Sequence[Outgoing], timeout: float) -> None:
            if not works.backend.steps_declared:
                raise PublishError(rejected=dict.fromkeys(range(len(batch)), Unroutable("there is no queue")))

        works.backend.script = script
        works.backend.refuse_declare.extend([BackendError("the broker makes no queue now", retryable=True)] * 2)
        bad = works.backend.give(b'"bad"', id="bad")
        good = works.backend.give(b'"good"', id="good")
        await works.settled(good)
        assert bad not in works.backend.of("done")
        assert not works.backend.of("sent")
        await works.settled(bad)
        assert [*map(set, works.backend.steps_declared)] == [{60.0}]

    pumping(bad_or_good, work, retry=Retry(attempts=5, wait_initial=60, wait_jitter=0), concurrency=1)


@pytest.mark.parametrize(
    ("error", "stored"),
    [(AuthenticationFailed("may not declare"), True), (TopologyError("it has", ["a limit"]), False)],
)
def test_a_place_that_is_there_is_used_where_it_may_not_be_declared_but_not_with_other_settings(
    error: MqkitError, *, stored: bool
) -> None:
    async def work(works: Works) -> None:
        works.backend.refuse_declare.append(error)
        await works.settled(works.backend.give(id="a"))
        assert len(works.backend.steps_declared) == (0 if stored else 1)

    pumping(broken, work, retry=Retry(attempts=5, wait_initial=60, wait_jitter=0))


def test_a_place_of_a_step_that_somebody_deleted_is_made_again_and_used_at_once() -> None:
    async def work(works: Works) -> None:
        await works.settled(works.backend.give(id="before"))
        there = len(works.backend.steps_declared)

        async def script(batch: Sequence[Outgoing], timeout: float) -> None:
            if len(works.backend.steps_declared) == there:
                raise PublishError(rejected=dict.fromkeys(range(len(batch)), Unroutable("somebody deleted it")))

        works.backend.script = script
        started = asyncio.get_running_loop().time()
        await works.settled(works.backend.give(id="after"))
        assert asyncio.get_running_loop().time() - started < 0.5

    pumping(broken, work, retry=Retry(attempts=5, wait_initial=60, wait_jitter=0))


def test_a_dead_letter_takes_its_last_form_when_no_other_is_taken() -> None:
    async def work(works: Works) -> None:
        works.backend.script = refusing(TOO_LARGE, lambda outgoing: "mqkit-wrapped" not in outgoing.message.headers)
        token = works.backend.give(b'{"n": 1}', id="a", headers={"x": "y" * 1000, "ce_type": "t"}, key=b"k")
        await works.settled(token)

    works = pumping(broken, work, retry=Retry(attempts=1))
    assert len(works.backend.sends) == 3, "as it is, without its traceback, wrapped"
    (copy,) = works.backend.of("sent")
    assert copy.dead
    assert copy.message.headers["mqkit-reason"] == "exhausted"
    assert "x" not in copy.message.headers


def test_a_wrapped_retry_is_handled_as_what_it_was() -> None:
    seen: list[Message[Any]] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        seen.append(message)

    async def work(works: Works) -> None:
        copy = WireMessage(b'{"n": 1}', {"ce_id": "a", "x": "y", "mqkit-attempts": "2"}, b"k", "application/json")
        wrapped = wrap(copy, "zlib")
        token = works.backend.give(
            wrapped.body, headers=dict(wrapped.headers), key=b"k", content_type=wrapped.content_type, returned=True
        )
        await works.settled(token)

    pumping(handler, work)
    (message,) = seen
    assert (message.payload, message.id, message.attempt, message.key) == ({"n": 1}, "a", 3, "k")
    assert message.headers == {"x": "y"}


def test_what_no_form_helps_is_tried_less_and_less_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work(works: Works) -> None:
        times: list[float] = []

        async def script(batch: Sequence[Outgoing], timeout: float) -> None:
            if batch[0].message.headers.get("mqkit-traceback"):  # the first form of each try
                times.append(asyncio.get_running_loop().time())
            raise PublishError(rejected={0: TOO_LARGE})

        works.backend.script = script
        token = works.backend.give(id="a")
        await asyncio.sleep(600)
        waits = [after - before for before, after in pairwise(times)]
        assert all(later >= earlier - 0.1 for earlier, later in pairwise(waits)), waits
        assert 30 < waits[-1] <= 60
        works.backend.script = accept
        await works.settled(token)

    with caplog.at_level("WARNING", "mqkit"):
        pumping(broken, work, retry=Retry(attempts=1))
    assert Counter(record.levelname for record in caplog.records)["ERROR"] == 1
    assert "message a stays where it is" in caplog.text


def test_trouble_and_its_end_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    async def work(works: Works) -> None:
        works.backend.script = refusing(FULL)
        tokens = [works.backend.give(id=str(i)) for i in range(5)]
        await asyncio.sleep(300)
        assert len(works.backend.sends) > 30, "it is tried again all the time"
        works.backend.script = accept
        await works.settled(*tokens)

    with caplog.at_level("WARNING", "mqkit"):
        pumping(broken, work)
    told = [record.getMessage() for record in caplog.records if "stored" in record.getMessage()]
    assert len(told) == 2
    assert "could not be stored: the queue is full" in told[0]
    assert "stored again after" in told[1]


def test_keys_that_wait_leave_the_room_to_others() -> None:
    async def handler(payload: Any, message: Message[Any]) -> None:
        if message.key != "good":
            raise ValueError("no")

    async def work(works: Works) -> None:
        for i in range(40):
            works.backend.give(key=f"bad {i % 20}".encode())
        for _ in range(40):
            works.backend.give(key=b"bad 1")
        good = works.backend.give(key=b"good")
        started = asyncio.get_running_loop().time()
        await works.settled(good)
        assert asyncio.get_running_loop().time() - started < 1
        assert works.backend.of("done") == [good]

    pumping(handler, work, retry=Retry(wait_initial=1000), ordering="key", concurrency=2, prefetch=3, grace=0)


def test_what_waits_is_bounded_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pump, "ASIDE", 30)

    async def handler(payload: Any, message: Message[Any]) -> None:
        if message.attempt == 1:
            raise ValueError("no")

    async def work(works: Works) -> None:
        tokens = [works.backend.give(key=str(i).encode()) for i in range(50)]
        await until(lambda: "full" in works.kinds())
        await asyncio.sleep(5)
        (receiver,) = works.backend.receivers
        assert 30 <= len(receiver._out) <= 35
        assert works.kinds().count("full") == 1
        await works.settled(*tokens)

    with caplog.at_level("WARNING", "mqkit"):
        works = pumping(handler, work, retry=Retry(wait_initial=20), ordering="key", concurrency=2, prefetch=3)
    told = [record for record in caplog.records if "full: nothing more is taken" in record.getMessage()]
    assert len(told) == works.kinds().count("full") <= 2


def test_bodies_bound_what_is_taken_and_one_is_taken_whatever_its_size() -> None:
    async def slow(payload: Any) -> None:
        await asyncio.sleep(10)

    async def work(works: Works) -> None:
        tokens = [works.backend.give(b'"' + b"x" * 1000 + b'"') for _ in range(4)]
        await asyncio.sleep(1)
        (receiver,) = works.backend.receivers
        assert receiver.subscription.prefetch_bytes == 500
        await works.settled(*tokens)
        assert works.kinds().count("full") == 0, "nothing waits: that is no trouble"

    pumping(slow, work, concurrency=1, prefetch=0, prefetch_bytes=500)


def test_what_is_on_its_way_when_the_session_goes_is_withdrawn() -> None:
    async def work(works: Works) -> None:
        works.backend.script = refusing(FULL)
        works.backend.give(id="a")
        await asyncio.sleep(1)
        works.backend.script = accept
        works.backend.lose()
        await until(lambda: len(works.backend.receivers) == 2)

    async def once(payload: Any, message: Message[Any]) -> None:
        if len(calls) < 1:
            calls.append(message.id)
            raise ValueError("no")

    calls: list[str] = []
    works = pumping(once, work)
    assert works.backend.of("sent") == []


def test_all_that_is_here_is_counted_until_it_is_settled() -> None:
    async def work(works: Works) -> None:
        works.backend.script = refusing(FULL)
        tokens = [works.backend.give(b'"%d"' % i, key=b"k") for i in range(5)]
        await until(lambda: len(works.pump._storing) == 5)
        assert works.pump._storing.size == 5 * 3
        assert works.pump._in_flight.size == 0
        works.backend.script = accept
        await works.settled(*tokens)
        assert works.pump._storing.size == len(works.pump._storing) == 0

    pumping(broken, work)


def test_a_bug_while_storing_is_told_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def work(works: Works) -> None:
        storing: Any = works.pump._storing
        sound = storing._copies.of
        calls = 0

        class Broken:
            @staticmethod
            def of(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == 1:
                    raise RuntimeError("a bug")
                return sound(*args)

        storing._copies = Broken
        await works.settled(works.backend.give(id="a"))

    works = pumping(broken, work)
    assert "RuntimeError: a bug" in caplog.text
    assert len(works.backend.of("sent")) == 1


def test_fine_messages_need_no_storing() -> None:
    async def work(works: Works) -> None:
        await works.settled(*[works.backend.give() for _ in range(5)])
        assert not works.pump._storing._shelves

    pumping(fine, work)
