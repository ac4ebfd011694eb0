"""`mqkit run`: works an app's handlers until SIGINT or SIGTERM."""

import asyncio
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from mqkit.app import App
from mqkit.async_app import AsyncApp
from mqkit.callables import function_name
from mqkit.cli.loading import load_app
from mqkit.cli.logs import leave_to_service, of_service
from mqkit.cli.options import AppPath, AsJson, Url
from mqkit.cli.output import line, put, shown, table, tell
from mqkit.errors import ConfigurationError
from mqkit.events import Event
from mqkit.process_signals import stopping
from mqkit.registration import Registration
from mqkit.registry import masked


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Stopped(BaseException):
    """A signal came before there was anything to stop: raised where the service is being imported."""


class Loading:
    """Importing a service, which a signal ends; later it is for the app."""

    def __init__(self) -> None:
        self._over = False

    def stop(self) -> None:
        """From a signal handler. Raises Stopped."""
        if not self._over:
            raise Stopped

    def load(self, path: str, url: str | None) -> App | AsyncApp:
        """As load_app."""
        found = load_app(path, url)
        self._over = True
        return found


def run(
    app: AppPath,
    log_level: Annotated[
        Level | None,
        typer.Option(
            help="How much is logged: info if not given; by mqkit alone, if the service configures logging itself.",
            case_sensitive=False,
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Work an app's handlers until Ctrl-C or SIGTERM.

    Running handlers end within the app's grace; a second Ctrl-C ends the process at once. The log goes to stderr, with
    --json as JSON lines; where the service configures logging when it is imported, that holds.

    Examples:
      $ mqkit run shop:app
      $ mqkit run shop --url amqp://guest:guest@localhost/ --log-level debug
    """
    leave_to_service()
    loading = Loading()
    try:
        with stopping(loading.stop):
            found = loading.load(app, url)
            of_service(log_level.value if log_level else None, as_json=as_json)
            if not found.registrations:
                raise ConfigurationError(
                    f"{app} has nothing to run: decorate a function with @app.subscribe(topic, group=...)"
                )
            _announce(found, as_json=as_json)
            if isinstance(found, App):
                found.run()
            else:
                asyncio.run(found.run())
    except Stopped:
        return


def _announce(app: App | AsyncApp, *, as_json: bool) -> None:
    """Tell when every handler has its session."""
    starting = {(r.topic.name, r.group) for r in app.registrations}

    def ready(event: Event) -> None:
        if event.kind == "started" and (event.topic, event.group) in starting:
            starting.discard((event.topic, event.group))
            if not starting:
                _show(app, as_json=as_json)

    app.listen(ready)


def _show(app: App | AsyncApp, *, as_json: bool) -> None:
    url = masked(app.settings.url)
    if as_json:
        handlers = [_fields(registration) for registration in app.registrations]
        line({"status": "ready", "broker": app.description, "url": url, "handlers": handlers})
        return
    found = table("topic", "group", "handler", "at once", "order", "attempts", numbers=["at once", "attempts"])
    for registration in app.registrations:
        found.add_row(*map(shown, _fields(registration).values()))
    tell(Text.assemble(("Working", "bold green"), " at ", (url, "bold"), f" ({app.description})"))
    put(Group("", found, ""))
    tell(Text("Ctrl-C stops; running handlers may finish.", "dim"))
    sys.stdout.flush()


def _fields(registration: Registration) -> dict[str, object]:
    options = registration.options
    return {
        "topic": registration.topic.name,
        "group": registration.group,
        "handler": function_name(registration.function),
        "concurrency": options.concurrency,
        "ordering": options.ordering,
        "attempts": options.retry.attempts,
    }
