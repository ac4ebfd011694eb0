"""`mqkit topology plan` and `apply`: what an app needs at its broker, and what of it is there."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.text import Text

from mqkit.async_app import AsyncApp
from mqkit.cli.loading import load_for_tools
from mqkit.cli.opening import connected
from mqkit.cli.options import AppPath, AsJson, Url, at
from mqkit.cli.output import document, section, table, tell
from mqkit.declarations import complete
from mqkit.errors import TopologyError
from mqkit.legible import harmless
from mqkit.registry import masked
from mqkit.topology import Finding, State

TO_DO = 2
DIFFERENT = 3
ACTIONS: dict[State, tuple[str, str]] = {
    "missing": ("create", "bold green"),
    "on-demand": ("when needed", "green"),
    "present": ("keep", "dim"),
    "differs": ("differs", "bold red"),
}

commands = typer.Typer(name="topology", no_args_is_help=True, help="What an app needs at its broker: plan, apply.")


def plan(app: AppPath, url: Url = None, as_json: AsJson = False) -> None:
    """Show what `apply` would create. Changes nothing.

    What an app makes only when it first needs it is marked, and is nothing that is missing unless declare is off.

    Exit code: 0 there is nothing to do, 2 something is missing, 3 something exists with other settings.

    Examples:
      $ mqkit topology plan shop:app
      $ mqkit topology plan shop --url amqp://ops:secret@rabbit/ --json
    """
    found = load_for_tools(app, url)
    findings = asyncio.run(_examined(found))
    _show(found, findings, as_json=as_json)
    missing = sum(finding.lacking(declare=found.settings.declare) for finding in findings)
    wrong, later = _count(findings, "differs"), _count(findings, "on-demand") if found.settings.declare else 0
    if not as_json:
        parts = [f"{missing} to create"] * bool(missing) + [f"{wrong} with other settings"] * bool(wrong)
        advice = f": mqkit topology apply {app}{at(url)}" if missing and not wrong else ""
        if later:
            tell(f"{later} are made when an app first needs them, or by mqkit topology apply {app}{at(url)}")
        tell(", ".join(parts) + advice if parts else "nothing to do")
    if wrong:
        raise typer.Exit(DIFFERENT)
    if missing:
        raise typer.Exit(TO_DO)


def apply(app: AppPath, url: Url = None, as_json: AsJson = False) -> None:
    """Create what is missing, also what an app makes only when it needs it. Never changes or deletes what exists.

    Exit code: 0 everything is there now, 3 something exists with other settings and was left alone.

    Examples:
      $ mqkit topology apply shop:app
    """
    found = load_for_tools(app, url)
    before, after = asyncio.run(_applied(found))
    created = [b for b in before if b.lacking(declare=False) and _state(after, b) == "present"]
    wrong = [finding for finding in after if finding.state == "differs"]
    if as_json:
        _show(found, after, as_json=True, created=created)
    else:
        if wrong:
            _show(found, wrong, as_json=False)
        names = ": " + ", ".join(f"{f.kind} {f.name}" for f in created) if created else ""
        tell(f"created {len(created)}{names}" if created else "created nothing: all of it was there already")
    if wrong:
        raise typer.Exit(DIFFERENT)


async def _examined(app: AsyncApp) -> Sequence[Finding]:
    async with connected(app) as there:
        return await there.backend.examine(app.topology())


async def _applied(app: AsyncApp) -> tuple[Sequence[Finding], Sequence[Finding]]:
    """What was found before and after."""
    topology = app.topology()
    async with connected(app) as there:
        before = await there.backend.examine(topology)
        try:
            await complete(there.backend, topology)
        except TopologyError:
            after = await there.backend.examine(topology)
            if not _count(after, "differs"):
                raise
            return before, after
        return before, await there.backend.examine(topology)


def _count(findings: Sequence[Finding], state: State) -> int:
    return sum(finding.state == state for finding in findings)


def _state(findings: Sequence[Finding], wanted: Finding) -> State | None:
    return next((f.state for f in findings if (f.kind, f.name) == (wanted.kind, wanted.name)), None)


def _show(app: AsyncApp, findings: Sequence[Finding], *, as_json: bool, created: Sequence[Finding] = ()) -> None:
    url = masked(app.settings.url)
    if as_json:
        found: dict[str, object] = {"url": url, "findings": [_fields(finding) for finding in findings]}
        if created:
            found["created"] = [{"kind": f.kind, "name": f.name} for f in created]
        document(found)
        return
    rows = table("", "kind", "name", "settings", long=["settings"])
    for finding in findings:
        word, style = ACTIONS[finding.state]
        settings = Text(harmless(", ".join(f"{name} {value}" for name, value in finding.settings)), "dim")
        rows.add_row(Text(word, style), finding.kind, Text(harmless(finding.name)), settings)
        for difference in finding.differences:
            rows.add_row("", "", "", Text(harmless(str(difference)), "red"))
    section(url, rows)


def _fields(finding: Finding) -> dict[str, object]:
    fields = asdict(finding)
    return {**fields, "action": ACTIONS[finding.state][0], "settings": dict(finding.settings)}
