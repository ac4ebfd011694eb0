"""A worker process for tests: `python -m mqkit.testing.worker SPEC`, to be killed by whoever started it.

It writes one line of JSON for each fact into a file: what its handler was called with, what came of it, and what its
log said. `mqkit.testing.processes` starts it and reads that file.
"""

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from mqkit.app import AsyncApp
from mqkit.errors import ConfigurationError
from mqkit.events import Event
from mqkit.message import Message
from mqkit.retry import Retry
from mqkit.topic import Topic


class Diary:
    """The file that the facts go into: each line is written at once, so that a kill loses none that was written."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, fact: str, **details: object) -> None:
        """One line."""
        os.write(self._file, json.dumps({"fact": fact, "at": time.time(), **details}).encode() + b"\n")


class DiaryHandler(logging.Handler):
    """What mqkit logs."""

    def __init__(self, diary: Diary) -> None:
        super().__init__(logging.INFO)
        self._diary = diary

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler.emit."""
        self._diary.write("log", text=record.getMessage())


def worker(spec: dict[str, Any], diary: Diary) -> AsyncApp:
    """An app whose handler does what the spec says.

    `gate`: handlers of payloads in `held` (all, if not given) wait until this file exists. `fail`: they raise.
    `seconds`: how long each takes.
    """
    held, gate = spec.get("held"), Path(spec.get("gate", os.devnull))

    def must_wait(payload: object) -> bool:
        return (held is None or payload in held) and not gate.exists()

    async def handle(payload: Any, message: Message[Any]) -> None:
        diary.write("called", payload=payload, id=message.id, attempt=message.attempt)
        try:
            while must_wait(payload):  # noqa: ASYNC110 - another process opens the gate
                await asyncio.sleep(0.01)
            await asyncio.sleep(spec.get("seconds", 0.0))
            if spec.get("fail"):
                raise RuntimeError("as the test asked")  # noqa: TRY301 - it is a user's handler
        except BaseException as error:
            diary.write("raised", payload=payload, id=message.id, attempt=message.attempt, error=type(error).__name__)
            raise
        diary.write("returned", payload=payload, id=message.id, attempt=message.attempt)

    def tell(event: Event) -> None:
        diary.write(event.kind, id=event.id, attempt=event.attempt, detail=event.detail)

    app = AsyncApp(spec["url"], listeners=[tell], grace=spec.get("grace", 10.0), service="worker")
    app.subscribe(
        Topic(spec["topic"]),
        group=spec["group"],
        retry=Retry(**spec.get("retry", {})),
        **spec.get("options", {}),
    )(handle)
    return app


async def publish(spec: dict[str, Any], diary: Diary) -> None:
    """Publish numbers, one after the other, until somebody ends it."""
    topic: Topic[Any] = Topic(spec["topic"], groups=(spec["group"],))
    async with AsyncApp(spec["url"]) as app:
        diary.write("started")
        number = 0
        while True:
            await app.publish(topic, number)
            diary.write("published", payload=number)
            number += 1


def main(argument: str) -> None:
    """Do what the spec, in JSON, says.

    Raises:
        ConfigurationError: it names no role.
    """
    spec = json.loads(argument)
    diary = Diary(spec["diary"])
    logger = logging.getLogger("mqkit")
    logger.setLevel(logging.INFO)
    logger.addHandler(DiaryHandler(diary))
    match spec["role"]:
        case "work":
            asyncio.run(worker(spec, diary).run())
        case "publish":
            asyncio.run(publish(spec, diary))
        case unknown:
            raise ConfigurationError(f"a worker's role is work or publish, not {unknown!r}")


if __name__ == "__main__":
    main(sys.argv[1])
