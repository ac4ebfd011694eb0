"""The log of `mqkit run`, on stderr: a readable line for people, or one of JSON for programs."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final

from mqkit.legible import harmless

STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else was given as `extra`."""
COLOURS: Final = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
DIM: Final = "2"
DRIVERS: Final = ("aiormq", "aio_pika", "pika")
"""Loggers that tell again, at length, what mqkit tells of a connection in a sentence."""


class Readable(logging.Formatter):
    """`09:21:03 WARNING mqkit  text`."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """As Formatter.format."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        text = harmless(text)  # the service's own lines, too, may hold what strangers wrote
        level = self._paint(f"{record.levelname:<7}", COLOURS.get(record.levelname, "0"))
        return f"{self._paint(time, DIM)} {level} {self._paint(record.name, DIM)}  {text}"

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


class JSONLines(logging.Formatter):
    """One JSON object; fields given as `extra` stand beside the standard ones."""

    def format(self, record: logging.LogRecord) -> str:
        """As Formatter.format."""
        found: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        found |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


def own_warnings() -> None:
    """Log what mqkit itself warns of, for commands that are no services; drivers stay silent."""
    _set_up("warning", as_json=False)
    for handler in logging.getLogger().handlers:
        handler.addFilter(logging.Filter("mqkit"))


def leave_to_service() -> None:
    """Undo that: a service is about to be imported, and may configure logging itself."""
    root = logging.getLogger()
    for handler in tuple(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    for name in DRIVERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def of_service(level: str | None, *, as_json: bool) -> None:
    """Log as a service does that is run from the command line.

    If it configured logging when it was imported, that holds: of `level` only what mqkit says is told. Otherwise
    everything of `level` and above goes to stderr; info, if none is given. What it said of a driver's logger holds.
    """
    configured = logging.getLogger().handlers or logging.getLogger("mqkit").handlers
    if not configured:
        chosen = logging.getLogger().level  # it may have set that, and no handler
        kept = chosen if chosen != logging.WARNING else logging.INFO
        _set_up(level or logging.getLevelName(kept).lower(), as_json=as_json)
    elif level is not None:
        logging.getLogger("mqkit").setLevel(level.upper())


def _set_up(level: str, *, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines() if as_json else Readable(colour=sys.stderr.isatty() and not _plain()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in DRIVERS:
        driver = logging.getLogger(name)
        if driver.level == logging.NOTSET:
            driver.setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


def _plain() -> bool:
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
