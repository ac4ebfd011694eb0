"""The log as people and as programs read it."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO

from mqkit.cli.logs import DRIVERS, JSONLines, Readable, leave_to_service, of_service, own_warnings


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


@contextmanager
def begun() -> Generator[logging.Logger]:
    """The root logger of a process that has just begun to run a service."""
    root = logging.getLogger()
    names = (*DRIVERS, "mqkit")
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in names}
    root.handlers[:] = []
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
    own_warnings()
    leave_to_service()
    try:
        yield root
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        for name, level in before[2].items():
            logging.getLogger(name).setLevel(level)


def test_a_service_that_says_nothing_is_logged_and_drivers_are_silent() -> None:
    with begun() as root:
        of_service(None, as_json=False)
        assert (root.level, [type(handler.formatter) for handler in root.handlers]) == (logging.INFO, [Readable])
        assert {logging.getLogger(name).level for name in DRIVERS} == {logging.CRITICAL}


def test_what_a_service_configured_holds() -> None:
    own = logging.StreamHandler(StringIO())
    with begun() as root:
        logging.basicConfig(level="ERROR", handlers=[own])
        logging.getLogger(DRIVERS[0]).setLevel(logging.DEBUG)
        of_service(None, as_json=True)
        assert (root.handlers, root.level, logging.getLogger("mqkit").level) == ([own], logging.ERROR, logging.NOTSET)
        assert logging.getLogger(DRIVERS[0]).level == logging.DEBUG
        of_service("debug", as_json=True)
        assert (root.handlers, root.level, logging.getLogger("mqkit").level) == ([own], logging.ERROR, logging.DEBUG)


def test_a_level_that_a_service_set_holds_unless_the_command_names_one() -> None:
    with begun() as root:
        root.setLevel(logging.DEBUG)
        logging.getLogger(DRIVERS[1]).setLevel(logging.ERROR)
        of_service(None, as_json=False)
        assert root.level == logging.DEBUG
        assert logging.getLogger(DRIVERS[1]).level == logging.ERROR
        root.handlers[:] = []
        of_service("warning", as_json=False)
        assert root.level == logging.WARNING
