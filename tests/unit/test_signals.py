"""What a handler may raise on purpose."""

from datetime import timedelta
from typing import Any

import pytest

from mqkit.durations import seconds
from mqkit.errors import MqkitError
from mqkit.signals import Reject, RetryLater, Signal, Skip


def test_signals_are_no_errors_of_mqkit() -> None:
    assert not issubclass(Signal, MqkitError)
    assert issubclass(Reject, Signal)
    assert issubclass(Skip, Signal)
    assert issubclass(RetryLater, Signal)


def test_they_say_why() -> None:
    assert str(Reject("bad")) == "bad"
    assert str(Skip()) == ""
    assert str(RetryLater(after=1.5)) == "retry after 1.5 s"
    assert str(RetryLater("busy", after=timedelta(minutes=1))) == "busy"
    assert RetryLater(after=timedelta(minutes=1)).after == 60


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_time_that_makes_no_sense_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="after must be a length of time"):
        RetryLater(after=after)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 1), (0.5, 0.5), (timedelta(hours=1), 3600)])
def test_times_are_seconds_or_a_timedelta(value: Any, expected: float) -> None:
    assert seconds(value, option="x") == expected
