"""Text of strangers for the eyes of people: nothing in it moves a cursor, begins a line or turns the direction of text.

What goes into a log line, an error or a terminal passes here; what programs read stays as it is.
"""

import logging
from collections.abc import Mapping


def harmless(text: str) -> str:
    """`text` in its lines, with the characters written out that a terminal would obey or nobody would see."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def in_line(text: str) -> str:
    """As harmless, and in one line: for ids, names and whatever stands beside others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LegibleRecords(logging.Filter):
    """Makes what is put into a log line fit into that line, and tracebacks harmless; the line's own words stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        """As Filter.filter; never leaves a record out."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_legible, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {name: _legible(value) for name, value in record.args.items()}
        for name in EXTRAS:
            value = getattr(record, name, None)
            if isinstance(value, str):
                setattr(record, name, in_line(value))
        if record.exc_info and not record.exc_text:
            record.exc_text = harmless(TRACEBACKS.formatException(record.exc_info))  # what formatters look at first
        return True


EXTRAS = ("topic", "group", "id")
"""Attributes of records that a format may put into the line."""
TRACEBACKS = logging.Formatter()


def _legible(value: object) -> object:
    if isinstance(value, str):
        return in_line(value)
    return in_line(" ".join(str(value).split())) if isinstance(value, BaseException) else value
