"""What one thread waits for until another rings; cheap to ring when nobody waits."""

from contextlib import suppress
from threading import Lock


class Bell:
    """Stays rung until somebody has waited for it."""

    __slots__ = ("_silence",)

    def __init__(self) -> None:
        self._silence = Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """From any thread."""
        if self._silence.locked():
            with suppress(RuntimeError):  # somebody else did just now
                self._silence.release()

    def wait(self, timeout: float) -> bool:
        """Until it rings, or `timeout` seconds are over; whether it rang."""
        return self._silence.acquire(timeout=timeout)
