"""What a handler may raise on purpose. Signals are not errors: they say what shall become of the message."""

from mqkit.durations import Duration, seconds


class Signal(Exception):
    """Anything below: raised by a handler, seen by no one but mqkit."""


class RetryLater(Signal):
    """Try this message again after `after` seconds. Counts as an attempt.

    Raises:
        ValueError: `after` is negative.
    """

    def __init__(self, why: str = "", *, after: Duration) -> None:
        self.after = seconds(after, option="after")
        self.why = why
        super().__init__(why or f"retry after {self.after:g} s")


class Reject(Signal):
    """Put this message into the dead letters at once, whatever the retry policy says."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Skip(Signal):
    """Settle this message as done without having done anything; counted as skipped."""

    def __init__(self, why: str = "") -> None:
        self.why = why
        super().__init__(why)
