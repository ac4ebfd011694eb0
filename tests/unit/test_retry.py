"""The retry policy: tables and properties, no clock."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.retry import Retry, decide, failure
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.verdict import Again, DeadLetter, Done

waits = st.floats(0, 1e6)
policies = st.builds(
    Retry,
    attempts=st.integers(1, 50),
    wait_initial=waits,
    wait_max=waits,
    wait_factor=st.floats(1, 1e3),
    wait_jitter=st.floats(0, 1),
    inline=st.integers(0, 10),
)


@pytest.mark.parametrize(
    ("policy", "attempt", "draw", "expected"),
    [
        (Retry(), 1, 0.0, 1),
        (Retry(), 2, 0.0, 2),
        (Retry(), 6, 0.0, 32),
        (Retry(), 7, 0.0, 60),
        (Retry(), 10_000, 0.0, 60),
        (Retry(wait_factor=1), 9, 0.0, 1),
        (Retry(wait_initial=timedelta(minutes=1), wait_max=timedelta(hours=1)), 2, 0.0, 120),
        (Retry(wait_jitter=0.1), 1, 1.0, 1.1),
        (Retry(wait_jitter=0.1), 7, 0.5, 63),
        (Retry(inline=2), 2, 0.0, 0),
        (Retry(inline=2), 3, 0.0, 1),
        (Retry(inline=2), 4, 0.0, 2),
        (Retry(wait_initial=0), 3, 0.0, 0),
    ],
)
def test_how_long_to_wait(policy: Retry, attempt: int, draw: float, expected: float) -> None:
    assert policy.wait(attempt, draw) == pytest.approx(expected)


WRONG: list[dict[str, Any]] = [
    {"attempts": "5"}, {"attempts": 2.5}, {"attempts": True}, {"attempts": float("nan")}, {"inline": "1"},
    {"wait_factor": "2"}, {"wait_jitter": None},
]  # fmt: skip


@pytest.mark.parametrize("options", WRONG)
def test_an_option_of_the_wrong_type_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(options))} is a (whole )?number, not "):
        Retry(**options)
    assert Retry(attempts=float("inf")).covers(ValueError())  # type: ignore[arg-type] # for ever


@given(policies, st.integers(1, 10**6), st.floats(0, 1))
def test_a_wait_is_never_shorter_than_without_jitter_nor_longer_than_wait_max_with_it(
    policy: Retry, attempt: int, draw: float
) -> None:
    assert isinstance(policy.wait_max, float)
    assert 0 <= policy.wait(attempt) <= policy.wait(attempt, draw) <= policy.wait_max * (1 + policy.wait_jitter)


@given(policies, st.integers(1, 1000))
def test_waits_never_become_shorter(policy: Retry, attempt: int) -> None:
    assert policy.wait(attempt) <= policy.wait(attempt + 1)


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (Skip(), 99, Done(skipped=True)),
        (Reject("no"), 1, "rejected"),
        (Reject("no"), 99, "rejected"),
        (ValueError(), 1, 1.0),
        (ValueError(), 2, 2.0),
        (ValueError(), 3, "exhausted"),
        (ValueError(), 99, "exhausted"),
        (UnicodeError(), 1, 1.0),
        (KeyError(), 1, "not-retryable"),
        (RetryLater(after=7), 1, 7.0),
        (RetryLater(after=timedelta(days=1)), 2, 86_400.0),
        (RetryLater(after=7), 3, "exhausted"),
        (TimeoutError(), 1, "not-retryable"),
    ],
)
def test_what_becomes_of_an_error(error: Exception, attempt: int, expected: object) -> None:
    verdict = decide(Retry(attempts=3, on=ValueError), error, attempt)
    if isinstance(verdict, DeadLetter):
        assert verdict.reason == expected
    elif isinstance(verdict, Again):
        assert verdict.delay == expected
        assert verdict.counted
    else:
        assert verdict == expected


@given(policies, st.integers(1, 100))
def test_attempts_are_bounded_and_inline_ones_do_not_wait(policy: Retry, attempt: int) -> None:
    verdict = decide(policy, ValueError(), attempt)
    assert isinstance(verdict, DeadLetter if attempt >= policy.attempts else Again)
    if isinstance(verdict, Again):
        assert verdict.delay == 0 or attempt > policy.inline
        assert verdict.delay == policy.wait(attempt)


def test_which_errors_are_worth_it_may_be_told_by_a_function() -> None:
    policy = Retry(on=lambda error: "soon" in str(error))
    assert isinstance(decide(policy, ValueError("soon"), 1), Again)
    assert isinstance(decide(policy, ValueError("never"), 1), DeadLetter)


def test_a_function_that_fails_itself_does_not_cost_the_message_its_retries(caplog: pytest.LogCaptureFixture) -> None:
    def on(error: Exception) -> bool:
        raise RuntimeError("a bug in on")

    assert isinstance(decide(Retry(on=on), ValueError(), 1), Again)
    assert isinstance(decide(Retry(on=on), ValueError(), 5), DeadLetter)
    assert "a bug in on" in caplog.text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"attempts": 0}, "attempts"),
        ({"wait_initial": -1}, "wait_initial"),
        ({"wait_initial": float("nan")}, "wait_initial"),
        ({"wait_max": float("inf")}, "wait_max"),
        ({"wait_max": timedelta(seconds=-1)}, "wait_max"),
        ({"wait_factor": 0.5}, "wait_factor"),
        ({"wait_jitter": 1.5}, "wait_jitter"),
        ({"inline": -1}, "inline"),
        ({"on": [ValueError]}, "on is"),
        ({"on": (ValueError, "KeyError")}, "on is"),
        ({"on": int}, "on is"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Retry(**options)


class Mean(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not telling")


@pytest.mark.parametrize(
    "error",
    [Mean(), ValueError("x" * 10**6), ValueError("\0 \ud800"), Exception(), KeyError("é")],
    ids=lambda e: type(e).__name__,
)
def test_a_failure_is_bounded_text_that_every_broker_can_carry(error: Exception) -> None:
    try:
        raise error
    except Exception as raised:
        told = failure(raised)
    for text in (told.error, told.text, told.traceback):
        assert "\0" not in text
        assert len(text.encode()) < 30_000
    assert told.traceback


def test_a_failure_names_its_type_as_people_write_it() -> None:
    assert failure(ValueError("no")).error == "ValueError"
    assert failure(Mean()).error == f"{__name__}.Mean"
    assert failure(ValueError("no")).text == "no"
