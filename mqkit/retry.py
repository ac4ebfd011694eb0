"""When to try again: the policy, and the decision. Pure: no clock, no I/O, no randomness of its own."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import TracebackType

from mqkit.arguments import number, whole
from mqkit.callables import not_a_plain_call, not_over
from mqkit.durations import Duration, seconds
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.verdict import Again, DeadLetter, Done, Failure, Verdict

log = logging.getLogger("mqkit")

TRACEBACK_LINES = 12
TEXT_LIMIT = 2_000
OWN_PACKAGES = ("mqkit", "asyncio", "contextlib", "concurrent")
"""Whose frames lead to a handler and tell its author nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently a failing message is tried.

    Attempt `n` that fails waits `min(wait_initial * wait_factor ** (n - 1), wait_max)` seconds, and up to
    `wait_jitter` of that on top, at random. The wait is spent at the broker, not in a worker.

    Raises:
        ValueError: an option makes no sense; the text names it.
        TypeError: it is of the wrong type.
    """

    attempts: int = 5
    """Calls of the handler in all, the first included. 1: never try again."""
    wait_initial: Duration = 1.0
    wait_max: Duration = 60.0
    wait_factor: float = 2.0
    wait_jitter: float = 0.0
    """A fraction: 0.1 waits up to a tenth longer."""
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = Exception
    """Which errors are worth another try; others are dead letters at once."""
    inline: int = 0
    """How many of the retries come at once, before the waits begin."""

    def __post_init__(self) -> None:
        if self.attempts != inf:  # for ever
            whole(self.attempts, "attempts")
        whole(self.inline, "inline")
        number(self.wait_factor, "wait_factor")
        number(self.wait_jitter, "wait_jitter")
        if self.attempts < 1:
            raise ValueError(f"attempts counts the first call too, so it is at least 1, not {self.attempts}")
        seconds(self.wait_initial, option="wait_initial")
        seconds(self.wait_max, option="wait_max")
        if not 1 <= self.wait_factor < float("inf"):
            raise ValueError(
                f"wait_factor is a number of at least 1: below, it would wait less each time: {self.wait_factor}"
            )
        if not 0 <= self.wait_jitter <= 1:
            raise ValueError(f"wait_jitter is a fraction from 0 to 1, not {self.wait_jitter}")
        if self.inline < 0:
            raise ValueError(f"inline is a number of retries, not {self.inline}")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        errors = all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
        if not errors and (isinstance(self.on, (type, tuple)) or not callable(self.on)):
            raise ValueError(f"on is an error class, a tuple of them, or a function of the error, not {self.on!r}")
        if not errors and (wrong := not_a_plain_call(self.on, "the error")):
            raise ValueError(f"on is {self.on!r}: {wrong}")

    def wait(self, attempt: int, draw: float = 0.0) -> float:
        """Seconds to wait after attempt number `attempt` failed; `draw` from 0 to 1 places it within the jitter."""
        if attempt <= self.inline:
            return 0.0
        longest = seconds(self.wait_max, option="wait_max")
        steps = attempt - 1 - self.inline
        try:
            base = min(seconds(self.wait_initial, option="wait_initial") * self.wait_factor**steps, longest)
        except OverflowError:
            base = longest
        return base * (1 + self.wait_jitter * draw)

    def covers(self, error: Exception) -> bool:
        """Whether `error` is worth another try."""
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        try:
            answer = self.on(error)
            if wrong := not_over(answer):
                raise TypeError(f"it answers yes or no, and not {wrong}")  # noqa: TRY301 - told like all else
            return bool(answer)
        except Exception:
            log.exception("the function that `on` names failed; the message is tried again")
            return True


def failure(error: BaseException) -> Failure:
    """`error` as it is kept in headers: type, text and the last lines of its traceback, each bounded."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may do anything
        text = f"(its text cannot be had: {type(broken).__name__})"
    lines = "".join(traceback.format_exception(kind, error, _from_user(error.__traceback__))).splitlines()
    return Failure(name, _clean(text[:TEXT_LIMIT]), _clean("\n".join(lines[-TRACEBACK_LINES:])[-2 * TEXT_LIMIT :]))


def _from_user(trace: TracebackType | None) -> TracebackType | None:
    """`trace` from the first frame that is not mqkit's own; all of it if there is none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_globals.get("__name__", "").partition(".")[0] in OWN_PACKAGES:
        inner = inner.tb_next
    return inner or trace


def _clean(text: str) -> str:
    """`text` as every broker can carry it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def decide(policy: Retry, error: Exception, attempt: int, draw: float = 0.0) -> Verdict:
    """What becomes of a message whose attempt number `attempt` (from 1) ended with `error`.

    Signals come before the policy: Skip and Reject are final, RetryLater waits as long as it says but spends an
    attempt like any other.
    """
    if isinstance(error, Skip):
        return Done(skipped=True)
    if isinstance(error, Reject):
        return DeadLetter("rejected", failure(error))
    if not isinstance(error, RetryLater) and not policy.covers(error):
        return DeadLetter("not-retryable", failure(error))
    if attempt >= policy.attempts:
        return DeadLetter("exhausted", failure(error))
    if isinstance(error, RetryLater):
        return Again(error.after, failure(error))
    return Again(policy.wait(attempt, draw), failure(error))
