"""Who hears of what happens: the listeners of an app, and whoever reads the log."""

import logging
from collections.abc import Iterable

from mqkit.callables import function_name, not_a_plain_call, not_begun
from mqkit.errors import ConfigurationError
from mqkit.events import Event, Listener

log = logging.getLogger("mqkit")


class Listeners:
    """Callables that get every event, each in its turn.

    Args:
        first: those that are there from the beginning.

    Raises:
        ConfigurationError: one of them is async, so that it would never run.
    """

    def __init__(self, first: Iterable[Listener] = ()) -> None:
        self._found: list[Listener] = []
        for listener in first:
            self.add(listener)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, listener: Listener) -> Listener:
        """One more, given back. Raises ConfigurationError."""
        if wrong := not_a_plain_call(listener, "the event"):
            advice = "; under AsyncApp it may create a task" if "async" in wrong else ""
            raise ConfigurationError(f"listener {function_name(listener)}: {wrong}{advice}")
        self._found.append(listener)
        return listener

    def tell(self, event: Event) -> None:
        """Call each of them. One that raises is logged, and the others are called all the same."""
        for listener in self._found:
            try:
                answer: object = listener(event)
                if wrong := not_begun(answer):
                    raise TypeError(f"it returned {wrong}: listeners are plain functions")  # noqa: TRY301 - told like all else that goes wrong in it
            except Exception:
                log.exception("listener %r failed", listener)


def audible() -> None:
    """Undo what `logging.config` does to loggers that it was not told of: what mqkit warns of may be lost work."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "mqkit" and isinstance(logger, logging.Logger):
            logger.disabled = False
