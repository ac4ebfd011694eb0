"""Lanes against a model of what they promise; workers on an event loop."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mqkit.codec import Codecs
from mqkit.event_loop import AsyncPorts
from mqkit.handler import Handler, HandlerOptions, Outcome
from mqkit.in_flight import InFlight
from mqkit.lanes import Item, Lanes
from mqkit.message import Delivery, Message, Outgoing, WireMessage
from mqkit.middleware import Around
from mqkit.retry import Retry
from mqkit.signals import RetryLater
from mqkit.topic import Topic
from mqkit.verdict import Again, DeadLetter, Done, Release
from mqkit.workers import LOOK, QUICK, Pace, Workers
from tests.unit.virtual_time import VirtualPorts, run, until


def delivery(name: str, key: str | None = None, **headers: str) -> Delivery:
    wire = WireMessage(b"{}", {"ce_id": name, **headers}, key=key.encode() if key is not None else None)
    return Delivery(wire, name, "orders", "billing")


class LanesAgainstAModel(RuleBasedStateMachine):
    """The model: for each key the items that are not over, in the order they came; and how each of them stands."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes()
        self.alive: dict[bytes | None, list[Item]] = defaultdict(list)
        self.started: list[Item] = []
        self.held: list[Item] = []
        self.resumed: list[Item] = []
        self.count = 0

    def waiting(self) -> list[Item]:
        """Those that have not started, or are to start again."""
        return [item for items in self.alive.values() for item in items if item not in self.started + self.held]

    @rule(key=st.sampled_from([None, b"", b"a", b"b"]))
    def add(self, key: bytes | None) -> None:
        item = Item(delivery(str(self.count)), 1, key)
        self.count += 1
        self.lanes.add(item)
        self.alive[key].append(item)

    @precondition(lambda self: self.lanes.ready)
    @rule()
    def start(self) -> None:
        item = self.lanes.ready.popleft()
        assert item in self.waiting(), "started twice, or after it was over"
        if item.key is not None:
            assert self.alive[item.key][0] is item, "started out of turn"
            assert item not in self.held
            assert not [other for other in self.started if other.key == item.key], "two of one key at once"
        if item in self.resumed:
            self.resumed.remove(item)
        self.started.append(item)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.started))
        self.started.remove(item)
        self.alive[item.key].remove(item)
        self.lanes.finish(item)

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        """It failed and waits in place: nothing is said to the lanes, so its key stays blocked."""
        item = data.draw(st.sampled_from(self.started))
        self.started.remove(item)
        self.held.append(item)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.held))
        self.held.remove(item)
        self.resumed.append(item)
        self.lanes.resume(item)

    @rule()
    def clear(self) -> None:
        expected = self.waiting()
        left = self.lanes.clear()
        assert sorted(map(id, left)) == sorted(map(id, expected)), "lost or invented"
        for key in (b"", b"a", b"b"):
            assert [i for i in left if i.key == key] == [i for i in self.alive[key] if i in expected], "order"
        for item in left:
            self.alive[item.key].remove(item)
        self.resumed.clear()

    @rule(chosen=st.sets(st.integers(0, 30)))
    def take_out(self, chosen: set[int]) -> None:
        names = {*map(str, chosen)}
        expected = [item for item in self.waiting() if item.delivery.token in names]
        left = self.lanes.take_out(lambda item: item.delivery.token in names)
        assert sorted(map(id, left)) == sorted(map(id, expected)), "lost or invented"
        for key in (b"", b"a", b"b"):
            assert [i for i in left if i.key == key] == [i for i in self.alive[key] if i in expected], "order"
        for item in left:
            self.alive[item.key].remove(item)
            if item in self.resumed:
                self.resumed.remove(item)

    @invariant()
    def counts_what_waits(self) -> None:
        assert len(self.lanes) == len(self.waiting())

    @invariant()
    def offers_the_first_of_every_free_key(self) -> None:
        free = len([item for item in self.alive[None] if item not in self.started + self.held])
        for key in (b"", b"a", b"b"):
            first = self.alive[key][:1]
            free += bool(first and first[0] not in self.started + self.held)
        assert len(self.lanes.ready) == free

    @invariant()
    def forgets_keys_without_items(self) -> None:
        assert set(self.lanes._lanes) == {key for key, items in self.alive.items() if key is not None and items}


LanesAgainstAModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLanes = LanesAgainstAModel.TestCase


class Floor:
    """A handler, workers for it, and what they tell."""

    def __init__(self, function: Callable[..., Any], ports: AsyncPorts | None = None, **options: Any) -> None:
        ports = self.ports = ports or VirtualPorts()
        topic: Topic[Any] = Topic("orders", None)

        def prepare(topic: Topic[Any], payload: Any) -> Outgoing:
            raise NotImplementedError

        self.handler = Handler(
            topic=topic, group="billing", function=function, options=HandlerOptions(**options),
            codec=Codecs().bind(topic), around=Around(()), ports=ports, prepare=prepare,
        )  # fmt: skip
        self.told = 0
        self.repeated: list[Outcome] = []
        self.stuck: list[Outcome] = []
        self.noted: list[tuple[str, int]] = []
        self.flight = InFlight(self.handler, ports, on_news=self.tell, on_again=self.repeated.append)
        self.workers = Workers(self.flight, ports, self.stuck.append)

    def tell(self) -> None:
        """As the pump does, soon: notes first."""
        self.told += 1
        self.ports.post(self.note)

    def note(self) -> None:
        items = self.flight.notes()
        self.noted += [(str(item.delivery.token), item.spent) for item in items]
        self.flight.noted(items)

    async def outcomes(self, count: int) -> list[Outcome]:
        found: list[Outcome] = []

        def enough() -> bool:
            found.extend(self.flight.collect())
            return len(found) >= count

        await until(enough, within=1000)
        return found


def on_floor(function: Callable[..., Any], work: Callable[[Floor], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        floor = Floor(function, **options)
        await work(floor)
        floor.flight.stop()
        floor.workers.cancel()

    run(main())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_at_most_concurrency_handlers_run_at_once_and_all_of_them_are_used(concurrency: int) -> None:
    now = most = 0

    async def handler(payload: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    async def work(floor: Floor) -> None:
        for i in range(5):
            floor.flight.submit([delivery(str(2 * i)), delivery(str(2 * i + 1))], 1)
        assert len(floor.flight) == 10
        await asyncio.sleep(0.5)
        assert floor.flight.running == concurrency
        outcomes = await floor.outcomes(10)
        assert all(outcome.verdict == Done() for outcome in outcomes)
        assert len(floor.flight) == floor.flight.running == 0

    on_floor(handler, work, concurrency=concurrency)
    assert most == concurrency


def test_a_quick_handler_has_one_job_and_the_pump_hears_of_many_at_once() -> None:
    jobs: set[object] = set()

    async def handler(payload: Any) -> None:
        jobs.add(asyncio.current_task())

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(str(i)) for i in range(20)], 1)
        assert len(await floor.outcomes(20)) == 20
        assert len(jobs) == 1
        assert floor.told == 1

    on_floor(handler, work, concurrency=5, prefetch=400)


def sleeper(started: dict[str, float], **naps: float) -> Callable[..., Awaitable[None]]:
    """A handler that says when it starts, and sleeps for what `naps` has for the message."""

    async def handler(payload: Any, message: Message[Any]) -> None:
        started[message.id] = asyncio.get_running_loop().time()
        await asyncio.sleep(naps.get(message.id, 0.0))

    return handler


def test_what_waits_behind_one_that_turns_out_slow_starts_soon() -> None:
    started: dict[str, float] = {}

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(name) for name in ("slow", "a", "b")], 1)
        await floor.outcomes(3)
        assert 0.0 < started["a"] <= 2 * LOOK
        assert 0.0 < started["b"] <= 2 * LOOK

    on_floor(sleeper(started, slow=10.0), work, concurrency=3)


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_what_is_over_is_told_soon_though_the_next_is_slow(first: float) -> None:
    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("first"), delivery("slow")], 1)
        await asyncio.sleep(first + 2 * LOOK)
        assert floor.told == 1
        assert [outcome.id for outcome in floor.flight.collect()] == ["first"]
        await floor.outcomes(1)

    on_floor(sleeper({}, first=first, slow=10.0), work, concurrency=1)


def test_slow_handlers_all_start_at_once_when_they_are_known_to_be() -> None:
    started: dict[str, float] = {}
    naps = {str(i): 1.0 for i in range(30)}

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(str(i)) for i in range(20)], 1)
        await floor.outcomes(20)
        now = asyncio.get_running_loop().time()
        floor.flight.submit([delivery(str(i)) for i in range(20, 30)], 1)
        await floor.outcomes(10)
        assert [started[str(i)] for i in range(20, 30)] == pytest.approx([now] * 10, abs=1e-6)

    on_floor(sleeper(started, **naps), work, concurrency=10)


