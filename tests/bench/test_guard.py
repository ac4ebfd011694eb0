"""The steps that mqkit takes for a message have not risen by more than the limit over what is committed in guard.json."""

import pytest

from tests.bench.guard import CASES, LIMIT, PYTHON, TRIES, committed, measure, risen
from tests.bench.steps import counting

HEAVY = 200
"""Steps more for each message: about as many as mqkit takes in memory."""


def _url(broker: str, request: pytest.FixtureRequest) -> str:
    if broker == "memory":
        return "memory://"
    url: str = request.getfixturevalue(f"{broker}_broker").url
    return url


@pytest.mark.parametrize("case", CASES)
def test_a_message_takes_no_more_steps_than_it_did(case: str, request: pytest.FixtureRequest) -> None:
    figure = committed().get(case)
    if figure is None:
        pytest.skip(f"no figure for Python {PYTHON}: python -m tests.bench.guard --write makes one")
    url = _url(case.partition("/")[0], request)
    found = risen(figure, lambda: measure(case, url))
    assert not found, (
        f"{case}: {min(found):.1f} steps for a message, and {figure:.1f} are committed. Find out why "
        f"(py-spy, tests/bench/PROFILE.md), or commit the new figure: python -m tests.bench.guard --write"
    )


@pytest.mark.parametrize("case", ["memory/publish", "memory/consume"])
def test_the_guard_barks(case: str) -> None:
    figure = committed().get(case)
    if figure is None:
        pytest.skip(f"no figure for Python {PYTHON}")
    assert measure(case, "memory://", HEAVY) > LIMIT * figure


def test_one_run_below_the_limit_is_enough_and_no_run_is_enough_to_blame() -> None:
    runs = iter([2.0, 1.16, 1.15, 9.0])
    assert risen(1.0, lambda: next(runs)) == []
    assert next(runs) == 9.0
    assert risen(1.0, lambda: 1.16) == [1.16] * TRIES


def test_there_is_a_figure_for_every_case() -> None:
    assert set(committed()) in (set(CASES), set())


def test_steps_are_lines_and_calls_of_mqkit_alone_and_always_the_same_number() -> None:
    from mqkit.durations import seconds

    def once() -> int:
        with counting() as steps:
            before = steps.taken()
            seconds(1.5, option="delay")
            return steps.taken() - before

    def elsewhere() -> int:
        with counting() as steps:
            before = steps.taken()
            sorted(str(number) for number in range(100))
            return steps.taken() - before

    assert once() == once() > 2
    assert elsewhere() == 0
