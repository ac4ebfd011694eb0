"""The conformance suite in a short form: of each promise one test, for each set of capabilities that its tests need."""

from collections.abc import Iterable

import pytest

from mqkit.testing.promises import MARK


def split(items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The items that the short form runs, and those that it leaves out. Tests that prove no promise all run."""
    seen: set[object] = set()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        proved = {
            (item.path, item.parent and item.parent.name, _colour(item), number, mark.kwargs["needs"])
            for mark in item.iter_markers(MARK)
            for number in mark.args
        }
        (left_out if proved and proved <= seen else kept).append(item)
        seen |= proved
    return kept, left_out


def _colour(item: pytest.Item) -> object:
    call = getattr(item, "callspec", None)
    return call and call.params.get("colour")
