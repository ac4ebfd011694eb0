"""How long: one spelling of a length of time, so that every option takes seconds or a timedelta."""

from datetime import timedelta
from typing import TypeAlias

Duration: TypeAlias = float | timedelta
"""A length of time: a number of seconds, or a timedelta."""


def seconds(value: Duration, *, option: str) -> float:
    """`value` in seconds.

    Raises:
        ValueError: it is negative or not a number; `option` names it in the text.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{option} must be a length of time of zero or more seconds, not {value!r}")
    return number
