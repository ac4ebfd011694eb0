"""What one test has: a harness, topics of its own, services and workers; all of it is cleared up at the end."""

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from pydantic import BaseModel

from mqkit.backend import Backend
from mqkit.testing.colours import with_backend
from mqkit.testing.faults import Faults
from mqkit.testing.harness import Harness
from mqkit.testing.processes import Worker
from mqkit.testing.service import Service
from mqkit.topic import Topic

T = TypeVar("T")


class Note(BaseModel):
    """The payload of most tests."""

    number: int
    key: str | None = None


def note(number: int, key: str | None = None) -> Note:
    """One payload."""
    return Note(number=number, key=key)


def notes(numbers: range) -> list[Note]:
    """Payloads without a key."""
    return [note(number) for number in numbers]


class Lines(logging.Handler):
    """What mqkit logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler.emit."""
        self.lines.append((record.levelno, record.getMessage()))

    def about(self, *words: str, level: int = logging.DEBUG) -> list[str]:
        """Lines of at least that level that hold all the words."""
        return [line for number, line in self.lines if number >= level and all(word in line for word in words)]


class Scene:
    """The stage of one test.

    Args:
        harness: of the backend under test.
        colour: of its services and workers: App or AsyncApp.
        name: of the test.
        folder: for files of worker processes.
    """

    def __init__(self, harness: Harness, colour: str, name: str, folder: Path) -> None:
        self.harness = harness
        self._colour = colour
        self._prefix = re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("test_"))[:40].strip("-")
        self._folder = folder
        self._topics: list[str] = []
        self._closing = ExitStack()
        self._workers = 0
        self.log = self._listen()

    def _listen(self) -> Lines:
        lines, logger = Lines(), logging.getLogger("mqkit")
        level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(lines)
        self._closing.callback(logger.setLevel, level)
        self._closing.callback(logger.removeHandler, lines)
        return lines

    def topic(self, schema: object = Note, **options: Any) -> Topic[Any]:
        """A topic that nobody used before."""
        topic: Topic[Any] = Topic(f"{self._prefix}-{token_hex(4)}", schema, **options)
        self._topics.append(topic.name)
        return topic

    def service(self, faults: Faults | None = None, **options: Any) -> Service:
        """A service, not open yet; closed at the end."""
        if faults is not None:
            options |= {"plugins": [faults]}
        service = Service(self.harness.url if faults is None else faults.url, self._colour, **options)
        self._closing.callback(service.close)
        return service

    def publisher(self, **options: Any) -> Service:
        """An open service that only publishes."""
        return self.service(**options).open()

    def faults(self) -> Faults:
        """A seam to the broker that breaks on demand."""
        return Faults(self.harness.url)

    def worker(self, topic: Topic[Any], group: str, *, role: str = "work", **spec: Any) -> Worker:
        """A worker process; killed at the end."""
        self._workers += 1
        folder = self._folder / f"worker-{self._workers}"
        worker = Worker(role, folder, url=self.harness.url, colour=self._colour, topic=topic.name, group=group, **spec)
        self._closing.callback(worker.kill)
        return worker

    def at_the_seam(self, act: Callable[[Backend], Awaitable[T]]) -> T:
        """What `act` gives, with a backend of its own, as an app of this colour would use it."""
        return with_backend(self.harness.url, self._colour, act)

    def finally_do(self, act: Callable[[], object]) -> None:
        """Also at the end, before services close."""
        self._closing.callback(act)

    def close(self) -> None:
        """Clear up."""
        try:
            self._closing.close()
        finally:
            self.harness.cleanup(self._topics)
            self.harness.close()
