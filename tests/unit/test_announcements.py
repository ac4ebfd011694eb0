"""Events on their way to listeners, in plain code."""

import logging
import threading

import pytest

from mqkit.announcements import Announcements
from mqkit.daemons import Daemons

PATIENCE = 20.0


def test_calls_are_made_in_their_order_one_at_a_time_and_none_is_lost() -> None:
    announcements, seen = Announcements(Daemons("test")), []
    for number in range(500):
        announcements.put(lambda number=number: seen.append(number))  # type: ignore[misc]
    assert announcements.wait(PATIENCE)
    assert seen == list(range(500))
    announcements.put(lambda: seen.append(-1))
    assert announcements.wait(PATIENCE)
    assert seen[-1] == -1


def test_who_puts_never_waits_and_what_raises_stops_nobody() -> None:
    announcements, gate, seen = Announcements(Daemons("test")), threading.Event(), []

    def fails() -> None:
        gate.wait(PATIENCE)
        raise ValueError("no")

    announcements.put(fails)
    announcements.put(lambda: seen.append("next"))
    assert not announcements.wait(0.001)
    assert len(announcements) == 1
    gate.set()
    assert announcements.wait(PATIENCE)
    assert seen == ["next"]


def test_a_call_that_waits_for_all_does_not_wait_for_itself() -> None:
    announcements, seen = Announcements(Daemons("test")), []
    announcements.put(lambda: seen.append(announcements.wait(PATIENCE)))
    assert announcements.wait(PATIENCE)
    assert seen == [False]


def test_what_waits_for_slow_listeners_is_bounded_the_oldest_goes_and_the_log_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    announcements, seen = Announcements(Daemons("test"), most=10), []
    began, gate = threading.Event(), threading.Event()
    told = range(35)

    def slow() -> None:
        began.set()
        gate.wait(PATIENCE)

    announcements.put(slow)
    assert began.wait(PATIENCE)
    with caplog.at_level(logging.WARNING, "mqkit"):
        for number in told:
            announcements.put(lambda number=number: seen.append(number))  # type: ignore[misc]
        assert len(announcements) == 10
        gate.set()
        assert announcements.wait(PATIENCE)
    assert seen == list(told)[-10:]
    first, last = (record.getMessage() for record in caplog.records)
    assert "10 events wait" in first
    assert last.endswith("too slow: 25")


def test_each_time_that_listeners_are_slow_is_told_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    announcements = Announcements(Daemons("test"), most=1)
    for _ in range(2):
        began, gate = threading.Event(), threading.Event()
        announcements.put(lambda began=began, gate=gate: (began.set(), gate.wait(PATIENCE)))  # type: ignore[misc]
        assert began.wait(PATIENCE)
        announcements.put(lambda: None)
        announcements.put(lambda: None)
        gate.set()
        assert announcements.wait(PATIENCE)
    assert [r.getMessage() for r in caplog.records if "not told," in r.getMessage()] == [
        "events that were not told, as listeners were too slow: 1"
    ] * 2