@pytest.mark.parametrize(
    ("took", "quick"),
    [
        ([], True),
        ([QUICK / 2] * 100, True),
        ([1.0] * 3, True),
        ([1.0] * 10, False),
        ([1.0] * 100 + [0.0] * 50, True),
        ([1.0, 0.0, 0.0, 0.0, 0.0, 0.0] * 20, True),
        ([1.0, 0.0] * 20, False),
    ],
)
def test_a_handler_is_quick_if_nearly_all_of_its_last_attempts_were(took: list[float], quick: bool) -> None:
    pace = Pace()
    for seconds in took:
        pace.took(seconds)
    assert pace.quick is quick


def test_the_pump_is_told_once_for_what_it_has_not_collected() -> None:
    async def handler(payload: Any) -> None: ...

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(str(i)) for i in range(10)], 1)
        await asyncio.sleep(1)
        assert floor.told == 1
        assert len(floor.flight.collect()) == 10
        floor.flight.submit([delivery("more")], 1)
        await asyncio.sleep(1)
        assert floor.told == 2

    on_floor(handler, work)


def test_one_key_goes_in_order_and_never_overlaps_retries_included_while_others_flow() -> None:
    log: list[str] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        log.append(f"+{message.id}")
        await asyncio.sleep(0.1)
        log.append(f"-{message.id}")
        if message.id == "a1" and message.attempt < 3:
            raise ValueError(message.attempt)

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(name, name[0]) for name in ("a1", "a2", "b1", "b2", "a3")], 1)
        outcomes = await floor.outcomes(5)
        assert {outcome.id: outcome.attempt for outcome in outcomes} == {"a1": 3, "a2": 1, "a3": 1, "b1": 1, "b2": 1}

    on_floor(handler, work, ordering="key", retry=Retry(wait_initial=10))
    for key, expected in {"a": "+a1 -a1 +a1 -a1 +a1 -a1 +a2 -a2 +a3 -a3", "b": "+b1 -b1 +b2 -b2"}.items():
        assert " ".join(step for step in log if step[1] == key) == expected
    assert log.index("-b2") < log.index("+a2")


def test_without_ordering_keys_mean_nothing() -> None:
    together = 0

    async def handler(payload: Any) -> None:
        nonlocal together
        together += 1
        await asyncio.sleep(1)

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(str(i), "k") for i in range(3)], 1)
        await asyncio.sleep(0.5)
        assert together == 3
        await floor.outcomes(3)

    on_floor(handler, work, ordering="none")


def test_without_order_every_retry_that_counts_goes_through_the_broker_at_once_or_later() -> None:
    async def handler(payload: Any) -> None:
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a"), delivery("b", **{"mqkit-attempts": "1"})], 1)
        for outcome in await floor.outcomes(2):
            assert isinstance(outcome.verdict, Again)
            assert outcome.verdict.delay == 0
            assert outcome.attempt == 1
        assert floor.repeated == []
        assert floor.noted == []

    on_floor(handler, work, retry=Retry(inline=2, wait_initial=7))


def test_a_message_without_an_id_keeps_the_one_it_is_given_over_its_attempts_in_place() -> None:
    ids = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        ids.append(message.id)
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([Delivery(WireMessage(b"{}", key=b"k"), 1, "orders", "billing")], 1)
        (outcome,) = await floor.outcomes(1)
        ids.append(outcome.id)

    on_floor(handler, work, retry=Retry(attempts=3, inline=2), ordering="key")
    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_what_was_tried_in_place_is_noted_before_it_is_tried_again_and_counts_on_from_the_last_note() -> None:
    attempts: list[tuple[int, float]] = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        attempts.append((message.attempt, asyncio.get_running_loop().time()))
        raise ValueError

    async def work(floor: Floor) -> None:
        note, floor.note = floor.note, lambda: None  # type: ignore[method-assign]
        floor.flight.submit([replace(delivery("a", "k"), spent=2)], 1)
        await asyncio.sleep(60)
        assert [attempt for attempt, _ in attempts] == [3], "it goes on before it is noted"
        assert len(floor.flight) == 1
        note()
        floor.note = note  # type: ignore[method-assign]
        (outcome,) = await floor.outcomes(1)
        assert outcome.attempt == 5
        assert floor.noted == [("a", 3), ("a", 4)]

    on_floor(handler, work, retry=Retry(attempts=5, wait_initial=7, wait_factor=1), ordering="key")
    assert attempts == [(3, 0), (4, 60), (5, 67)], "the wait begins with the failure, not with the note"


