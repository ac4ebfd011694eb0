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
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from mqkit.app import App
from mqkit.async_app import AsyncApp
from mqkit.backend import Backend, Subscription
from mqkit.errors import ConfigurationError
from mqkit.events import Event
from mqkit.immediate import run_now
from mqkit.message import Delivery, Message
from mqkit.retry import Retry
from mqkit.testing.colours import with_backend
from mqkit.testing.service import Service
from mqkit.testing.waiting import noted
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


async def blocking_sleep(seconds: float) -> None:
    """As asyncio.sleep, where there is no event loop."""
    time.sleep(seconds)  # noqa: ASYNC251 - it is run without one


def worker(spec: dict[str, Any], diary: Diary) -> App | AsyncApp:
    """An app whose handler does what the spec says.

    `gate`: handlers of payloads in `held` (all, if not given) wait until this file exists. `fail`: they raise.
    `poison`: with these payloads they end the process, which gives the payload to whoever waits for it.
    `seconds`: how long each takes. `plain`: it is a plain function, whatever the colour.
    """
    held, gate = spec.get("held"), Path(spec.get("gate", os.devnull))

    def must_wait(payload: object) -> bool:
        return (held is None or payload in held) and not gate.exists()

    async def act(payload: Any, message: Message[Any], sleep: Callable[[float], Awaitable[None]]) -> None:
        diary.write("called", payload=payload, id=message.id, attempt=message.attempt)
        try:
            while must_wait(payload):
                await sleep(0.01)
            await sleep(spec.get("seconds", 0.0))
            if payload in spec.get("poison", ()):
                os._exit(payload)
            if spec.get("fail"):
                raise RuntimeError("as the test asked")  # noqa: TRY301 - it is a user's handler
        except BaseException as error:
            diary.write("raised", payload=payload, id=message.id, attempt=message.attempt, error=type(error).__name__)
            raise
        diary.write("returned", payload=payload, id=message.id, attempt=message.attempt)

    def handle(payload: Any, message: Message[Any]) -> None:
        run_now(act(payload, message, blocking_sleep))

    async def handle_async(payload: Any, message: Message[Any]) -> None:
        await act(payload, message, asyncio.sleep)

    def tell(event: Event) -> None:
        diary.write(event.kind, id=event.id, attempt=event.attempt, detail=event.detail)

    of_colour = App if spec["colour"] == "App" else AsyncApp
    app = of_colour(spec["url"], listeners=[tell], grace=spec.get("grace", 10.0), service="worker")
    plain = spec.get("plain", spec["colour"] == "App")
    app.subscribe(
        Topic(spec["topic"]),
        group=spec["group"],
        retry=Retry(**spec.get("retry", {})),
        **spec.get("options", {}),
    )(handle if plain else handle_async)
    return app


def publish(spec: dict[str, Any], diary: Diary) -> None:
    """Publish numbers, one after the other, until somebody ends it."""
    topic: Topic[Any] = Topic(spec["topic"], groups=(spec["group"],))
    service = Service(spec["url"], spec["colour"]).open()
    diary.write("started")
    for number in count():
        service.publish(topic, number)
        diary.write("published", payload=number)


async def note(spec: dict[str, Any], diary: Diary, backend: Backend) -> None:
    """Take `number` messages at the seam, note `spent` attempts with the first, and hold them until it is ended."""
    wanted = Subscription(topic=spec["topic"], group=spec["group"], ordering="key")
    receiver = await backend.open_receiver(wanted, lambda *_: None)
    held: list[Delivery] = []
    while len(held) < spec["number"]:
        held += await receiver.receive(spec["number"] - len(held), 1.0)
    await noted(receiver, [(held[0].token, spec["spent"])])
    diary.write("noted", payload=json.loads(held[0].message.body))
    while True:
        await receiver.receive(0, 1.0)


async def begin(spec: dict[str, Any], diary: Diary, backend: Backend) -> None:
    """Take one message at the seam, begin it if the spec says so, and hold it until it is ended."""
    wanted = Subscription(topic=spec["topic"], group=spec["group"], ordering=spec["ordering"])
    receiver = await backend.open_receiver(wanted, lambda *_: None)
    held: Sequence[Delivery] = ()
    while not held:
        held = await receiver.receive(1, 1.0)
    diary.write("has", payload=await receiver.begin(held[0].token) if spec["begin"] else None)
    while True:
        await receiver.receive(0, 1.0)


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
            working = worker(spec, diary).run()
            if working is not None:
                asyncio.run(working)
        case "publish":
            publish(spec, diary)
        case "note":
            with_backend(spec["url"], spec["colour"], partial(note, spec, diary))
        case "begin":
            with_backend(spec["url"], spec["colour"], partial(begin, spec, diary))
        case unknown:
            raise ConfigurationError(f"a worker's role is work, publish, note or begin, not {unknown!r}")


if __name__ == "__main__":
    main(sys.argv[1])
