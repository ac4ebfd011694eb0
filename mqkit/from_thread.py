"""The way from plain code in other threads to an app that lives on an event loop."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from mqkit.durations import Duration
from mqkit.engine import Engine
from mqkit.event_loop import AsyncPorts
from mqkit.topic import Topic

T = TypeVar("T")
R = TypeVar("R")


class FromThread:
    """Publishes for an AsyncApp, from any thread but its event loop's. Get it by `AsyncApp.from_thread`.

        @app.subscribe(orders, group="billing")
        def bill(order: Order) -> None:  # a plain function: it runs in a thread
            app.from_thread.publish(invoices, Invoice(...))

    Each call blocks its thread, and costs a way to the event loop and back.
    """

    def __init__(self, engine: Engine, home: Callable[[], AsyncPorts]) -> None:
        self._engine = engine
        self._home = home

    def publish(
        self,
        topic: Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: Duration = 0.0,
        id: str | None = None,
        timeout: Duration | None = None,
    ) -> str:
        """Publish one message; return its id when the broker has made it safe. Arguments and errors: App.publish.

        Raises:
            RuntimeError: this is the thread of the app's event loop, which would wait for itself.
        """
        return self._call(
            self._engine.publish, topic, payload, key=key, headers=headers, delay=delay, id=id, timeout=timeout
        )

    def publish_many(
        self,
        topic: Topic[T],
        payloads: Iterable[T],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> list[str]:
        """Publish many messages; their ids when the broker has made all safe. Errors: App.publish_many, and publish."""
        return self._call(self._engine.publish_many, topic, payloads, headers=headers, timeout=timeout)

    def _call(self, method: Callable[..., Coroutine[Any, Any, R]], *args: Any, **options: Any) -> R:
        return self._home().from_elsewhere(partial(method, *args, **options))
