"""`mqkit publish`: one payload, or many as JSON lines; nothing of a batch is sent before all of it was checked."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mqkit.async_app import AsyncApp
from mqkit.cli.failures import UsageError
from mqkit.cli.loading import load_for_tools, topics_of
from mqkit.cli.opening import known_topics, require_topic
from mqkit.cli.options import AsJson, TopicName, Url
from mqkit.cli.output import complain, console, document, line, remark, tell
from mqkit.cli.payloads import Line, Reader, WrongLine, lines_of
from mqkit.errors import ConfigurationError, MqkitError, Unroutable
from mqkit.registry import masked
from mqkit.topic import Topic

CHUNK = 500
"""Messages that are on their way together."""
LISTED = 5
"""Wrong lines that are told one by one."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What goes with every message of the batch."""

    topic: Topic[Any]
    headers: dict[str, str]
    delay: float


@dataclass(slots=True)
class Report:
    """What became of the batch."""

    total: int
    skipped: list[WrongLine]
    ids: dict[int, str] = field(default_factory=dict)
    """By position."""
    errors: dict[int, MqkitError] = field(default_factory=dict)


def publish(
    topic: TopicName,
    payload: Annotated[
        str | None, typer.Argument(metavar="PAYLOAD", help="One JSON document; '-' or nothing: JSON lines from stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="Read JSON lines from FILE.")] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The key of each message.")] = None,
    key_field: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The field of a payload that is its key.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header; may be repeated.", show_default=False)
    ] = None,
    delay: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="No group gets it before.")] = 0.0,
    app: Annotated[
        str | None, typer.Option(metavar="MODULE:APP", help="Check against this app's schema, and use its key.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Declare the topic with this group; may be repeated.", show_default=False),
    ] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Leave wrong lines out and go on.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Publish one message, or a batch of JSON lines.

    It returns when the broker has made every message safe. A batch is checked to its end before anything is sent.

    Examples:
      $ mqkit publish purchases '{"customer": "ada", "cds": 2}' --key ada
      $ mqkit publish purchases --file orders.jsonl --app shop:app
      $ generate-orders | mqkit publish purchases --key-field customer --skip-invalid
    """
    if key is not None and key_field is not None:
        raise UsageError("--key and --key-field exclude each other: give one of them")
    lines = _given(payload, file)
    found = AsyncApp(url, declare=bool(group)) if app is None else load_for_tools(app, url)
    known = None if app is None else _topic_of(app, found, topic)
    draft = Draft(
        _addressed(topic, known, key, key_field, group or ()), dict(_header(text) for text in header or ()), delay
    )
    reader = Reader(draft.topic, found.engine.plugins.codecs)
    wrong = reader.wrong(lines)
    if wrong and not (skip_invalid and lines[0].number):
        raise ConfigurationError(_refused(wrong))
    bad = {w.line.number for w in wrong}
    good = [line for line in lines if line.number not in bad or not line.number]
    report = Report(len(good), wrong)
    try:
        asyncio.run(_publish(found, draft, reader, good, report, new=bool(group or app)))
    except BaseException:
        if report.ids:
            _tell(report, good, draft.topic.name, as_json=as_json)
        raise
    _tell(report, good, draft.topic.name, as_json=as_json)
    if report.errors:
        raise typer.Exit(1)


def _given(payload: str | None, file: Path | None) -> list[Line]:
    if payload is not None and file is not None:
        raise UsageError("a payload and --file exclude each other: give one of them")
    if payload is not None and payload != "-":
        return [Line(0, payload.encode("utf-8", "surrogateescape"))]
    if payload is None and file is None and sys.stdin.isatty():
        raise UsageError("nothing to publish: give a payload, --file FILE, or JSON lines on stdin")
    lines = lines_of(file)
    if not lines:
        raise ConfigurationError(f"nothing to publish: {file or 'stdin'} holds no line of JSON")
    return lines


def _topic_of(path: str, app: AsyncApp, name: str) -> Topic[Any]:
    topics = topics_of(path, app)
    if name not in topics:
        raise ConfigurationError(f"{path} has no topic {name!r}: {known_topics(sorted(topics))}")
    return topics[name]


def _addressed(
    name: str, known: Topic[Any] | None, key: str | None, key_field: str | None, groups: Sequence[str]
) -> Topic[Any]:
    """The topic to publish to, its key replaced if one was given."""
    topic: Topic[Any] = Topic(name, groups=groups)
    if known is not None:
        topic = Topic(
            name,
            known.schema,
            groups=(*known.groups, *groups),
            content_type=known.content_type,
            options=known.options,
        )
        topic.key = known.key
    if key is not None:
        topic.key = lambda _: key
    elif key_field is not None:
        topic.key = key_field
    return topic


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--header {text!r} is not NAME=VALUE: write it as in --header trace=42")
    return name, value


def _refused(wrong: Sequence[WrongLine]) -> str:
    told = "; ".join(map(str, wrong[:LISTED]))
    if not wrong[0].line.number:
        return f"{told}; nothing was sent"
    more = f"; and {len(wrong) - LISTED:,} more" if len(wrong) > LISTED else ""
    return f"{told}{more}; nothing was sent: mend {'it' if len(wrong) == 1 else 'them'}, or pass --skip-invalid"


async def _publish(
    app: AsyncApp, draft: Draft, reader: Reader, lines: Sequence[Line], report: Report, *, new: bool
) -> None:
    async with app:
        if not new:
            url = masked(app.settings.url)
            await require_topic(app.backend, url, draft.topic.name, "; --group GROUP declares one")
        with _progress() as progress:
            task = progress.add_task("publishing", total=len(lines))
            async for done in _sent(app, draft, reader, lines, report):
                progress.update(task, completed=done)


async def _sent(
    app: AsyncApp, draft: Draft, reader: Reader, lines: Sequence[Line], report: Report
) -> AsyncGenerator[int]:
    """Send in order, the first alone (it may have to declare the topic); stop at the first chunk with an error."""
    start, end = 0, min(1, len(lines))
    while start < end and not report.errors:
        results = await asyncio.gather(
            *(
                app.publish(draft.topic, reader.payload(line), headers=draft.headers, delay=draft.delay)
                for line in lines[start:end]
            ),
            return_exceptions=True,
        )
        for position, result in enumerate(results, start):
            if isinstance(result, str):
                report.ids[position] = result
            elif isinstance(result, MqkitError):
                report.errors[position] = result
            else:
                raise result
        yield end
        start, end = end, min(end + CHUNK, len(lines))


def _progress() -> Progress:
    out = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=out, transient=True, disable=not out.is_terminal,
    )  # fmt: skip


def _tell(report: Report, lines: Sequence[Line], topic: str, *, as_json: bool) -> None:
    single = bool(lines) and not lines[0].number
    if as_json:
        _tell_programs(report, lines, single=single)
    elif single and report.ids:
        tell(f"published {report.ids[0]} to {topic}")
    elif not single:
        tell(f"published {len(report.ids):,} of {report.total + len(report.skipped):,} messages to {topic}")
    for wrong in report.skipped[:LISTED]:
        remark(f"skipped {wrong}")
    if len(report.skipped) > LISTED:
        remark(f"skipped {len(report.skipped) - LISTED:,} more")
    if report.errors:
        first = min(report.errors)
        error = report.errors[first]
        advice = "; --group GROUP declares a group" if isinstance(error, Unroutable) else ""
        unsent = report.total - len(report.ids) - len(report.errors)
        count = f" ({len(report.errors):,} messages failed, {unsent:,} were not tried)" if not single else ""
        complain(f"{lines[first].where}: {' '.join(str(error).split())}{advice}{count}")


def _tell_programs(report: Report, lines: Sequence[Line], *, single: bool) -> None:
    for position in sorted({*report.ids, *report.errors}):
        result: dict[str, object] = {} if single else {"line": lines[position].number}
        if position in report.ids:
            result["id"] = report.ids[position]
        else:
            result["error"] = str(report.errors[position])
        (document if single else line)(result)
    for wrong in report.skipped:
        line({"line": wrong.line.number, "skipped": wrong.why})
