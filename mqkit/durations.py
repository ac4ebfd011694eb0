"""How long: one spelling of a length of time, so that every option takes seconds or a timedelta."""

from datetime import timedelta
from typing import Final, TypeAlias

Duration: TypeAlias = float | timedelta
"""A length of time: a number of seconds, or a timedelta."""
LONGEST: Final = 100 * 365.25 * 24 * 3600
"""Seconds: a hundred years. What is longer is a mistake, mostly milliseconds or a time of day taken for seconds; clocks
and locks have limits not far beyond."""


def seconds(value: Duration, *, option: str) -> float:
    """`value` in seconds.

    Raises:
        ValueError: it is negative, not a number, or more than a hundred years; `option` names it in the text.
        TypeError: it is neither a number nor a timedelta.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise TypeError(f"{option} is a number of seconds or a timedelta, not {type(value).__name__} {value!r}")
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{option} must be a length of time of zero or more seconds, not {value!r}")
    if number > LONGEST:
        raise ValueError(
            f"{option} is a length of time in seconds, and {value!r} is more than a hundred years: "
            "are these milliseconds, or a point in time?"
        )
    return number


def bounded(delay: float) -> float:
    """`delay` as clocks and locks can take it: from zero to a hundred years; what is no number is zero."""
    return min(delay, LONGEST) if delay > 0 else 0.0
