"""The real command line, as a process: what a test gives it, and what it gives back."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LONGEST = 60.0
"""Seconds within which every command of a test ends."""
ANSI = "\x1b["


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class CommandLine:
    """`mqkit`, run in a directory of the test's own."""

    cwd: Path
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "", env: Mapping[str, str] | None = None) -> Result:
        """Run it to its end, which must be with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "mqkit", *arguments], cwd=self.cwd, env=self._env(env), input=stdin,
            capture_output=True, text=True, timeout=LONGEST, check=False,
        )  # fmt: skip
        result = Result(done.returncode, done.stdout, done.stderr)
        assert result.code == code, result
        return result

    def refused(self, *arguments: str, code: int = 1, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
        """What it says when it fails: one sentence on stderr, and nothing else there."""
        result = self(*arguments, code=code, stdin=stdin, env=env)
        said = result.err.splitlines()
        assert len(said) == 1, result
        assert said[0].startswith("error: "), result
        assert not said[0].endswith("."), result
        assert "Traceback" not in result.out + result.err
        return said[0]

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on until the test ends it."""
        with subprocess.Popen(
            [sys.executable, "-m", "mqkit", *arguments], cwd=self.cwd, env=self._env(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def in_terminal(self, *arguments: str, typed: str = "", env: Mapping[str, str] | None = None) -> Result:
        """Run it in a terminal, where `typed` is what somebody types."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "mqkit", *arguments], cwd=self.cwd, env=self._env(env),
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, typed.encode())
        seen = b""
        try:
            while chunk := os.read(ours, 65_536):
                seen += chunk
        except OSError:
            pass  # Linux says so when the other end is closed
        finally:
            os.close(ours)
        return Result(process.wait(LONGEST), seen.decode().replace("\r\n", "\n"), "")

    def _env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        outside = {
            n: v for n, v in os.environ.items() if not n.startswith("MQKIT_") and n not in ("NO_COLOR", "COLUMNS")
        }
        return {**outside, "TERM": "xterm", "PYTHONWARNINGS": "error", **self.env, **(more or {})}


def until(stream: IO[str] | None, text: str) -> str:
    """The first line of `stream` that holds `text`."""
    assert stream is not None
    seen = []
    for line in stream:
        if text in line:
            return line
        seen.append(line)
    raise AssertionError(f"{text!r} never came: {seen}")


def interrupt(process: "subprocess.Popen[Any]", number: int = signal.SIGINT) -> int:
    """Send a signal; the exit code."""
    process.send_signal(number)
    return process.wait(LONGEST)
