"""E5: what was with workers that were lost starts alone, and is a dead letter when it was that too often."""

import asyncio
from functools import partial
from typing import Any

import pytest

from mqkit.alone import ALONE
from mqkit.errors import BackendError, ConfigurationError, LeaseLost
from mqkit.handler import HandlerOptions
from mqkit.message import Message
from mqkit.retry import Retry
from tests.unit.test_pump import Works, pumping
from tests.unit.virtual_time import until

MOMENT = 0.01


class Diary:
    """What a handler did, which takes as long as its payload says."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.attempts: list[int] = []
        self.running = self.most = 0

    async def handle(self, payload: Any, message: Message[Any]) -> None:
        self.started.append(message.id)
        self.attempts.append(message.attempt)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(payload)
        self.running -= 1


def test_suspects_run_one_by_one_each_after_its_beginning_was_kept_and_the_rest_afterwards() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        suspects = [works.backend.give(b"1", id=f"s{i}", redelivered=2) for i in range(3)]
        others = [works.backend.give(b"1", id=f"o{i}", redelivered=1) for i in range(2)]
        await until(lambda: len(diary.started) == 3)
        assert diary.most == 1
        await works.settled(*suspects, *others)
        assert works.backend.of("begun") == suspects

    pumping(diary.handle, work, concurrency=5)
    assert diary.started == ["s0", "s1", "s2", "o0", "o1"]
    assert diary.most == 2
    assert set(diary.attempts) == {1}


def test_what_was_begun_too_often_is_a_dead_letter_and_what_is_behind_it_is_handled() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        poison = works.backend.give(b"0", id="poison", redelivered=7)
        works.backend.begun[poison] = 3
        other = works.backend.give(b"0", id="innocent", redelivered=7)
        await works.settled(poison, other)
        (letter,) = works.backend.of("sent")
        assert letter.dead
        headers = letter.message.headers
        assert (headers["mqkit-reason"], headers["mqkit-attempts"]) == ("worker-lost", "3")
        assert "3 times a worker began with this message alone" in headers["mqkit-error"]

    pumping(diary.handle, work)
    assert diary.started == ["innocent"]


@pytest.mark.parametrize(
    ("attempts", "lost_workers", "before", "dead"),
    [(5, 3, 2, False), (5, 3, 3, True), (2, 3, 1, False), (2, 3, 2, True), (1, 3, 0, False), (1, 3, 1, True),
     (100, 1, 1, True), (100, 9, 8, False)],
)  # fmt: skip
def test_a_lost_worker_costs_an_attempt_too(attempts: int, lost_workers: int, before: int, *, dead: bool) -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        token = works.backend.give(b"0", redelivered=2)
        works.backend.begun[token] = before
        await works.settled(token)

    works = pumping(diary.handle, work, retry=Retry(attempts=attempts), lost_workers=lost_workers)
    assert diary.attempts == ([] if dead else [before + 1])
    assert ("dead-letter" in works.kinds()) is dead


def test_attempts_of_all_kinds_are_added_up() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        token = works.backend.give(b"0", redelivered=2, spent=2, returned=True, headers={"mqkit-attempts": "4"})
        works.backend.begun[token] = 1
        await works.settled(token)

    pumping(diary.handle, work, ordering="key", retry=Retry(attempts=20))
    assert diary.attempts == [8]


def test_while_a_beginning_cannot_be_kept_others_are_handled_and_it_is_tried_again() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        works.backend.refuse_begin.extend(BackendError("another has begun one", retryable=True) for _ in range(3))
        suspect = works.backend.give(b"0", id="suspect", redelivered=2)
        others = [works.backend.give(b"0", id="other") for _ in range(2)]
        await works.settled(*others)
        assert diary.started == ["other", "other"]
        await works.settled(suspect)

    pumping(diary.handle, work)


def test_what_belongs_to_another_by_now_is_not_begun() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        works.backend.refuse_begin.append(LeaseLost("taken away"))
        works.backend.lost_leases.add(works.backend.give(b"0", id="suspect", redelivered=2))
        await works.settled(works.backend.give(b"0", id="other"))

    works = pumping(diary.handle, work)
    assert diary.started == ["other"]
    assert "lease-lost" in works.kinds()


def test_a_suspect_waits_for_what_runs_but_not_for_ever_and_others_wait_for_it_no_longer() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        tokens = [works.backend.give(b"30", id="long")]
        await until(lambda: diary.started == ["long"])
        tokens += [works.backend.give(b"30", id="suspect", redelivered=2), works.backend.give(b"0", id="other")]
        await asyncio.sleep(ALONE - 2 * MOMENT)
        assert diary.started == ["long"]
        await asyncio.sleep(4 * MOMENT)
        assert diary.started == ["long", "suspect"]
        await asyncio.sleep(ALONE - 6 * MOMENT)
        assert diary.started == ["long", "suspect"]
        await asyncio.sleep(8 * MOMENT)
        assert diary.started == ["long", "suspect", "other"]
        await works.settled(*tokens)

    pumping(diary.handle, work)


def test_the_next_suspect_begins_when_the_last_has_lived_long_enough() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        tokens = [works.backend.give(b"30", id=str(i), redelivered=2) for i in range(2)]
        await until(lambda: len(diary.started) == 2, within=4 * ALONE)
        await works.settled(*tokens)

    pumping(diary.handle, work)
    assert diary.most == 2


def test_order_by_key_is_kept() -> None:
    diary = Diary()

    async def work(works: Works) -> None:
        give = works.backend.give
        tokens = [
            give(b"1", id=f"{key}{i}", key=key.encode(), redelivered=2 * (i < 2)) for i in range(4) for key in "ab"
        ]
        await works.settled(*tokens)

    pumping(diary.handle, work, ordering="key")
    for key in "ab":
        assert [name for name in diary.started if name[0] == key] == [f"{key}{i}" for i in range(4)]


def test_a_suspect_that_fails_in_place_begins_again() -> None:
    attempts: list[int] = []

    async def fail_once(_: Any, message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            raise ValueError("no")

    async def work(works: Works) -> None:
        token = works.backend.give(key=b"k", redelivered=2)
        await works.settled(token)
        facts = [kind for kind, what in works.backend.log if kind != "opened" and what in (token, (token, 1))]
        assert facts == ["begun", "noted", "begun", "done"]

    pumping(fail_once, work, ordering="key", retry=Retry(wait_initial=1))


@pytest.mark.parametrize("running", [True, False])
def test_what_has_not_started_when_the_pump_stops_is_given_back(*, running: bool) -> None:
    async def work(works: Works) -> None:
        if running:
            works.backend.give(b"1", id="long")
            await until(lambda: works.pump.running)
        works.backend.give(b"0", id="suspect", redelivered=2)
        await asyncio.sleep(0)

    diary = Diary()
    works = pumping(diary.handle, work)
    assert "suspect" not in diary.started
    assert not works.backend.of("begun") or works.backend.of("release")


def test_a_session_that_the_broker_ended_is_not_held_against_the_message() -> None:
    """Its process lives on, and says so when the message comes again."""
    diary = Diary()

    async def work(works: Works) -> None:
        def reached(calls: int) -> bool:
            return len(diary.started) == calls

        token = works.backend.give(b"30", id="suspect", redelivered=2)
        for loss in range(5):
            await until(partial(reached, loss + 1))
            await asyncio.sleep(1)
            works.backend.lose()
        await works.settled(token)

    works = pumping(diary.handle, work, retry=Retry(attempts=2), concurrency=10)
    assert "dead-letter" not in works.kinds()
    assert set(diary.attempts) == {1}


def test_a_process_that_was_absent_when_it_lost_its_session_is_counted() -> None:
    """As one whose handler blocked the event loop: the clock went on, and nobody heard from the broker."""
    attempts: list[int] = []

    async def work(works: Works) -> None:
        works.backend.give(b"0", id="blocks", redelivered=2)
        await until(lambda: "dead-letter" in works.kinds(), within=1000)

    blocked: list[Works] = []

    async def block(_: Any, message: Message[Any]) -> None:
        attempts.append(message.attempt)
        blocked[0].ports.loop.selector.elapsed += 50  # type: ignore[attr-defined]  # the virtual loop's
        blocked[0].backend.lose()
        await asyncio.sleep(1)

    async def known(works: Works) -> None:
        blocked.append(works)
        await work(works)

    pumping(block, known, retry=Retry(attempts=9))
    assert attempts == [1, 2, 3]


def test_the_option_is_a_number_of_workers() -> None:
    with pytest.raises(ConfigurationError, match="lost_workers"):
        HandlerOptions(lost_workers=0)
