"""Worker processes under test: started, watched through the diary they write, killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqkit.testing.colours import LONGEST_CALL
from mqkit.testing.waiting import eventually


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a worker's diary."""

    name: str
    """called, returned, raised, log, published, noted, or a kind of event."""
    payload: Any
    id: str
    attempt: int
    text: str


class Worker:
    """`mqkit.testing.worker` in a process of its own.

    Args:
        role: work, publish or note.
        folder: for its diary and its gate.
        spec: url, colour, topic, group, and what `mqkit.testing.worker` knows beside them.
    """

    def __init__(self, role: str, folder: Path, **spec: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._diary, self._gate, self._errors = folder / "diary", folder / "gate", folder / "errors"
        spec |= {"role": role, "diary": str(self._diary)}
        if spec.pop("gated", False):
            spec["gate"] = str(self._gate)
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mqkit.testing.worker", json.dumps(spec)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def facts(self, name: str) -> Sequence[Fact]:
        """All facts of that name so far."""
        if not self._diary.exists():
            return ()
        lines = [json.loads(line) for line in self._diary.read_bytes().split(b"\n")[:-1]]
        return [
            Fact(name, line.get("payload"), line.get("id", ""), line.get("attempt", 0), line.get("text", ""))
            for line in lines
            if line["fact"] == name
        ]

    def payloads(self, name: str) -> list[Any]:
        """Of the facts of that name."""
        return [fact.payload for fact in self.facts(name)]

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """`eventually`, with what the process said in the failure; fails at once when it has ended."""

        def look() -> bool:
            return bool(condition()) or self._process.poll() is not None

        eventually(look, what, shown=self._told)
        assert condition(), f"the worker ended before: {what}; {self._told()}"

    def wait_for(self, name: str, number: int = 1) -> None:
        """Until it has written `number` facts of that name."""
        self.wait_until(lambda: len(self.facts(name)) >= number, f"{number} times {name!r} in the diary")

    def open_gate(self) -> None:
        """Let handlers that wait go on."""
        self._gate.touch()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = LONGEST_CALL) -> int:
        """Its exit code, when it has ended."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the worker did not end within {timeout:g} s; {self._told()}") from error

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Idempotent."""
        self._process.kill()
        self._process.wait()

    def _told(self) -> str:
        diary = self._diary.read_text()[-1500:] if self._diary.exists() else "no diary"
        return f"code {self._process.poll()}; {self._errors.read_text()[-3000:]}; diary: {diary}"
