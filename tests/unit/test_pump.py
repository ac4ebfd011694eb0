"""The pump: the copy is confirmed before the original is settled, and no outage ends it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mqkit.codec import Codecs
from mqkit.errors import (
    BackendError,
    ConfigurationError,
    ConnectionLost,
    MessageTooLarge,
    PublishError,
    Unroutable,
)
from mqkit.events import Event
from mqkit.handler import Handler, HandlerOptions, Outcome
from mqkit.message import Message, Outgoing, WireMessage
from mqkit.middleware import Around
from mqkit.producer import Producer
from mqkit.pump import Pump
from mqkit.retry import Retry
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.topic import Topic
from tests.unit.scripted import GROUP, TOPIC, Script, Scripted, accept
from tests.unit.virtual_time import START, VirtualPorts, run, until

RESULTS: Topic[Any] = Topic("results", None)


class Works:
    """A pump at a scripted backend, and all it is made of."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        grace: float,
        publish: Topic[Any] | None,
        exact_delay: bool = True,
        **options: Any,
    ) -> None:
        self.backend = Scripted()
        self.backend.capabilities = replace(self.backend.capabilities, exact_delay=exact_delay)
        self.ports = VirtualPorts()
        self.producer = Producer(self.backend, self.ports)
        self.events: list[Event] = []
        self.heard = True
        topic: Topic[Any] = Topic(TOPIC, None)
        self.handler = Handler(
            topic=topic, group=GROUP, function=function, options=HandlerOptions(**options),
            codec=Codecs().bind(topic), around=Around(()), ports=self.ports, prepare=self.prepare, publish=publish,
        )  # fmt: skip
        self.pump = Pump(
            backend=self.backend, handler=self.handler, producer=self.producer, ports=self.ports,
            emit=self.events.append, service="shop 1", grace=grace, declare=self.declare, heard=lambda: self.heard,
        )  # fmt: skip

    @staticmethod
    def prepare(topic: Topic[Any], payload: Any) -> Outgoing:
        return Outgoing(WireMessage(str(payload).encode(), {"ce_id": f"result-{payload}"}), topic.name)

    async def declare(self, steps: frozenset[float]) -> None:
        if self.backend.refuse_declare:
            raise self.backend.refuse_declare.popleft()
        if steps:
            self.backend.steps_declared.append(steps)
        else:
            self.backend.declared += 1

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def settled(self, *tokens: int) -> None:
        await until(lambda: set(tokens) <= set(self.backend.of("done")))


def pumping(
    function: Callable[..., Any],
    work: Callable[[Works], Awaitable[None]],
    *,
    grace: float = 10.0,
    publish: Topic[Any] | None = None,
    **options: Any,
) -> Works:
    """Run `work` while the pump runs; stop the pump afterwards. Nothing may be left with a handler or unsettled."""

    async def main() -> Works:
        works = Works(function, grace=grace, publish=publish, **options)
        works.producer.start()
        running = asyncio.create_task(works.pump.run())
        try:
            await work(works)
        finally:
            works.pump.stop()
            await running
            await works.producer.close()
            works.ports.close()
        return works

    return run(main())


def failing(error: Exception) -> Script:
    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        raise error

    return script


async def fine(payload: Any) -> None: ...


async def broken(payload: Any) -> None:
    raise ValueError("no")


def test_what_is_handled_is_settled_after_the_handler_returned() -> None:
    async def slow(payload: Any) -> None:
        await asyncio.sleep(5)

    async def work(works: Works) -> None:
        token = works.backend.give(id="a")
        await asyncio.sleep(4)
        assert works.backend.of("done") == []
        await works.settled(token)

    works = pumping(slow, work)
    assert works.kinds() == ["started", "done", "stopped"]
    assert works.backend.sends == []


