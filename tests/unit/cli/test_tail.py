"""`mqkit tail` shows whatever strangers send, a message in a line of its own."""

import json
from typing import Any

import pytest

from mqkit.cli.tail import _as_line, _as_text
from mqkit.message import Delivery, WireMessage

FORGED = "x\n12:00:00 INFO done\x1b[2J\u202e"


def delivery(**headers: Any) -> Delivery:
    return Delivery(WireMessage(b"{}", headers, b"k\n\x1b"), 1, "orders", "tail")


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2024-01-01T00:00:00Z", "?"],
)
def test_any_time_of_a_stranger_can_be_shown(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    _as_text(delivery(ce_id="first", ce_time=time))
    shown = capsys.readouterr().out
    assert "first" in shown or "unreadable envelope" in shown
    _as_line(delivery(ce_id="first", ce_time=time))
    assert json.loads(capsys.readouterr().out)["topic"] == "orders"


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "tenant", "ce_time", "ce_specversion"])
def test_nothing_of_a_stranger_begins_a_line_or_moves_the_cursor(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _as_text(delivery(**{name: FORGED}))
    shown = capsys.readouterr().out
    assert not [line for line in shown.splitlines() if line.startswith("12:00:00 INFO")]
    assert all(c.isprintable() or c == "\n" for c in shown)
