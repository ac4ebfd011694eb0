"""Which commands there are: the built-in ones, and those that plugins add by the hook `mqkit_commands`."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from mqkit.cli import dlq, topology
from mqkit.cli.backends import backends
from mqkit.cli.bench import bench
from mqkit.cli.doctor import doctor
from mqkit.cli.failures import guarded, sentence
from mqkit.cli.inspect import inspect
from mqkit.cli.logs import own_warnings
from mqkit.cli.output import remark
from mqkit.cli.plugins import plugins
from mqkit.cli.publish import publish
from mqkit.cli.run import run
from mqkit.cli.tail import tail
from mqkit.errors import MqkitError
from mqkit.plugins import Plugins
from mqkit.settings import load

OPERATE = "Operate"
LOOK = "Look at the installation"

HELP = """Work and operate services that talk through messages.

Examples:
  $ mqkit run shop:app
  $ mqkit publish purchases '{"customer": "ada"}' --group billing
  $ mqkit inspect --watch 2
"""


def command_line() -> None:
    """Run the command that `sys.argv` names; ends with SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few letters is no reason to fail
    own_warnings()
    app = typer.Typer(
        name="mqkit",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    built_in: dict[str, tuple[str | None, Callable[..., object]]] = {
        "run": (None, run),
        "publish": (None, publish),
        "tail": (None, tail),
        "inspect": (OPERATE, inspect),
        "doctor": (LOOK, doctor),
        "backends": (LOOK, backends),
        "bench": (LOOK, bench),
        "plugins": (LOOK, plugins),
    }
    for name, (panel, function) in built_in.items():
        app.command(name, rich_help_panel=panel)(guarded(function))
    _group(app, dlq.commands, {"list": dlq.list_, "show": dlq.show, "replay": dlq.replay, "purge": dlq.purge})
    _group(app, topology.commands, {"plan": topology.plan, "apply": topology.apply})
    taken = {*built_in, "dlq", "topology"}
    if not taken.intersection(sys.argv[1:2]):  # what plugins add is not needed for our own
        for name, function in _added(taken):
            app.command(name, rich_help_panel="From plugins")(guarded(function))
    app()


def _group(app: typer.Typer, group: typer.Typer, functions: dict[str, Callable[..., object]]) -> None:
    for name, function in functions.items():
        group.command(name)(guarded(function))
    app.add_typer(group, rich_help_panel=OPERATE)


def _added(taken: set[str]) -> Sequence[tuple[str, Callable[..., Any]]]:
    """Commands of plugins; where those cannot be loaded, that is said, and our own commands still work."""
    try:
        found: list[tuple[str, Callable[..., Any]]] = Plugins(disabled=load({}).disabled_plugins).collect(
            "mqkit_commands"
        )
    except MqkitError as error:
        remark(f"commands of plugins are missing here: {sentence(error)}")
        return []
    if doubled := sorted(taken.intersection(name for name, _ in found)):
        remark(f"a plugin's command {doubled[0]!r} is left out: mqkit has one of that name")
    return [(name, function) for name, function in found if name not in taken]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mqkit {version('mqkit')}\n")
        raise typer.Exit


def root(
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What all commands have in common."""
