"""`mqkit inspect`: how groups stand at the broker, once or again and again."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from mqkit.async_app import AsyncApp
from mqkit.backend import Counts
from mqkit.cli.failures import UsageError
from mqkit.cli.opening import Connection, connected, known_topics
from mqkit.cli.options import AsJson, Url
from mqkit.cli.output import console, document, line, put, shown, table, tell
from mqkit.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Row:
    """One group and how it stands."""

    topic: str
    group: str
    counts: Counts


def inspect(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="Only this topic.", show_default=False)] = None,
    group: Annotated[str | None, typer.Argument(metavar="GROUP", help="Only this group.", show_default=False)] = None,
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.1, help="Look again so often; Ctrl-C ends.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show how many messages are ready, in flight, waiting and dead.

    For one group, for all groups of a topic, or for all that the broker knows.

    Examples:
      $ mqkit inspect
      $ mqkit inspect purchases billing --json
      $ mqkit inspect --watch 2
    """
    if group is not None and topic is None:
        raise UsageError("a group is named with its topic: mqkit inspect TOPIC GROUP")
    asyncio.run(_inspect(AsyncApp(url), topic, group, watch, as_json=as_json))


async def _inspect(app: AsyncApp, topic: str | None, group: str | None, watch: float | None, *, as_json: bool) -> None:
    async with connected(app) as there:
        if watch is not None:
            await _watch(there, topic, group, watch, as_json=as_json)
            return
        rows = await _rows(there, topic, group)
        if as_json:
            document([_fields(row) for row in rows])
        elif rows:
            put(_table(there, rows))
        else:
            tell(f"{there.url} has no group yet: mqkit run, or mqkit topology apply, declares those of an app")


async def _rows(there: Connection, topic: str | None, group: str | None) -> Sequence[Row]:
    backend = there.backend
    if topic is not None and group is not None:
        return [Row(topic, group, await backend.inspect(topic, group))]
    known = await backend.groups(topic)
    if topic is not None and not known:
        others = sorted({name for name, _ in await backend.groups()})
        raise ConfigurationError(f"no group of a topic {topic!r} is known at {there.url}: {known_topics(others)}")
    return [Row(name, member, await backend.inspect(name, member)) for name, member in sorted(known)]


async def _watch(there: Connection, topic: str | None, group: str | None, every: float, *, as_json: bool) -> None:
    out = console()
    if as_json or not out.is_terminal:
        while True:
            rows = await _rows(there, topic, group)
            if as_json:
                line({"time": time.time(), "groups": [_fields(row) for row in rows]})
            else:
                put(_table(there, rows))
            await asyncio.sleep(every)
    with Live(console=out, auto_refresh=False, transient=False) as live:
        while True:
            live.update(_table(there, await _rows(there, topic, group)), refresh=True)
            await asyncio.sleep(every)


def _table(there: Connection, rows: Sequence[Row]) -> Table:
    columns = ["ready", "in flight", "waiting", "dead"]
    if there.backend.capabilities.lag:
        columns.append("lag")
    found = table("topic", "group", *columns, numbers=columns)
    for row in rows:
        counts = row.counts
        cells = [counts.ready, counts.in_flight, counts.waiting, counts.dead, counts.lag]
        style = "red" if counts.dead else None
        found.add_row(shown(row.topic), shown(row.group), *map(shown, cells[: len(columns)]), style=style)
    return found


def _fields(row: Row) -> dict[str, object]:
    return {"topic": row.topic, "group": row.group, **asdict(row.counts)}
