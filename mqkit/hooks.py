"""The hooks that are called while an app is opened or closed, and that may use it: as open, also as a context."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqkit.plugins import Plugins  # brings pydantic along


class Hooks:
    """Those of one app.

    Whoever opens or closes an app waits for its hooks, so a hook that waited for that would wait for ever.

    Args:
        app: what they get.
    """

    def __init__(self, plugins: "Plugins", app: object) -> None:
        self._plugins = plugins
        self._app = app
        self._running = False

    async def call(self, name: str) -> None:
        """Call one of each plugin. Raises ConfigurationError: one failed; names its plugin."""
        before = CALLED.set(self)
        self._running = True
        try:
            await self._plugins.call(name, self._app)
        finally:
            self._running = False
            CALLED.reset(before)

    @property
    def inside(self) -> bool:
        """Whether a hook asks, or a task that it made, while it runs."""
        return self._running and CALLED.get() is self

    def require_outside(self) -> None:
        """Raise RuntimeError if a hook asks."""
        if self.inside:
            raise RuntimeError("a hook cannot close the app that waits for it: app.stop() ends its run")


CALLED: ContextVar[Hooks | None] = ContextVar("mqkit hooks", default=None)
"""Whose hook this is."""
