"""Which commands there are: the built-in ones, and those that plugins add by the hook `mqkit_commands`."""

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from mqkit.cli.failures import guarded, sentence
from mqkit.cli.logs import own_warnings
from mqkit.cli.output import remark
from mqkit.errors import MqkitError
from mqkit.plugins import Plugins
from mqkit.settings import load

OPERATE = "Operate"
LOOK = "Look at the installation"

COMMANDS = {
    "run": None,
    "publish": None,
    "tail": None,
    "inspect": OPERATE,
    "doctor": LOOK,
    "backends": LOOK,
    "bench": LOOK,
    "plugins": LOOK,
}
"""Each is the function of its name, in the module of its name, and stands in this panel of the help."""
GROUPS = {
    "dlq": {"list": "list_", "show": "show", "replay": "replay", "purge": "purge"},
    "topology": {"plan": "plan", "apply": "apply"},
}
"""Commands that have commands: the functions of these, in the module of the group's name."""

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
    built_in = (*COMMANDS, *GROUPS)
    asked = sys.argv[1] if sys.argv[1:] and sys.argv[1] in built_in else None
    _add(app, built_in if asked is None else [asked])  # the modules of the others would take longer than it does
    if asked is None:
        for name, function in _added({*built_in}):
            app.command(name, rich_help_panel="From plugins")(guarded(function))
    app()


def _add(app: typer.Typer, names: Iterable[str]) -> None:
    """Import those of our own commands."""
    for name in names:
        module = import_module(f"mqkit.cli.{name}")
        if name in GROUPS:
            group: typer.Typer = module.commands
            for command, function in GROUPS[name].items():
                group.command(command)(guarded(getattr(module, function)))
            app.add_typer(group, rich_help_panel=OPERATE)
        else:
            app.command(name, rich_help_panel=COMMANDS[name])(guarded(getattr(module, name)))


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
