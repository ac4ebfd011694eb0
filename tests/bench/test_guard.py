"""mqkit's CPU for a message has not risen by more than a quarter over what is committed in guard.json."""

import pytest

from tests.bench.guard import CASES, LIMIT, PYTHON, TRIES, committed, measure, risen

HEAVY = 1_500
"""Turns of a loop for each message: they cost about as much again as mqkit does."""


def _url(broker: str, request: pytest.FixtureRequest) -> str:
    if broker == "memory":
        return "memory://"
    url: str = request.getfixturevalue(f"{broker}_broker").url
    return url


@pytest.mark.parametrize("case", CASES)
def test_a_message_costs_no_more_than_it_did(case: str, request: pytest.FixtureRequest) -> None:
    figure = committed().get(case)
    if figure is None:
        pytest.skip(f"no figure for Python {PYTHON}: python -m tests.bench.guard --write makes one")
    url = _url(case.partition("/")[0], request)
    found = risen(figure, lambda: measure(case, url))
    assert not found, (
        f"{case}: {min(found):.3f} loops for a thousand messages, and {figure:.3f} are committed. Find out why "
        f"(py-spy, tests/bench/PROFILE.md), or commit the new figure: python -m tests.bench.guard --write"
    )


@pytest.mark.parametrize("case", ["memory/publish", "memory/consume"])
def test_the_guard_barks(case: str) -> None:
    figure = committed().get(case)
    if figure is None:
        pytest.skip(f"no figure for Python {PYTHON}")
    assert measure(case, "memory://", HEAVY) > LIMIT * figure


def test_one_quiet_run_is_enough_and_no_run_is_enough_to_blame() -> None:
    runs = iter([2.0, 1.3, 1.2, 9.0])
    assert risen(1.0, lambda: next(runs)) == []
    assert next(runs) == 9.0
    assert risen(1.0, lambda: 1.26) == [1.26] * TRIES


def test_there_is_a_figure_for_every_case() -> None:
    assert set(committed()) in (set(CASES), set())
