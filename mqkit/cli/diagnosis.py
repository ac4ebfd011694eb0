"""What `mqkit doctor` finds out: each step goes on where the one before failed, as far as it can."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mqkit.async_app import AsyncApp
from mqkit.cli.drivers import Driver, driver, drivers
from mqkit.cli.failures import sentence
from mqkit.cli.loading import load_for_tools
from mqkit.cli.opening import connected
from mqkit.cli.options import at
from mqkit.errors import ConfigurationError, MqkitError
from mqkit.plugins import PluginInfo
from mqkit.registry import masked
from mqkit.settings import FILE, provenance
from mqkit.topology import Finding, TopicNeed, Topology

OWN = ("mqkit", "pydantic", "pydantic-settings", "pluggy", "typer", "rich")


@dataclass(slots=True)
class Diagnosis:
    """All that was found out; `problems` are sentences."""

    settings: list[tuple[str, str, str]] = field(default_factory=list)
    """Setting, value, who decided it."""
    plugins: Sequence[PluginInfo] = ()
    packages: list[Driver] = field(default_factory=list)
    url: str = ""
    backend: str = ""
    broker: str | None = None
    """What it says it is; None if it does not answer."""
    seconds: float | None = None
    """Until it answered."""
    findings: Sequence[Finding] | None = None
    problems: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    """Sentences, too: what is no problem, and should be known."""


async def diagnose(url: str | None, path: str | None) -> Diagnosis:
    """Look at the settings, the plugins, the broker, and the topology of the app at `path`."""
    found = Diagnosis(packages=[driver(name) for name in OWN])
    try:
        app = AsyncApp(url) if path is None else load_for_tools(path, url)
    except MqkitError as error:
        found.problems.append(sentence(error))
        if path is None:
            return found
        try:
            app, path = AsyncApp(url), None
        except MqkitError as second:
            if sentence(second) not in found.problems:
                found.problems.append(sentence(second))
            return found
    _configuration(app, found)
    if path is not None:
        _policies(app, path, found)
    try:
        spec = app.engine.plugins.backends.spec(app.settings.url)
        found.backend = spec.name
        found.packages += drivers(spec.extra)
        await _broker(app, path, at(url), found)
    except MqkitError as error:
        found.problems.append(sentence(error))
    return found


def _configuration(app: AsyncApp, found: Diagnosis) -> None:
    found.url = masked(app.settings.url)
    found.plugins = app.engine.plugins.listing()
    decided = provenance(app.settings, app.engine.arguments)
    for name, value in app.settings.model_dump(mode="json", exclude_defaults=False, exclude={"groups"}).items():
        text = found.url if name == "url" else ", ".join(value) if isinstance(value, list) else str(value)
        found.settings.append((name, text, decided[name]))
    for name, policy in app.settings.groups.items():
        changes = policy.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        found.settings.append((f"groups.{name}", ", ".join(_flat(changes)), decided["groups"]))


def _flat(changes: dict[str, object], prefix: str = "") -> list[str]:
    flat = []
    for name, value in changes.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}={value}"]
    return flat


def _policies(app: AsyncApp, path: str, found: Diagnosis) -> None:
    known = {f"{r.topic.name}.{r.group}" for r in app.registrations}
    for name in sorted(set(app.settings.groups) - known):
        there = f"it handles {', '.join(sorted(known))}" if known else "it handles nothing"
        found.problems.append(f"the policy for {name!r} in {FILE} or MQKIT_GROUPS fits no handler of {path}: {there}")


async def _broker(app: AsyncApp, path: str | None, where: str, found: Diagnosis) -> None:
    started = time.monotonic()
    async with connected(app) as there:
        found.seconds = time.monotonic() - started
        found.broker = there.description
        if path is not None:
            found.findings = await there.backend.examine(app.topology())
            found.problems += [line for finding in found.findings for line in finding.lines()]
            found.problems += [danger for finding in found.findings for danger in finding.dangers]
            found.cautions += [caution for finding in found.findings for caution in finding.cautions]
            missing = [finding for finding in found.findings if finding.lacking(declare=False)]
            if missing and not app.settings.declare:
                found.problems.append(
                    f"declare is off and {len(missing)} things are missing at the broker: "
                    f"mqkit topology apply {path}{where}"
                )
        else:
            try:
                groups = await there.backend.groups()
            except ConfigurationError as error:
                found.cautions.append(sentence(error))
                return
            needs = [TopicNeed(topic, frozenset({group})) for topic, group in groups]
            for finding in await there.backend.examine(Topology().including(needs)):
                found.problems += finding.dangers
                found.cautions += [one for one in finding.cautions if one not in found.cautions]