def test_an_attempt_that_ends_after_stop_is_noted_before_it_is_given_back() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(1)
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a", "k")], 1)
        await asyncio.sleep(0.5)
        floor.flight.stop()
        await asyncio.sleep(1)
        outcomes = floor.flight.collect()
        assert [outcome.verdict for outcome in outcomes] == [Release()]
        assert floor.noted == [("a", 1)]

    on_floor(handler, work, ordering="key")


def test_what_waits_for_its_note_is_given_back_when_it_stops_and_noted_all_the_same() -> None:
    async def handler(payload: Any) -> None:
        raise ValueError

    async def work(floor: Floor) -> None:
        note, floor.note = floor.note, lambda: None  # type: ignore[method-assign]
        floor.flight.submit([delivery("a", "k")], 1)
        await asyncio.sleep(0.5)
        floor.flight.stop()
        assert [outcome.verdict for outcome in floor.flight.collect()] == [Release()]
        note()
        assert floor.noted == [("a", 1)]
        await asyncio.sleep(100)
        assert len(floor.flight) == 0

    on_floor(handler, work, ordering="key")


def test_a_session_that_is_gone_is_not_asked_to_note() -> None:
    async def handler(payload: Any) -> None:
        raise ValueError

    async def work(floor: Floor) -> None:
        note, floor.note = floor.note, lambda: None  # type: ignore[method-assign]
        floor.flight.submit([delivery("a", "k")], 1)
        await asyncio.sleep(0.5)
        floor.flight.drop()
        note()
        assert floor.noted == []
        assert len(floor.flight) == 0

    on_floor(handler, work, ordering="key")


def stubborn(seconds: float) -> Callable[[Any], None]:
    """A plain function that goes on in its thread, whatever its time-out says."""

    def handler(payload: Any) -> None:
        time.sleep(seconds)

    return handler


def real(function: Callable[..., Any], work: Callable[[Floor], Awaitable[None]], **options: Any) -> None:
    """As on_floor, by the real clock: threads know no other."""

    async def main() -> None:
        floor = Floor(function, AsyncPorts(), **options)
        await work(floor)
        floor.flight.stop()
        floor.workers.cancel()
        floor.ports.close()

    asyncio.run(main())


def test_a_plain_function_over_its_time_out_has_failed_is_stuck_and_keeps_its_place_until_it_ends() -> None:
    async def work(floor: Floor) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        floor.flight.submit([delivery("a"), delivery("b")], 1)
        (first,) = await floor.outcomes(1)
        assert loop.time() - start < 0.3, "told at its time-out"
        assert isinstance(first.verdict, Again)
        assert [outcome.id for outcome in floor.stuck] == ["a"]
        assert floor.flight.running == 0
        (second,) = await floor.outcomes(1)
        assert second.id == "b"
        assert loop.time() - start > 0.4, "two ran at once"

    real(stubborn(0.4), work, concurrency=1, timeout=0.1)


def test_the_next_of_a_key_does_not_start_before_a_stuck_one_has_ended() -> None:
    async def work(floor: Floor) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        floor.flight.submit([delivery("a", "k")], 1)
        await until(lambda: floor.stuck, within=10)
        assert loop.time() - start < 0.3
        assert not floor.flight.collect()
        (outcome,) = await floor.outcomes(1)
        assert loop.time() - start >= 0.4
        assert isinstance(outcome.verdict, DeadLetter)

    real(stubborn(0.4), work, timeout=0.1, ordering="key", retry=Retry(attempts=1))


def test_retries_in_place_are_exhausted_like_any_other() -> None:
    async def handler(payload: Any) -> None:
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a", "k")], 1)
        (outcome,) = await floor.outcomes(1)
        assert isinstance(outcome.verdict, DeadLetter)
        assert outcome.attempt == 3

    on_floor(handler, work, retry=Retry(attempts=3), ordering="key")


