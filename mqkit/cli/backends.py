"""`mqkit backends`: what each backend gives; as a table for the README, the contract's promises."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from mqkit.backend import BackendSpec, Capabilities
from mqkit.cli.drivers import drivers
from mqkit.cli.options import AsJson
from mqkit.cli.output import document, put, shown, table, tell
from mqkit.plugins import Plugins
from mqkit.settings import load


def backends(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The contract's promises and who keeps them, in Markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the backends and what each gives.

    Examples:
      $ mqkit backends
      $ mqkit backends --markdown > promises.md
    """
    specs = _specs()
    if as_json:
        document([_fields(spec) for spec in specs])
    elif markdown:
        tell(Text(_promises(specs)))
    else:
        _show(specs)


def _specs() -> list[BackendSpec]:
    plugins = Plugins(disabled=load({}).disabled_plugins)
    return list({spec.name: spec for spec in plugins.backends.specs.values()}.values())


def _show(specs: Sequence[BackendSpec]) -> None:
    rows = table("", *(spec.name for spec in specs))
    rows.add_row(Text("URL", "dim"), *(f"{spec.schemes[0]}://" for spec in specs))
    rows.add_row(Text("driver", "dim"), *(_driver(spec) for spec in specs), end_section=True)
    for capability in fields(Capabilities):
        values = (getattr(spec.capabilities, capability.name) for spec in specs)
        rows.add_row(Text(capability.name.replace("_", " "), "dim"), *(_cell(value) for value in values))
    put(Group(rows, ""))
    for spec in specs:
        put(Text.assemble((f"{spec.name}: ", "bold"), spec.summary, "  ", (spec.example_url, "dim")))


def _driver(spec: BackendSpec) -> Text:
    if spec.extra is None:
        return Text("built in")
    missing = any(found.version is None for found in drivers(spec.extra))
    return Text(f"pip install '{spec.extra}'", "yellow") if missing else Text("installed")


def _cell(value: object) -> Text:
    return Text(shown(value), {True: "green", False: "dim"}.get(value, "") if isinstance(value, bool) else "")


def _promises(specs: Sequence[BackendSpec]) -> str:
    """The table of the README: promises down, backends across, each for both apps."""
    from mqkit.testing.promises import COLOURS, kept, markdown

    capabilities = {spec.name: spec.capabilities for spec in specs}
    columns = [(name, colour) for name in capabilities for colour in COLOURS]
    return markdown(columns, lambda promise, column: "yes" if kept(promise, capabilities[column[0]]) else "-")


def _fields(spec: BackendSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "schemes": spec.schemes,
        "example_url": spec.example_url,
        "extra": spec.extra,
        "drivers": {found.name: found.version for found in drivers(spec.extra)},
        "capabilities": {f.name: getattr(spec.capabilities, f.name) for f in fields(Capabilities)},
    }
