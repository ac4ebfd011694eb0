"""Names and delay steps, as data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.topology import (
    STEPS,
    Difference,
    Finding,
    TopicNeed,
    Topology,
    dead_name,
    delay_name,
    group_name,
    left_over,
    retry_name,
    step,
)

YEAR = 365 * 86_400.0


def way(delay: float) -> list[float]:
    """The steps that a message with this delay takes, when each is exact."""
    steps = []
    while delay > 1e-6:
        steps.append(step(delay))
        delay -= steps[-1]
    return steps


@pytest.mark.parametrize(
    ("delay", "steps"),
    [
        (0.2, [0.5]),
        (0.5, [0.5]),
        (1, [1]),
        (1.2, [1, 0.5]),
        (1.6, [2]),
        (4, [2, 2]),
        (4.6, [5]),
        (8, [5, 2, 1]),
        (60, [60]),
        (90, [60, 15, 15]),
        (7200, [3600, 3600]),
    ],
)
def test_the_steps_of_a_delay(delay: float, steps: list[float]) -> None:
    assert way(delay) == steps


@given(st.floats(0.001, YEAR))
def test_a_delay_in_steps_is_never_shorter_than_asked_and_at_most_half_of_what_is_allowed_longer(delay: float) -> None:
    total = sum(way(delay))
    assert total >= delay - 1e-5
    assert total - delay <= max(1.0, delay / 10) / 2 + 1e-5


@given(st.floats(0.001, YEAR))
def test_a_delay_takes_few_steps(delay: float) -> None:
    assert len(way(delay)) <= delay // 3600 + 24


@given(st.floats(0, YEAR))
def test_every_step_is_one_that_exists(delay: float) -> None:
    assert step(delay) in STEPS


@given(st.floats(0.001, 3600))
def test_a_step_on_the_way_is_never_longer_than_what_is_left_but_for_the_last(delay: float) -> None:
    steps = way(delay)
    assert sum(steps[:-1]) < delay


def test_names() -> None:
    assert group_name("a.b", "g") == "a.b.g"
    assert dead_name("a.b", "g") == "a.b.g.dlq"
    assert retry_name("a", "g", 0.5) == "a.g.retry.500ms"
    assert delay_name("a", 3600.0) == "a.delay.3600000ms"
    assert len({retry_name("a", "g", each) for each in STEPS}) == len(STEPS)


def test_a_topic_that_is_needed_twice_has_the_groups_and_options_of_both() -> None:
    merged = Topology((TopicNeed("b", frozenset("x"), (1,)),)).including(
        [TopicNeed("a"), TopicNeed("b", frozenset("y"), (1, 2))]
    )
    assert merged.topics == (TopicNeed("a"), TopicNeed("b", frozenset("xy"), (1, 2)))
    assert merged.including(merged.topics) == merged


def test_a_finding_has_one_line_for_each_difference() -> None:
    finding = Finding("queue", "a.g", "differs", differences=(Difference("x-type", "quorum", "classic", "delete it"),))
    assert finding.lines() == ["queue a.g: x-type is classic, wanted quorum; delete it"]


@given(st.floats(0.001, 100_000))
def test_step_by_step_no_more_and_no_less_is_waited_than_was_asked_for(delay: float) -> None:
    left, waited = delay, 0.0
    while left > 0:
        waited += step(left)
        left = left_over(left, exact=False)
    assert delay - 1e-6 <= waited <= delay + max(1.0, 0.1 * delay)


def test_a_broker_that_waits_for_the_whole_leaves_nothing_over() -> None:
    assert left_over(12345.0, exact=True) == 0
