"""The books of `mqkit bench`: what the broker counts must be what was confirmed, or handled."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mqkit.backend import Counts
from mqkit.bench import trial
from mqkit.bench.trial import GROUP, new_topic
from mqkit.errors import ConnectionLost, MqkitError


class Asked:
    """What of an app the books ask."""

    def __init__(self, *answers: Counts | MqkitError) -> None:
        self._answers = iter(answers)
        self._last: Counts | MqkitError = Counts(0, 0, 0, 0)

    async def inspect(self, topic: object, group: str) -> Counts:
        assert group == GROUP
        self._last = next(self._answers, self._last)
        if isinstance(self._last, MqkitError):
            raise self._last
        return self._last


def books(expected: int, answers: Sequence[Counts | MqkitError], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(trial, "PATIENCE", 0.15)
    app: Any = Asked(*answers)
    return asyncio.run(trial._books(app, new_topic(200), expected))


@pytest.mark.parametrize(
    "counts",
    [Counts(3, 2, 0, 0), Counts(None, None, 1, 1, 3), Counts(5, None, None, None), Counts(None, None, None, None)],
)
def test_they_balance(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert books(5, [counts], monkeypatch) == ""


def test_the_broker_has_a_moment_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Counts | MqkitError] = [Counts(0, 0, 0, 0), ConnectionLost("not yet"), Counts(5, 0, 0, 0)]
    assert books(5, late, monkeypatch) == ""


def test_they_do_not_balance(monkeypatch: pytest.MonkeyPatch) -> None:
    assert books(5, [Counts(4, 0, 0, 0)], monkeypatch) == ("5 messages should be left to handle, and the broker says 4")
    assert "says 1" in books(0, [Counts(0, 0, 0, 1)], monkeypatch), "a dead letter is not handled"


def test_a_broker_that_stays_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionLost, match="gone"):
        books(5, [ConnectionLost("gone")], monkeypatch)
