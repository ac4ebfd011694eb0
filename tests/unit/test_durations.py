"""Lengths of time: which are taken, and how those that make no sense are told."""

from datetime import timedelta
from math import inf, nan
from typing import Any

import pytest

from mqkit import AsyncApp, ConfigurationError, Retry, RetryLater
from mqkit.durations import LONGEST, bounded, seconds


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (1.5, 1.5), (timedelta(minutes=2), 120.0), (LONGEST, LONGEST)]
)
def test_numbers_are_seconds(value: Any, expected: float) -> None:
    assert seconds(value, option="delay") == expected


@pytest.mark.parametrize("value", [-1, nan, inf, -inf, timedelta(seconds=-1)])
def test_what_is_no_length_of_time_is_refused_by_the_option_s_name(value: Any) -> None:
    with pytest.raises(ValueError, match="delay must be a length of time"):
        seconds(value, option="delay")


@pytest.mark.parametrize("value", [1_795_604_904_659.0, 1e300, timedelta.max])
def test_what_is_longer_than_anybody_waits_is_taken_for_the_mistake_that_it_is(value: Any) -> None:
    with pytest.raises(ValueError, match="are these milliseconds, or a point in time"):
        RetryLater(after=value)
    with pytest.raises(ValueError, match="wait_max"):
        Retry(wait_max=value)


@pytest.mark.parametrize("factor", [nan, inf, 0.9])
def test_a_factor_by_which_no_wait_can_be_told_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="wait_factor"):
        Retry(wait_factor=factor)


@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "-1"])
@pytest.mark.parametrize("name", ["MQKIT_GRACE", "MQKIT_PUBLISH_TIMEOUT", "MQKIT_CONNECT_TIMEOUT"])
def test_settings_take_what_options_take(name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name.removeprefix("MQKIT_").lower()):
        AsyncApp("memory://")


@pytest.mark.parametrize(
    ("delay", "expected"), [(-1.0, 0.0), (nan, 0.0), (0.5, 0.5), (inf, LONGEST), (1e300, LONGEST), (-inf, 0.0)]
)
def test_what_comes_from_elsewhere_is_bounded(delay: float, expected: float) -> None:
    assert bounded(delay) == expected
