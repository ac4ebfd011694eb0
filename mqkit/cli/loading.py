"""Finds the app that `module:attribute` names; every way to fail is a sentence with what to do."""

import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mqkit.app import App
from mqkit.async_app import AsyncApp
from mqkit.errors import ConfigurationError
from mqkit.topic import Topic

DEFAULT_ATTRIBUTE = "app"


def load_app(path: str, url: str | None = None) -> App | AsyncApp:
    """The app at `path`, in its own colour; `url` goes before the app's own.

    Raises:
        ConfigurationError: there is none, or its module cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    module = load_module(module_name)
    app = _app_in(module, attribute or DEFAULT_ATTRIBUTE, chosen=bool(attribute))
    if url is not None:
        app.engine.use(url)
    return app


def load_for_tools(path: str, url: str | None = None) -> AsyncApp:
    """The same on an event loop, whatever its colour."""
    app = load_app(path, url)
    return AsyncApp.of(app) if isinstance(app, App) else app


def topics_of(path: str, app: App | AsyncApp) -> dict[str, Topic[Any]]:
    """The topics that the app's module holds, and those that its handlers read and write, by name."""
    module = load_module(path.partition(":")[0])
    found = [value for value in vars(module).values() if isinstance(value, Topic)]
    for registration in app.registrations:
        found += [topic for topic in (registration.publish, registration.topic) if topic is not None]
    return {topic.name: topic for topic in found}


def load_module(name: str) -> ModuleType:
    """The module `name`, looked for in the current directory first.

    Raises:
        ConfigurationError: it does not exist or cannot be imported; names the line.
    """
    if name.endswith(".py") or "/" in name:
        meant = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(f"{name!r} is a file: write the module's name, as in {meant}:{DEFAULT_ATTRIBUTE}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is not a module's name: write it as in shop:{DEFAULT_ATTRIBUTE}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"there is no module {error.name!r} in {here} or where Python looks: run mqkit where {name} is"
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigurationError:
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename is not None:
        what, where = f"{type(error).__name__}: {error.msg}", _place(error.filename, error.lineno)
    else:
        where = _blamed(error)
    advice = "mend that line"
    if isinstance(error, SystemExit):
        what, advice = "it ends the process", "put what runs a program under `if __name__ == '__main__':`"
    elif isinstance(error, ModuleNotFoundError):
        advice = "install it, or mend that line"
    return ConfigurationError(f"module {name!r} cannot be imported: {what} ({where}): {advice}")


def _blamed(error: BaseException) -> str:
    """The innermost line that lies under the current directory, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    here = f"{Path.cwd()}/"
    own = [f for f in frames if f.filename.startswith(here) and "site-packages" not in f.filename]
    blamed = (own or frames)[-1]
    return _place(blamed.filename, blamed.lineno)


def _place(filename: str, number: int | None) -> str:
    path = Path(filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}, line {number}"


def _app_in(module: ModuleType, attribute: str, *, chosen: bool) -> App | AsyncApp:
    found: Any = module
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        apps = sorted(name for name, value in vars(module).items() if isinstance(value, (App, AsyncApp)))
        name = module.__name__
        if apps:
            there = f"it has {', '.join(apps)}: write {name}:{apps[0]}"
        else:
            there = "and no app of another name: write app = AsyncApp() in it, or App()"
        raise ConfigurationError(f"module {name!r} has no {attribute!r}{';' if apps else ''} {there}") from None
    if not isinstance(found, (App, AsyncApp)):
        hint = "" if chosen else f"; if the app has another name, write {module.__name__}:that_name"
        what = f"{_article(found)}, neither an App nor an AsyncApp"
        raise ConfigurationError(f"{module.__name__}:{attribute} is {what}{hint}")
    return found


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
