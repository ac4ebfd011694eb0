"""What people are told of a verdict: the kind of its event, how loud its line in the log is, what both say. Pure."""

import logging
from typing import NamedTuple

from mqkit.events import Kind
from mqkit.handler import Outcome
from mqkit.verdict import Again, DeadLetter, Done, Postpone, Release

KINDS: dict[type, Kind] = {
    Done: "done",
    Again: "retry",
    Postpone: "postponed",
    DeadLetter: "dead-letter",
    Release: "released",
}
QUIET = (Done, Postpone, Release)
"""Verdicts of which only listeners are told, and a log that shows everything."""


class Telling(NamedTuple):
    """What is told of one outcome."""

    kind: Kind
    detail: str
    seconds: float
    """That the attempt took, or, of a retry, until it comes."""
    level: int
    """Of its line in the log."""


def telling(outcome: Outcome) -> Telling:
    """What is told of `outcome`."""
    verdict = outcome.verdict
    kind = KINDS[type(verdict)]
    if isinstance(verdict, Done):
        return Telling("skipped" if verdict.skipped else kind, "", outcome.seconds, logging.DEBUG)
    if isinstance(verdict, Again):
        detail = f"{verdict.failure.error}: {verdict.failure.text}"
        return Telling(kind, detail, verdict.delay, logging.INFO)
    if isinstance(verdict, DeadLetter):
        detail = f"{verdict.reason}: {verdict.failure.error}: {verdict.failure.text}"
        return Telling(kind, detail, outcome.seconds, logging.WARNING)
    return Telling(kind, "", outcome.seconds, logging.DEBUG)
