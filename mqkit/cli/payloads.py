"""What `mqkit publish` sends: lines of JSON, each checked against the topic's schema before anything is sent."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqkit.codec import JSON, Codecs
from mqkit.errors import ConfigurationError, MessageError
from mqkit.topic import Topic


@dataclass(frozen=True, slots=True)
class Line:
    """One payload as it was given."""

    number: int
    """Counted from 1; 0 for a payload that was an argument."""
    text: bytes

    @property
    def where(self) -> str:
        """For people."""
        return f"line {self.number}" if self.number else "the payload"


@dataclass(frozen=True, slots=True)
class WrongLine:
    """A line that cannot be published, and why."""

    line: Line
    why: str

    def __str__(self) -> str:
        return f"{self.line.where}: {self.why}"


def lines_of(file: Path | None) -> list[Line]:
    """The lines of `file`, or of stdin, but for empty ones.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        given: Iterable[bytes] = sys.stdin.buffer if file is None else file.read_bytes().splitlines()
        return [Line(number, text.strip()) for number, text in enumerate(given, 1) if text.strip()]
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error


class Reader:
    """Makes payloads of lines, as the receivers of the topic would."""

    def __init__(self, topic: Topic[Any], codecs: Codecs) -> None:
        self._topic = topic
        self._codec = codecs.bind(topic)

    def payload(self, line: Line) -> Any:
        """What `line` says.

        Raises:
            MessageError: it is not JSON, does not match the schema, or has no key.
        """
        payload = self._codec.decode(line.text, JSON)
        self._topic.key_of(payload)
        return payload

    def wrong(self, lines: Sequence[Line]) -> list[WrongLine]:
        """Those that cannot be published."""
        found = []
        for line in lines:
            try:
                self.payload(line)
            except MessageError as error:
                found.append(WrongLine(line, str(error)))
        return found
