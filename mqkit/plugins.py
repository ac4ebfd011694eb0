"""Loading plugins: explicit, once for each app, by entry point; a broken one is an error that names it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any

import pluggy

from mqkit import hookspecs
from mqkit.backend import BackendSpec
from mqkit.callables import not_begun, yields
from mqkit.codec import Codecs
from mqkit.errors import ConfigurationError
from mqkit.registry import Backends

GROUP = "mqkit"
MOMENTS = ("mqkit_startup", "mqkit_shutdown")
"""Hooks that are called when an app is started or stopped; all others are when it is made."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin, for people."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]


class Plugins:
    """The plugins of one app and what they bring.

    Args:
        extra: plugin objects or modules beside those that are installed.
        disabled: names of entry points to leave out.

    Raises:
        ConfigurationError: one cannot be loaded, is registered twice, or implements an unknown hook; names it.
    """

    def __init__(self, extra: Sequence[object] = (), disabled: Sequence[str] = ()) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._points: dict[str, EntryPoint] = {}
        found = entry_points(group=GROUP)
        if unknown := set(disabled) - {point.name for point in found}:
            raise ConfigurationError(f"plugin {min(unknown)!r} is disabled but not installed")
        for point in found:
            if point.name not in disabled:
                self._load(point)
        for plugin in extra:
            self._register(plugin, getattr(plugin, "__name__", type(plugin).__qualname__))
        self._require_calls()
        self.backends = Backends(self._flat(self._call("mqkit_backends"), "schemes"))
        self.codecs = Codecs(self._flat(self._call("mqkit_codecs"), "content_type"))

    def _load(self, point: EntryPoint) -> None:
        earlier = self._points.get(point.name)
        if earlier is not None:
            if earlier.value == point.value:
                return  # the same distribution, seen through two folders of the path
            raise ConfigurationError(
                f"plugin {point.name!r} is registered twice: {earlier.value} and {point.value}; uninstall one"
            )
        try:
            plugin = point.load()
        except Exception as error:
            whose = f" of {point.dist.name}" if point.dist else ""
            raise ConfigurationError(
                f"plugin {point.name!r}{whose} ({point.value}) cannot be loaded: {type(error).__name__}: {error}; "
                f"mend or uninstall it, or disable it by MQKIT_DISABLED_PLUGINS"
            ) from error
        self._points[point.name] = point
        self._register(plugin, point.name)

    def _register(self, plugin: object, name: str) -> None:
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise ConfigurationError(f"plugin {name!r} cannot be registered: {error}") from error

    def _require_calls(self) -> None:
        """Raise ConfigurationError, with the plugin's name, if calling what is called at start or stop runs nothing."""
        for hook in MOMENTS:
            for name, function, _ in self._implementations(hook):
                if yields(function):
                    raise ConfigurationError(
                        f"plugin {name!r}: its {hook} contains `yield`, so that calling it runs nothing of it; "
                        "what is to be done at the end belongs in mqkit_shutdown"
                    )

    def require_plain(self) -> None:
        """Raise ConfigurationError, with the plugin's name, if what is called at start or stop needs an event loop."""
        for hook in MOMENTS:
            for name, function, _ in self._implementations(hook):
                if iscoroutinefunction(function):
                    raise ConfigurationError(
                        f"plugin {name!r}: its {hook} is async, and App has no event loop: "
                        "write it with def, or use AsyncApp"
                    )

    async def call(self, hook: str, app: object) -> None:
        """Call a hook of `MOMENTS` of each plugin, and await those that are async.

        Raises:
            ConfigurationError: one failed; names it.
        """
        for name, function, takes_it in self._implementations(hook):
            try:
                answer = function(*([app] if takes_it else []))
                if isawaitable(answer):
                    await answer
                elif wrong := not_begun(answer):
                    raise TypeError(f"it is {wrong}")  # noqa: TRY301 - told like all else that goes wrong in it
            except Exception as error:
                raise _failed(name, hook, error) from error

    def _implementations(self, hook: str) -> Iterator[tuple[str, Callable[..., Any], bool]]:
        """Plugin's name, function, and whether that takes an argument, in the order of registration."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            yield implementation.plugin_name, implementation.function, bool(implementation.argnames)

    def _call(self, hook: str) -> list[tuple[str, object]]:
        """What each plugin answers, with its name."""
        answers: list[tuple[str, object]] = []
        for name, function, _ in self._implementations(hook):
            try:
                answer = function()
            except Exception as error:
                raise _failed(name, hook, error) from error
            if iscoroutine(answer):
                answer.close()
                raise ConfigurationError(
                    f"plugin {name!r}: its {hook} is async, and nobody awaits it while an app is made: "
                    "write it with def"
                )
            answers.append((name, answer))
        return answers

    def _flat(self, answers: list[tuple[str, object]], attribute: str = "__class__") -> list:  # type: ignore[type-arg] # see collect
        """The answers in one list; each must have `attribute`, which tells that it is what the hook asks for."""
        items: list[object] = []
        for name, answer in answers:
            if answer is None:
                continue
            if not isinstance(answer, (list, tuple)):
                raise ConfigurationError(f"plugin {name!r} must return a list, not {type(answer).__name__}")
            for item in answer:
                if not hasattr(item, attribute):
                    raise ConfigurationError(f"plugin {name!r} registers {item!r}, which has no {attribute!r}")
                if isinstance(item, BackendSpec) and any(
                    isinstance(other, BackendSpec) and other.name == item.name for other in items
                ):
                    raise ConfigurationError(f"plugin {name!r} registers backend {item.name!r} a second time")
                items.append(item)
        return items

    def collect(self, hook: str) -> list:  # type: ignore[type-arg] # each hook has its own type
        """All that the plugins answer to a hook that takes nothing, in one list."""
        return self._flat(self._call(hook))

    def listing(self) -> list[PluginInfo]:
        """The plugins, in the order of loading."""
        infos = []
        for name, plugin in self.manager.list_name_plugin():
            if plugin is None:
                continue
            point = self._points.get(name)
            dist = point.dist if point else None
            hooks = tuple(sorted(c.name for c in self.manager.get_hookcallers(plugin) or ()))
            infos.append(PluginInfo(name, dist.name if dist else "", dist.version if dist else "", hooks))
        return infos


def _failed(name: str, hook: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"plugin {name!r} failed in {hook}: {type(error).__name__}: {error}")