@pytest.mark.parametrize(
    ("error", "dead", "reason"),
    [
        (ValueError("no"), False, None),
        (RetryLater(after=3), False, None),
        (Reject("no"), True, "rejected"),
        (KeyError("not retried"), True, "not-retryable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_copy_is_confirmed_before_the_original_is_settled(error: Exception, dead: bool, reason: str | None) -> None:
    async def handler(payload: Any) -> None:
        raise error

    async def work(works: Works) -> None:
        gate = asyncio.Event()

        async def hold(batch: Sequence[Outgoing], timeout: float) -> None:
            await gate.wait()

        works.backend.scripts.append(hold)
        token = works.backend.give(id="a")
        await until(lambda: works.backend.sends)
        await asyncio.sleep(2)
        assert works.backend.of("done") == []
        gate.set()
        await works.settled(token)

    works = pumping(handler, work, retry=Retry(on=ValueError))
    assert [kind for kind, _ in works.backend.log if kind in ("sent", "done")] == ["sent", "done"]
    (copy,) = works.backend.of("sent")
    assert (copy.topic, copy.group, copy.dead) == (TOPIC, GROUP, dead)
    assert copy.message.headers["ce_id"] == "a"
    assert copy.message.headers.get("mqkit-reason") == reason


def test_skip_settles_without_a_copy_and_is_counted() -> None:
    async def handler(payload: Any) -> None:
        raise Skip("not mine")

    async def work(works: Works) -> None:
        await works.settled(works.backend.give())

    works = pumping(handler, work)
    assert works.backend.sends == []
    assert "skipped" in works.kinds()


@pytest.mark.parametrize(
    "error",
    [ConnectionLost("cut"), PublishError(rejected={0: Unroutable("gone")}), BackendError("x"), KeyError("a bug")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("outcome", [ValueError("no"), Reject("no")], ids=["retry", "dead letter"])
def test_a_copy_that_cannot_be_stored_leaves_the_original_and_is_tried_again(
    outcome: Exception, error: Exception
) -> None:
    calls = 0

    async def handler(payload: Any) -> None:
        nonlocal calls
        calls += 1
        raise outcome

    async def work(works: Works) -> None:
        works.backend.script = failing(error)
        token = works.backend.give(id="a")
        await asyncio.sleep(30)
        assert len(works.backend.sends) > 3
        assert works.backend.of("done") == []
        assert works.backend.of("release") == []
        works.backend.script = accept
        await works.settled(token)

    works = pumping(handler, work)
    assert calls == 1
    assert len(works.backend.of("sent")) == 1
    assert {b[0].message.headers["ce_id"] for b in works.backend.sends} == {"a"}


def test_one_copy_that_fails_holds_back_its_own_original_only() -> None:
    async def work(works: Works) -> None:
        works.backend.scripts.append(failing(PublishError(rejected={1: Unroutable("gone")})))
        tokens = [works.backend.give(id=str(i)) for i in range(3)]
        await works.settled(*tokens)
        assert works.backend.of("done")[-1] == tokens[1]

    pumping(broken, work)


def test_a_result_is_published_before_its_message_is_settled() -> None:
    async def handler(payload: Any) -> str:
        return "r"

    async def work(works: Works) -> None:
        works.backend.scripts.append(failing(ConnectionLost("cut")))
        await works.settled(works.backend.give(id="a"))

    works = pumping(handler, work, publish=RESULTS)
    assert [kind for kind, _ in works.backend.log if kind in ("sent", "done")] == ["sent", "done"]
    assert [o.topic for o in works.backend.of("sent")] == ["results"]


def test_a_result_that_nobody_takes_makes_a_dead_letter_of_its_message() -> None:
    async def handler(payload: Any) -> str:
        return "r"

    async def work(works: Works) -> None:
        works.backend.scripts.append(failing(PublishError(rejected={0: Unroutable("nobody listens")})))
        await works.settled(works.backend.give(id="a"))

    works = pumping(handler, work, publish=RESULTS)
    (copy,) = works.backend.of("sent")
    assert copy.dead
    assert copy.message.headers["mqkit-reason"] == "result"
    assert "nobody listens" in copy.message.headers["mqkit-error"]


def test_a_dead_letter_that_is_too_large_goes_without_its_traceback() -> None:
    async def work(works: Works) -> None:
        works.backend.scripts.append(failing(PublishError(rejected={0: MessageTooLarge(11, 10, "the broker")})))
        await works.settled(works.backend.give(id="a"))

    works = pumping(broken, work, retry=Retry(attempts=1))
    assert works.backend.sends[0][0].message.headers["mqkit-traceback"]
    assert works.backend.of("sent")[0].message.headers["mqkit-traceback"] == ""


def test_a_retry_that_is_too_large_in_every_form_becomes_a_dead_letter() -> None:
    async def work(works: Works) -> None:
        too_large = failing(PublishError(rejected={0: MessageTooLarge(11, 10, "the broker")}))
        works.backend.scripts.extend([too_large] * 3)
        await works.settled(works.backend.give(id="a"))

    works = pumping(broken, work)
    copies = [(batch[0].dead, batch[0].message.headers.get("mqkit-wrapped")) for batch in works.backend.sends]
    assert copies == [(False, None), (False, "zlib"), (False, "xz"), (True, None)]
    assert works.backend.of("sent")[0].message.headers["mqkit-reason"] == "too-large"
    assert works.kinds().count("dead-letter") == 1


def test_retries_carry_their_attempts_and_their_time() -> None:
    async def work(works: Works) -> None:
        token = works.backend.give(id="a", returned=True, headers={"mqkit-attempts": "2"})
        await works.settled(token)

    works = pumping(broken, work, retry=Retry(attempts=5, wait_initial=3))
    (copy,) = works.backend.of("sent")
    assert copy.delay == 12
    assert copy.message.headers["mqkit-attempts"] == "3"
    assert float(copy.message.headers["mqkit-due"]) == pytest.approx(START + 12, abs=0.5)


@pytest.mark.parametrize(("exact", "left"), [(True, 0.0), (False, 4.0)], ids=["whole", "steps"])
def test_what_is_left_of_a_delay_is_told_as_the_broker_keeps_it(*, exact: bool, left: float) -> None:
    async def handler(payload: Any) -> None:
        raise RetryLater(after=9)

    async def work(works: Works) -> None:
        await works.settled(works.backend.give(id="a"))

    works = pumping(handler, work, exact_delay=exact)
    (copy,) = works.backend.of("sent")
    assert copy.delay == 9
    assert float(copy.message.headers["mqkit-left"]) == left


def test_what_is_not_due_is_sent_on_its_way_unseen_by_the_handler() -> None:
    async def handler(payload: Any) -> None:
        raise AssertionError("its time has not come")

    async def work(works: Works) -> None:
        token = works.backend.give(
            id="a", returned=True, headers={"mqkit-due": repr(START + 100), "mqkit-attempts": "1"}
        )
        await works.settled(token)

    works = pumping(handler, work)
    (copy,) = works.backend.of("sent")
    assert copy.delay == pytest.approx(100, abs=1)
    assert copy.message.headers["mqkit-attempts"] == "1"
    assert copy.message.headers["mqkit-due"] == repr(START + 100)
    assert "postponed" in works.kinds()


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{", {}, "undecodable"),
        (b"\xff", {}, "undecodable"),
        (b"{}", {"ce_id": 5.0, "ce_time": "yesterday"}, "envelope"),
        (b"{}", {"ce_specversion": "9.9"}, "envelope"),
        (b"[" * 100_000, {}, "undecodable"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_before_any_handler(
    body: bytes, headers: dict[str, Any], reason: str
) -> None:
    async def handler(payload: Any) -> None:
        raise AssertionError("nothing to see")

    async def work(works: Works) -> None:
        await works.settled(works.backend.give(body, headers=headers))

    works = pumping(handler, work)
    (copy,) = works.backend.of("sent")
    assert copy.message.headers["mqkit-reason"] == reason
    assert copy.message.body == body
    assert {name: copy.message.headers[name] for name in headers} == headers


def test_a_lost_lease_is_told_and_dropped() -> None:
    async def work(works: Works) -> None:
        first, second = works.backend.give(id="a"), works.backend.give(id="b")
        works.backend.lost_leases.add(first)
        await works.settled(second)

    works = pumping(fine, work)
    assert "lease-lost" in works.kinds()
    assert len(works.backend.receivers) == 1


@pytest.mark.parametrize(
    ("ordering", "expected"), [("none", ["a1", "a2", "b1", "c2"]), ("key", ["a1", "b1", "c2"])], ids=["none", "key"]
)
def test_what_is_recalled_goes_back_unstarted_and_what_runs_of_it_is_settled_when_it_ends(
    ordering: str, expected: list[str]
) -> None:
    started: list[str] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        started.append(message.id)
        await asyncio.sleep(3)

    async def work(works: Works) -> None:
        tokens = [works.backend.give(id=name, key=name[:1].encode()) for name in ("a1", "a2", "b1", "c1", "c2", "b2")]
        await until(lambda: len(started) == 2)
        works.backend.recall(*tokens[:2], tokens[3], tokens[5])
        await until(lambda: works.backend.of("release"))
        assert works.backend.of("done") == []
        await works.settled(tokens[0], tokens[2], tokens[4])
        assert len(works.backend.of("release")) == len(tokens) - len(expected)

    works = pumping(handler, work, ordering=ordering, concurrency=2)
    assert started == expected
    assert "lease-lost" not in works.kinds()


@pytest.mark.parametrize("ends", [None, ValueError("no"), Reject("no")], ids=["done", "retry", "dead letter"])
def test_nothing_comes_of_what_was_lost_whenever_its_handler_ends(ends: Exception | None) -> None:
    started: list[str] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        started.append(message.id)
        await asyncio.sleep(3)
        if ends is not None:
            raise ends

    async def work(works: Works) -> None:
        tokens = [works.backend.give(id=name) for name in ("a", "b", "c")]
        await until(lambda: len(started) == 1)
        works.backend.recall(*tokens[:2], lost=True)
        await works.settled(tokens[2])

    works = pumping(handler, work, concurrency=1)
    assert started == ["a", "c"]
    assert [what.message.headers["ce_id"] for what in works.backend.of("sent")] == ([] if ends is None else ["c"])
    assert works.kinds().count("lease-lost") == 1


def test_a_copy_that_waits_to_be_stored_is_forgotten_when_its_original_is_lost() -> None:
    async def work(works: Works) -> None:
        works.backend.script = failing(PublishError(rejected={0: Unroutable("deleted")}))
        token = works.backend.give(id="a")
        await until(lambda: len(works.backend.sends) == 3)
        works.backend.recall(token, lost=True)
        await until(lambda: "lease-lost" in works.kinds())
        works.backend.script = accept
        await asyncio.sleep(30)

    works = pumping(broken, work)
    assert works.backend.of("sent") == []
    assert works.backend.of("done") == []


def test_what_waits_in_place_and_is_recalled_is_noted_and_goes_back() -> None:
    async def work(works: Works) -> None:
        token = works.backend.give(id="a", key=b"a")
        await until(lambda: works.backend.of("noted"))
        works.backend.recall(token)
        await until(lambda: works.backend.of("release"))

    works = pumping(broken, work, ordering="key", retry=Retry(attempts=5, wait_initial=20))
    assert works.backend.of("noted") == [(1, 1)]
    assert works.backend.sends == []


def test_what_fails_after_its_recall_is_noted_and_goes_back_rather_than_wait_in_place() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(3)
        raise ValueError("no")

    async def work(works: Works) -> None:
        token = works.backend.give(id="a", key=b"a")
        await asyncio.sleep(1)
        works.backend.recall(token)
        await until(lambda: works.backend.of("release"))

    works = pumping(handler, work, ordering="key", retry=Retry(attempts=5, wait_initial=20))
    assert [kind for kind, _ in works.backend.log if kind in ("noted", "release")] == ["noted", "release"]


def test_a_connection_lost_amid_work_is_opened_again_and_the_work_done_again() -> None:
    calls = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        calls.append(message.id)
        await asyncio.sleep(1)

    async def work(works: Works) -> None:
        tokens = [works.backend.give(id=name) for name in "ab"]
        await asyncio.sleep(0.5)
        works.backend.lose()
        await works.settled(*tokens)

    works = pumping(handler, work)
    assert sorted(calls) == ["a", "a", "b", "b"]
    assert works.backend.of("done") == [1, 2]
    assert works.backend.of("closed") == [1, 2]
    assert works.kinds()[:3] == ["started", "disconnected", "connected"]


@pytest.mark.parametrize("error", [ValueError("no"), Reject("no")], ids=["retry", "dead letter"])
def test_outcomes_of_a_lost_session_make_no_copies(error: Exception) -> None:
    calls = 0

    async def handler(payload: Any) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(2)
        if calls == 1:
            raise error

    async def work(works: Works) -> None:
        token = works.backend.give(id="a")
        await asyncio.sleep(1)
        works.backend.lose()
        await until(lambda: len(works.backend.receivers) == 2)
        await works.settled(token)

    works = pumping(handler, work)
    assert calls == 2
    assert works.backend.sends == []


def test_what_was_not_stored_when_the_session_went_is_forgotten_with_it() -> None:
    calls = 0

    async def handler(payload: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError

    async def work(works: Works) -> None:
        works.backend.script = failing(ConnectionLost("cut"))
        token = works.backend.give(id="a")
        await asyncio.sleep(6)
        works.backend.lose()
        await until(lambda: len(works.backend.receivers) == 2)
        works.backend.script = accept
        await works.settled(token)
        await asyncio.sleep(10)

    works = pumping(handler, work)
    assert calls == 2
    assert works.backend.of("sent") == []


def test_what_had_not_started_when_the_session_went_is_not_worked_at_twice() -> None:
    calls = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        calls.append(message.id)
        await asyncio.sleep(1)

    async def work(works: Works) -> None:
        tokens = [works.backend.give(id=name) for name in "abc"]
        await asyncio.sleep(0.5)
        works.backend.lose()
        await works.settled(*tokens)

    pumping(handler, work, concurrency=1)
    assert sorted(calls) == ["a", "a", "b", "c"]


@pytest.mark.parametrize(
    "error", [ConnectionLost("cut"), KeyError("a bug in the adapter"), ConfigurationError("no queue")], ids=repr
)
def test_no_error_of_a_session_ends_the_pump(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def work(works: Works) -> None:
        await until(lambda: works.pump.connected)
        works.backend.refuse_open.extend([error] * 10)
        works.backend.lose(error)
        await works.settled(works.backend.give(id="a"))
        assert not works.backend.refuse_open

    works = pumping(fine, work)
    assert works.kinds() == ["started", "disconnected", "connected", "done", "stopped"]
    assert len([r for r in caplog.records if "disconnected" in r.message]) == 1
    assert works.backend.declared == (11 if isinstance(error, ConfigurationError) else 0)


def test_recovery_starts_at_once_and_then_backs_off() -> None:
    opened: list[float] = []

    async def work(works: Works) -> None:
        sound = works.backend.open_receiver
        clock = asyncio.get_running_loop().time

        async def open_receiver(*args: Any) -> Any:
            opened.append(clock())
            return await sound(*args)

        await until(lambda: works.pump.connected)
        works.backend.open_receiver = open_receiver  # type: ignore[method-assign,assignment] # only watched
        works.backend.refuse_open.extend([ConnectionLost("cut")] * 8)
        works.backend.lose()
        cut = clock()
        await until(lambda: len(opened) == 9)
        assert opened[0] - cut < 0.02

    pumping(fine, work)
    waits = [after - before for before, after in pairwise(opened)]
    assert all(later >= earlier for earlier, later in pairwise(waits))
    assert waits[-1] > 1
    assert max(waits) <= 5


def test_sessions_that_end_as_soon_as_they_are_open_are_not_opened_in_a_tight_loop() -> None:
    async def work(works: Works) -> None:
        await until(lambda: works.pump.connected)
        sound = works.backend.open_receiver

        async def open_receiver(*args: Any) -> Any:
            receiver = await sound(*args)
            receiver.fail(ConnectionLost("the consumer was cancelled"))
            return receiver

        works.backend.open_receiver = open_receiver  # type: ignore[method-assign,assignment] # a broker that changes its mind
        works.backend.lose()
        await asyncio.sleep(60)
        assert len(works.backend.receivers) < 40

    pumping(fine, work)


def test_stop_lets_running_handlers_end_and_gives_back_the_rest() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(5)

    async def work(works: Works) -> None:
        for name in "abcd":
            works.backend.give(id=name)
        await asyncio.sleep(1)
        works.pump.stop()
        await asyncio.sleep(1)
        works.backend.give(id="late")

    works = pumping(handler, work, concurrency=2)
    assert sorted(works.backend.of("done")) == [1, 2]
    assert sorted(works.backend.of("release")) == [3, 4]
    assert list(works.backend.pending) == [3, 4, 5]
    assert works.backend.of("closed") == [1]
    assert works.kinds()[-1] == "stopped"


def test_nothing_starts_between_stop_and_the_turn_of_the_pump() -> None:
    gate = asyncio.Event()
    called: list[Any] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        called.append(message.id)
        await gate.wait()

    async def work(works: Works) -> None:
        for name in "abc":
            works.backend.give(id=name)
        await until(lambda: called)
        gate.set()
        works.pump.stop()  # the handler is ready to go on, before the pump hears of it

    works = pumping(handler, work, concurrency=1)
    assert called == ["a"]
    assert sorted(works.backend.of("release")) == [2, 3]


def test_a_failure_within_the_grace_is_stored_before_the_end() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(2)
        raise ValueError

    async def work(works: Works) -> None:
        works.backend.give(id="a")
        await asyncio.sleep(1)

    works = pumping(handler, work)
    assert works.backend.of("done") == [1]
    assert len(works.backend.of("sent")) == 1


def test_what_outlasts_the_grace_is_cancelled_and_given_back_unblamed() -> None:
    ended = []

    async def handler(payload: Any) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def work(works: Works) -> None:
        works.backend.give(id="a")
        works.backend.give(id="b")
        await asyncio.sleep(1)

    works = pumping(handler, work, grace=3)
    assert sorted(works.backend.of("release")) == [1, 2]
    assert works.backend.sends == []
    assert ended == pytest.approx([4, 4], abs=0.2)


def test_a_handler_whose_session_goes_while_it_stops_may_still_end() -> None:
    ended = []

    async def handler(payload: Any) -> None:
        await asyncio.sleep(5)
        ended.append(payload)

    async def work(works: Works) -> None:
        works.backend.give(id="a")
        await asyncio.sleep(1)
        works.pump.stop()
        await asyncio.sleep(1)
        works.backend.lose()

    works = pumping(handler, work, grace=10)
    assert len(ended) == 1
    assert works.backend.of("done") == []


def test_what_cannot_be_stored_within_the_grace_is_given_back() -> None:
    async def work(works: Works) -> None:
        works.backend.script = failing(ConnectionLost("cut"))
        works.backend.give(id="a")
        await asyncio.sleep(1)

    works = pumping(broken, work, grace=8)
    assert works.backend.of("release") == [1]
    assert works.backend.of("done") == []


def test_stop_ends_a_pump_that_waits_for_its_broker() -> None:
    async def work(works: Works) -> None:
        await until(lambda: works.pump.connected)
        works.backend.refuse_open.extend([ConnectionLost("cut")] * 1000)
        works.backend.lose()
        await asyncio.sleep(20)
        works.pump.stop()
        await until(lambda: "stopped" in works.kinds(), within=0.5)

    pumping(fine, work)


def test_a_slow_handler_bounds_what_is_taken() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(1000)

    async def work(works: Works) -> None:
        for i in range(50):
            works.backend.give(id=str(i))
        await asyncio.sleep(10)
        (receiver,) = works.backend.receivers
        assert receiver.subscription.prefetch == 7
        assert len(receiver._out) == 7
        assert works.pump.running == 2
        polls = len(receiver.limits)
        await asyncio.sleep(10)
        assert set(receiver.limits[polls:]) == {0}
        assert len(receiver.limits) - polls >= 10, "the session is kept alive at least every second"

    pumping(handler, work, concurrency=2, prefetch=5, grace=1)


def test_a_bug_in_mqkit_neither_loses_nor_blames_a_message() -> None:
    async def work(works: Works) -> None:
        calls = 0
        sound = Handler.process

        async def process(*args: Any) -> Outcome:
            nonlocal calls
            calls += 1
            if calls <= 3:
                raise RuntimeError("a bug")
            return await sound(works.handler, *args)

        class Broken:
            def __getattr__(self, name: str) -> Any:
                return process if name == "process" else getattr(works.handler, name)

        workers: Any = works.pump._runner
        workers._handler = Broken()
        token = works.backend.give(id="a")
        await works.settled(token)
        assert calls == 4

    works = pumping(fine, work, retry=Retry(attempts=1))
    assert works.backend.sends == []
    done = next(event for event in works.events if event.kind == "done")
    assert done.attempt == 1


def test_a_broker_that_fails_inside_a_handler_is_not_blamed_on_the_message() -> None:
    calls = 0

    async def handler(payload: Any) -> None:
        nonlocal calls
        calls += 1
        if calls < 10:
            raise ConnectionLost("while the handler published")

    async def work(works: Works) -> None:
        await works.settled(works.backend.give(id="a"))

    works = pumping(handler, work, retry=Retry(attempts=1))
    assert works.backend.sends == []
    assert next(e for e in works.events if e.kind == "done").attempt == 1


def test_each_verdict_is_one_event_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def work(works: Works) -> None:
        await works.settled(works.backend.give(id="the id"))

    with caplog.at_level("INFO", "mqkit"):
        works = pumping(broken, work, retry=Retry(attempts=1))
    (event,) = [e for e in works.events if e.kind == "dead-letter"]
    assert (event.topic, event.group, event.id, event.attempt) == (TOPIC, GROUP, "the id", 1)
    (line,) = [r.message for r in caplog.records if r.message.startswith("dead-letter")]
    assert "topic=orders group=billing id=the id attempt=1" in line
    assert "ValueError: no" in line


@pytest.mark.parametrize(
    ("level", "told"),
    [("INFO", ["dead-letter"]), ("DEBUG", ["done", "dead-letter"])],
)
def test_where_nobody_hears_events_the_log_tells_what_its_level_asks_for(
    level: str, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(works: Works) -> None:
        works.heard = False
        await works.settled(works.backend.give(b"0"))
        await works.settled(works.backend.give(b"1"))

    async def fail_at_one(payload: Any) -> None:
        if payload:
            raise Reject("no")

    with caplog.at_level(level, "mqkit"):
        pumping(fail_at_one, work)
    kinds = [line.message.partition(" ")[0] for line in caplog.records]
    assert [kind for kind in kinds if kind in ("done", "dead-letter")] == told


def test_attempts_in_place_are_noted_one_by_one_and_survive_the_session() -> None:
    attempts: list[int] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        attempts.append(message.attempt)
        raise ValueError("no")

    async def work(works: Works) -> None:
        token = works.backend.give(key=b"k", id="a")
        await until(lambda: len(works.backend.of("noted")) == 2)
        works.backend.lose()
        await works.settled(token)

    works = pumping(handler, work, retry=Retry(attempts=4, wait_initial=1, wait_factor=1), ordering="key")
    assert attempts == [1, 2, 3, 4]
    token = works.backend.of("done")[0]
    assert works.backend.of("noted") == [(token, 1), (token, 2), (token, 3)]
    (dead,) = works.backend.of("sent")
    assert dead.dead


def test_while_notes_are_refused_the_message_waits_and_the_session_goes_on() -> None:
    attempts: list[float] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        if payload == "bad":
            attempts.append(asyncio.get_running_loop().time())
            if len(attempts) == 1:
                raise ValueError("no")

    async def work(works: Works) -> None:
        works.backend.refuse_note.extend(BackendError("an alarm is on", retryable=True) for _ in range(3))
        bad = works.backend.give(b'"bad"', key=b"k")
        await until(lambda: attempts)
        good = works.backend.give(b'"good"', key=b"other")
        await works.settled(good)
        await works.settled(bad)
        assert len(works.backend.receivers) == 1

    works = pumping(handler, work, retry=Retry(wait_initial=0.1), ordering="key")
    assert attempts[1] - attempts[0] >= 3, "it was tried again before it was noted"
    assert works.kinds().count("retry") == 1


def test_while_notes_are_on_their_way_all_others_go_on_and_no_attempt_comes_before_its_note() -> None:
    attempts: list[float] = []

    async def handler(payload: Any) -> None:
        if payload == "bad":
            attempts.append(asyncio.get_running_loop().time())
            if len(attempts) <= 20:
                raise ValueError("no")

    async def work(works: Works) -> None:
        works.backend.notes_wait = True
        bad = [works.backend.give(b'"bad"', key=b"bad %d" % number) for number in range(20)]
        good = [works.backend.give(b'"good"', key=b"good %d" % number) for number in range(200)]
        started = asyncio.get_running_loop().time()
        await works.settled(*good)
        assert asyncio.get_running_loop().time() - started < 1
        await asyncio.sleep(60)
        assert len(attempts) == 20
        assert works.backend.of("noted") == []
        works.backend.notes_wait = False
        await works.settled(*bad)
        assert sorted(works.backend.of("noted")) == [(token, 1) for token in bad]

    pumping(handler, work, retry=Retry(wait_initial=0.1), ordering="key")


def test_who_lost_its_claim_is_told_when_it_notes() -> None:
    async def work(works: Works) -> None:
        token = works.backend.give(key=b"k")
        works.backend.lost_leases.add(token)
        await until(lambda: "lease-lost" in works.kinds())

    works = pumping(broken, work, retry=Retry(attempts=2, wait_initial=1000), ordering="key")
    assert works.backend.of("noted") == []


def test_what_comes_in_while_it_stops_goes_back_untouched() -> None:
    async def work(works: Works) -> None:
        await until(lambda: works.backend.receivers and works.backend.receivers[-1].limits)
        token = works.backend.give()
        works.pump.stop()  # the receiver has it already
        await until(lambda: works.backend.of("release") == [token])
        assert not works.backend.of("done")

    pumping(fine, work)


BODY = b'"' + b"x" * 98 + b'"'


@pytest.mark.parametrize("how", ["session", "lease"])
def test_bytes_of_what_was_lost_take_no_room_from_what_comes(how: str) -> None:
    gate = asyncio.Event()

    async def handler(payload: Any) -> None:
        await gate.wait()

    async def work(works: Works) -> None:
        backend = works.backend
        for number in range(1, 4):
            tokens = [backend.give(BODY) for _ in range(4)]
            await until(lambda: works.pump.running)
            await asyncio.sleep(2)
            if how == "lease":
                backend.recall(*tokens[1:], lost=True)
                await until(lambda: not backend.recalls)
            else:
                backend.lose()
                await until(lambda: len(backend.receivers) == number + 1)  # noqa: B023 - within this round
        last = backend.give(BODY)
        gate.set()
        await works.settled(last)
        await until(lambda: not works.pump._in_flight)
        assert works.pump._in_flight.size == 0

    pumping(handler, work, concurrency=1, prefetch=30, prefetch_bytes=800)


def test_no_more_is_asked_for_than_there_is_room_for_its_bytes() -> None:
    gate = asyncio.Event()

    async def handler(payload: Any) -> None:
        await gate.wait()

    async def work(works: Works) -> None:
        first = [works.backend.give(BODY) for _ in range(4)]
        await until(lambda: works.pump.running == 4)
        await asyncio.sleep(2)
        assert works.backend.receivers[-1].limits[-1] == 0
        more = works.backend.give(BODY)
        await asyncio.sleep(2)
        assert works.pump.running == 4
        gate.set()
        await works.settled(*first, more)

    pumping(handler, work, concurrency=10, prefetch=10, prefetch_bytes=400)


def test_what_is_not_counted_is_not_noted() -> None:
    calls: list[Any] = []

    async def handler(payload: Any) -> None:
        calls.append(payload)
        if len(calls) < 3:
            raise ConnectionLost("another broker is away")

    async def work(works: Works) -> None:
        await works.settled(works.backend.give(b"1", key=b"k"))

    assert not pumping(handler, work, ordering="key").backend.of("noted")
    assert len(calls) == 3
