"""The log as people and as programs read it."""

import json
import logging

from mqkit.cli.logs import JSONLines, Readable


def record(text: str, *args: object, **extra: object) -> logging.LogRecord:
    error = (ValueError, ValueError("bad"), None) if extra.pop("failed", False) else None
    found = logging.LogRecord("mqkit", logging.WARNING, __file__, 1, text, args, error)
    vars(found).update(extra)
    return found


def test_a_json_line_holds_the_extra_fields_beside_the_standard_ones() -> None:
    found = json.loads(JSONLines().format(record("retry %s", "x\ny", topic="purchases", attempt=2)))
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "mqkit",
        "message": "retry x\ny",
        "topic": "purchases",
        "attempt": 2,
    }


def test_an_error_stays_in_the_one_json_line() -> None:
    text = JSONLines().format(record("no", failed=True))
    assert "\n" not in text
    assert "ValueError: bad" in json.loads(text)["traceback"]


def test_colour_is_only_where_it_was_asked_for() -> None:
    assert "\x1b[33mWARNING\x1b[0m" in Readable(colour=True).format(record("careful"))
    plain = Readable(colour=False).format(record("careful", failed=True))
    assert "\x1b" not in plain
    assert "WARNING mqkit  careful\nValueError: bad" in plain
