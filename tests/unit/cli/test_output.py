"""What goes to a terminal or a pipe."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.cli.output import body_fields, header_text, line, put, readable, shown, table
from mqkit.legible import harmless


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left_of_any_text(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in harmless(text))


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], include_characters=" ")))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    if text.isprintable():
        assert harmless(text) == text


@given(st.binary())
def test_every_body_can_be_shown_and_written_as_json(body: bytes) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in readable(body).plain)
    json.dumps(body_fields(body))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "-"),
        ("", "-"),
        (0, "0"),
        (1234567, "1,234,567"),
        (True, "yes"),
        (False, "no"),
        ("a\nb", "a\\nb"),
        ("a\tb\r", "a\\tb\\r"),
        ("\x1b[1m", "\\x1b[1m"),
        ("caf\u00e9", "caf\u00e9"),
    ],
)
def test_a_cell_is_one_line(value: object, cell: str) -> None:
    assert shown(value) == cell


@pytest.mark.parametrize("escape", ["\\u001b[2J", "\\u009b2J", "\\u202e", "\\u2028"])
def test_what_json_escapes_stays_escaped_when_a_terminal_would_obey_it(escape: str) -> None:
    shown = readable(f'{{"a": "{escape}"}}'.encode()).plain
    assert escape in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_header_is_one_line() -> None:
    assert header_text("a\nforged: b") == "a\\nforged: b"


def test_a_line_of_json_survives_keys_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    line({"key": "\udcff", "header": b"\xff", "parts": (1, {2})})
    assert json.loads(capsys.readouterr().out) == {"key": "\udcff", "header": "\\xff", "parts": [1, [2]]}


def test_bytes_in_a_header_are_shown_as_text() -> None:
    assert header_text(b"caf\xc3\xa9 \xff") == "caf\u00e9 \\xff"


def test_numbers_stand_at_the_right_and_nothing_is_cut_off_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = table("name", "count", numbers=["count"], long=["name"])
    assert [column.justify for column in found.columns] == ["left", "right"]
    found.add_row("x" * 500, "7")
    put(found)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["name", "count"], ["x" * 500, "7"]]
