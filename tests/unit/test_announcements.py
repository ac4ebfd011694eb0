"""Events on their way to listeners, in plain code."""

import threading

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
