"""What a tally counts: each order once, from the end of the warm-up to the last."""

import pytest

from mqkit.bench import tally as module
from mqkit.bench.tally import Tally, percentile


def test_each_order_counts_once_and_repetitions_are_told() -> None:
    ended: list[str] = []
    tally = Tally(3, ended=lambda: ended.append("now"))
    for number in (0, 1, 1, 0):
        tally.note(number)
    assert ended == []
    tally.note(2)
    tally.note(2)
    assert ended == ["now"]
    found = tally.result()
    assert (found.handled, found.repeated) == (3, 3)
    assert found.measured == 2, "the first call only starts the clocks"


def test_the_warm_up_is_handled_and_not_measured() -> None:
    tally = Tally(10, warm=4)
    for number in range(10):
        tally.note(number)
    found = tally.result()
    assert (found.handled, found.measured) == (10, 5)


def test_latencies_are_those_of_orders_that_say_when_they_were_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqkit.bench.tally.time.monotonic", lambda: 100.0)
    tally = Tally(4, warm=1)
    tally.note(0, 50.0)
    tally.note(1, 97.0)
    tally.note(2, 99.0)
    tally.note(3)
    assert tally.result().latencies == (1.0, 3.0)


def test_a_deadline_ends_it_and_what_comes_later_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("mqkit.bench.tally.time.monotonic", lambda: now)
    monkeypatch.setattr(module, "LOOK", 2)
    ended: list[str] = []
    tally = Tally(100, ended=lambda: ended.append("now"), seconds=5.0)
    for number in range(6):
        now = float(number)
        tally.note(number)
    assert ended == []
    now = 6.0
    for number in range(6, 12):
        tally.note(number)
    assert ended == ["now"]
    found = tally.result()
    assert (found.handled, found.measured) == (12, 7)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_percentiles(share: float, expected: float) -> None:
    assert percentile((1.0, 2.0, 3.0, 4.0), share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile((), 0.5) is None
