"""That the suite itself is whole: every covered promise has a test, and no test is without a promise."""

from collections.abc import Iterator

from mqkit import App, AsyncApp
from mqkit.backend import Capabilities
from mqkit.testing.colours import DRIVERS
from mqkit.testing.conformance import Conformance, Harness
from mqkit.testing.harness import ABILITIES
from mqkit.testing.promises import BY_NUMBER, COLOURS, MARK, PROMISES


def marks() -> Iterator[tuple[str, tuple[str, ...], frozenset[str]]]:
    for name in dir(Conformance):
        if name.startswith("test_"):
            (mark,) = [m for m in getattr(Conformance, name).pytestmark if m.name == MARK]
            yield name, mark.args, mark.kwargs["needs"]


def test_every_covered_promise_has_a_test() -> None:
    tested = {number for _, numbers, _ in marks() for number in numbers}
    assert tested == {promise.number for promise in PROMISES if promise.covered}


def test_every_need_is_a_capability_or_an_ability() -> None:
    known = set(Capabilities.__slots__) | set(ABILITIES)
    assert {need for _, _, needs in marks() for need in needs} <= known
    assert {need for promise in PROMISES for need in promise.needs} <= known


def test_both_apps_are_colours_and_each_can_what_its_abilities_say() -> None:
    assert set(COLOURS) == set(DRIVERS) == {App.__name__, AsyncApp.__name__}
    assert frozenset().union(*COLOURS.values()) <= set(ABILITIES)


def test_every_promise_can_be_tested_somewhere_without_a_harness_of_many_abilities() -> None:
    for promise in PROMISES:
        if promise.covered and promise.number != "B8":
            needs = [needs for _, numbers, needs in marks() if promise.number in numbers]
            assert any(not need & set(ABILITIES) for need in needs), promise.number


def test_numbers_are_those_of_the_contract_in_order() -> None:
    assert list(BY_NUMBER) == [promise.number for promise in PROMISES]
    counts = {"A": 8, "B": 11, "C": 8, "D": 8, "E": 6, "F": 4, "G": 2, "H": 3, "I": 3, "J": 2, "K": 2}
    assert list(BY_NUMBER) == [f"{room}{i}" for room, count in counts.items() for i in range(1, count + 1)]


def test_a_harness_lacks_what_neither_it_nor_its_backend_has() -> None:
    class Plain(Harness):
        name = "plain"

    class Breakable(Plain):
        abilities = frozenset({"interrupt"})

    needs = frozenset({"interrupt", "persistent", "ordering"})
    assert Plain("memory://suite").lacking(needs) == {"interrupt", "persistent"}
    assert Breakable("memory://suite").lacking(needs) == {"persistent"}
