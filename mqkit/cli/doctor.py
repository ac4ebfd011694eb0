"""`mqkit doctor`: what was decided and from where, what is installed, whether the broker answers."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from mqkit.cli.diagnosis import Diagnosis, diagnose
from mqkit.cli.options import AsJson, Url
from mqkit.cli.output import document, section, shown, table, tell
from mqkit.legible import harmless


def doctor(
    app: Annotated[
        str | None, typer.Argument(metavar="MODULE:APP", help="Look at its topology too.", show_default=False)
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Say what is set up, and what is wrong with it.

    Exit code: 0 all is well, 1 something is wrong.

    Examples:
      $ mqkit doctor
      $ mqkit doctor shop:app --json
    """
    found = asyncio.run(diagnose(url, app))
    if as_json:
        document(_fields(found))
    else:
        _show(found)
    if found.problems:
        raise typer.Exit(1)


def _show(found: Diagnosis) -> None:
    if found.settings:
        rows = table("setting", "value", "from", long=["value"])
        for name, value, origin in found.settings:
            decided = Text(origin, "dim" if origin == "default" else "bold")
            rows.add_row(harmless(name), Text(shown(value)), decided)
        section("Settings", rows)
    if found.plugins:
        rows = table("plugin", "distribution", "version", "hooks", long=["hooks"])
        for plugin in found.plugins:
            rows.add_row(plugin.name, shown(plugin.distribution), shown(plugin.version), ", ".join(plugin.hooks))
        section("Plugins", rows)
    rows = table("package", "version")
    for package in found.packages:
        rows.add_row(package.name, package.version or Text("not installed", "red"))
    section("Packages", rows)
    if found.broker is not None and found.seconds is not None:
        section("Broker", f"{found.broker} at {found.url} answered in {found.seconds * 1000:,.0f} ms")
    if found.findings is not None:
        states = [finding.state for finding in found.findings]
        there, missing, differing = (states.count(state) for state in ("present", "missing", "differs"))
        later = states.count("on-demand")
        made_later = f", {later} made when needed" if later else ""
        section("Topology", f"{there} there, {missing} missing{made_later}, {differing} with other settings")
    for problem in found.problems:
        tell(Text.assemble(("✗ ", "bold red"), harmless(problem)))
    for caution in found.cautions:
        tell(Text.assemble(("! ", "bold yellow"), harmless(caution)))
    if not found.problems:
        tell(Text.assemble(("✓ ", "bold green"), "all is well"))


def _fields(found: Diagnosis) -> dict[str, object]:
    fields = asdict(found)
    fields["settings"] = {name: {"value": value, "from": origin} for name, value, origin in found.settings}
    return {"ok": not found.problems, **fields}
