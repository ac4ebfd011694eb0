"""What strangers wrote neither forges a line of the log nor reaches the terminal as it is."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.legible import LegibleRecords, harmless, in_line

FORGED = "x attempt=1\n12:00:00 INFO done\x1b[2J\u202e\x9b\udcff"


@given(st.text())
def test_a_text_in_a_line_has_no_other_characters_than_those_that_can_be_seen(text: str) -> None:
    assert in_line(text).isprintable()
    assert all(c.isprintable() or c in "\n\t" for c in harmless(text))
    if text.isprintable():
        assert in_line(text) == harmless(text) == text


@pytest.fixture(params=["mqkit", "mqkit.kafka"])
def logged(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of mqkit's, and what a service's own plain handler makes of its records."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(request.param)
    logger.addHandler(handler)
    yield logger, out
    logger.removeHandler(handler)


@pytest.mark.parametrize("args", [(FORGED,), (ValueError(FORGED),), ({"id": FORGED},)], ids=["text", "error", "named"])
def test_a_line_of_mqkits_log_stays_one_line_whatever_is_put_into_it(
    logged: tuple[logging.Logger, io.StringIO], args: Any
) -> None:
    logger, out = logged
    logger.warning("dead-letter id=%(id)s" if isinstance(args[0], dict) else "dead-letter id=%s", *args)
    line = out.getvalue()
    assert line.startswith("dead-letter id=x attempt=1")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()


def test_a_traceback_keeps_its_lines_and_no_escape(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = logged
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception("failed")
    assert out.getvalue().startswith("failed\nTraceback")
    assert all(c.isprintable() or c == "\n" for c in out.getvalue())


def test_fields_beside_the_line_are_legible_and_numbers_stay_numbers() -> None:
    record = logging.makeLogRecord({"msg": "%s %d", "args": ("a", 5), "id": "a\nb", "topic": "t", "attempt": 3})
    assert LegibleRecords().filter(record)
    assert (record.args, vars(record)["id"], vars(record)["attempt"]) == (("a", 5), "a\\nb", 3)