def test_a_bug_in_mqkit_itself_is_tried_again_and_spends_no_attempt(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(payload: Any) -> None: ...

    async def work(floor: Floor) -> None:
        sound = floor.handler.process
        broken = 10

        async def process(*args: Any) -> Outcome:
            nonlocal broken
            broken -= 1
            if broken >= 0:
                raise RuntimeError("a bug")
            return await sound(*args)

        class Broken:
            options, name, released = floor.handler.options, "broken", floor.handler.released

        stub: Any = Broken()
        stub.process = process
        ignore: Callable[[Outcome], None] = lambda _: None  # noqa: E731
        floor.flight = InFlight(stub, floor.ports, on_news=lambda: None, on_again=ignore)
        floor.workers = Workers(floor.flight, floor.ports, ignore)
        floor.flight.submit([delivery("a")], 1)
        (outcome,) = await floor.outcomes(1)
        assert outcome.verdict == Done()
        assert outcome.attempt == 1

    on_floor(handler, work, retry=Retry(attempts=1))
    assert "a bug" in caplog.text


def test_stop_gives_back_what_has_not_started_and_lets_the_rest_end() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(1)

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(name, name[0]) for name in ("a1", "a2", "b1", "c1", "c2")], 1)
        await asyncio.sleep(0.5)
        floor.flight.stop()
        outcomes = {outcome.id: outcome for outcome in await floor.outcomes(5)}
        done = {name for name, outcome in outcomes.items() if outcome.verdict == Done()}
        assert done == {"a1", "b1"}
        assert len(floor.flight) == 0

    on_floor(handler, work, ordering="key", concurrency=2)


def test_stop_gives_back_what_waits_in_place_in_the_order_of_its_key() -> None:
    async def handler(payload: Any) -> None:
        raise RetryLater(after=1000)

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(f"a{i}", "a") for i in range(4)], 1)
        await asyncio.sleep(1)
        assert floor.flight.running == 0
        assert len(floor.flight) == 4
        floor.flight.stop()
        outcomes = floor.flight.collect()
        assert [outcome.delivery.token for outcome in outcomes] == ["a0", "a1", "a2", "a3"]
        assert all(outcome.verdict == Release() for outcome in outcomes)
        assert len(floor.flight) == 0

    on_floor(handler, work, ordering="key")


def test_a_failure_after_stop_is_given_back_rather_than_waited_for() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(1)
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a", "k")], 1)
        await asyncio.sleep(0.5)
        floor.flight.stop()
        (outcome,) = await floor.outcomes(1)
        assert outcome.verdict == Release()

    on_floor(handler, work, ordering="key")


def test_cancel_makes_a_release_of_what_runs() -> None:
    async def handler(payload: Any) -> None:
        await asyncio.sleep(1000)

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery(str(i)) for i in range(3)], 1)
        await asyncio.sleep(0.5)
        floor.flight.stop()
        floor.workers.cancel()
        outcomes = await floor.outcomes(3)
        assert [outcome.verdict for outcome in outcomes] == [Release()] * 3
        assert asyncio.get_running_loop().time() < 1

    on_floor(handler, work)


def test_drop_forgets_what_waits_and_repeats_nothing_of_a_session_that_is_gone() -> None:
    calls = []

    async def handler(payload: Any, message: Message[Any]) -> None:
        calls.append(message.id)
        await asyncio.sleep(1)
        raise ValueError

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a1", "a"), delivery("a2", "a")], 1)
        await asyncio.sleep(0.5)
        floor.flight.drop()
        floor.flight.submit([delivery("again", "a")], 2)
        assert calls == ["a1"]
        outcomes = await floor.outcomes(1)
        assert (outcomes[0].id, outcomes[0].epoch) == ("a1", 1)
        await asyncio.sleep(0.5)
        assert calls == ["a1", "again"], "the key waits for the old handler, and not for its retries"
        floor.flight.drop()

    on_floor(handler, work, ordering="key", retry=Retry(wait_initial=60))


def test_outcomes_tell_the_session_they_belong_to() -> None:
    async def handler(payload: Any) -> None: ...

    async def work(floor: Floor) -> None:
        floor.flight.submit([delivery("a")], 1)
        floor.flight.submit([delivery("b")], 2)
        assert {o.id: o.epoch for o in await floor.outcomes(2)} == {"a": 1, "b": 2}

    on_floor(handler, work)
