"""App and AsyncApp behind one shape of plain calls, so that a test is written once and played in both colours.

Also the seam in both colours: `backend_of` gives one shape to whatever class an app of that colour would use.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from mqkit.app import App
from mqkit.async_app import AsyncApp
from mqkit.backend import Backend
from mqkit.bridge import for_event_loop, for_threads
from mqkit.immediate import run_now
from mqkit.message import Message
from mqkit.plugins import Plugins
from mqkit.testing.record import Record
from mqkit.threads import ThreadPorts

T = TypeVar("T")
Script: TypeAlias = Callable[[Message[Any]], Any]
"""What a handler shall do: returns or raises what the handler shall. May block."""
LONGEST_CALL: Final = 90.0
"""Seconds after which a call into the app has failed."""


class Driver(Protocol):
    """Drives an app of one colour."""

    @property
    def app(self) -> App | AsyncApp:
        """What it drives."""
        ...

    @property
    def overdue(self) -> str:
        """How a call stands in the record whose handler is over its time: it was cancelled, or cannot be."""
        ...

    def handler(self, script: Script, record: Record) -> Callable[..., Any]:
        """A handler as users of this colour write them, that does what the script does."""
        ...

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What a method of the app returns or raises."""
        ...

    def enter(self, context: Any) -> None:
        """Enter a context of the app."""
        ...

    def leave(self, context: Any) -> None:
        """Leave it; from any thread."""
        ...

    def close(self) -> None:
        """Let go of all but the app; idempotent."""
        ...


def plain_handler(script: Script, record: Record) -> Callable[..., Any]:
    """A plain function that does what the script does."""

    def handle(_: Any, message: Message[Any]) -> Any:
        with record.calling(message):
            return script(message)

    return handle


class PlainDriver:
    """As Driver, for App: all is called in the thread of the test."""

    overdue = "running"

    def __init__(self, url: str, **options: Any) -> None:
        self.app = App(url, **options)

    def handler(self, script: Script, record: Record) -> Callable[..., Any]:
        """As Driver.handler."""
        return plain_handler(script, record)

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """As Driver.call."""
        return method(*args, **options)

    def enter(self, context: Any) -> None:
        """As Driver.enter."""
        context.__enter__()

    def leave(self, context: Any) -> None:
        """As Driver.leave."""
        context.__exit__(None, None, None)

    def close(self) -> None:
        """As Driver.close."""


class AsyncDriver:
    """As Driver, for AsyncApp: an event loop in a thread of its own; scripts run in others, so that they may block."""

    overdue = "CancelledError"

    def __init__(self, url: str, **options: Any) -> None:
        self.app = AsyncApp(url, **options)
        self._scripts = ThreadPoolExecutor(128, "mqkit script")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mqkit service", daemon=True)
        self._thread.start()

    def handler(self, script: Script, record: Record) -> Callable[..., Any]:
        """As Driver.handler."""

        async def handle(_: Any, message: Message[Any]) -> Any:
            with record.calling(message):
                return await self._loop.run_in_executor(self._scripts, script, message)

        return handle

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """As Driver.call."""

        async def call() -> Any:
            return await method(*args, **options)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(LONGEST_CALL)

    def enter(self, context: Any) -> None:
        """As Driver.enter."""
        self.call(context.__aenter__)

    def leave(self, context: Any) -> None:
        """As Driver.leave."""
        self.call(context.__aexit__, None, None, None)

    def close(self) -> None:
        """As Driver.close."""
        if self._loop.is_closed():
            return
        self._scripts.shutdown(wait=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONGEST_CALL)
        self._loop.close()


DRIVERS: Final[dict[str, Callable[..., Driver]]] = {"App": PlainDriver, "AsyncApp": AsyncDriver}
"""By the name of the app, which is the name of the colour in all of the suite."""


def backend_of(url: str, colour: str) -> Backend:
    """The backend as an app of that colour would use it: under App, each call blocks in the thread that makes it."""
    plugins = Plugins()
    if colour == "App":
        return for_threads(ThreadPorts(), *plugins.backends.open(url, "blocking"))
    return for_event_loop(*plugins.backends.open(url, "asynchronous"))


def with_backend(url: str, colour: str, act: Callable[[Backend], Awaitable[T]]) -> T:
    """What `act` gives, with a backend of its own: for tests of the seam itself."""

    async def work() -> T:
        backend = backend_of(url, colour)
        try:
            return await act(backend)
        finally:
            await backend.close()

    return run(work(), colour)


def run(work: Coroutine[Any, Any, T], colour: str) -> T:
    """What `work` returns or raises, on an event loop or, in App's colour, without one."""
    return run_now(work) if colour == "App" else asyncio.run(work)
