"""`mqkit dlq`: the dead letters of a group: list, show, replay, purge."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mqkit.async_app import AsyncApp
from mqkit.cli.failures import UsageError
from mqkit.cli.letters import listing, portrait
from mqkit.cli.options import AsJson, GroupName, TopicName, Url, at
from mqkit.cli.output import (
    console,
    document,
    remark,
    tell,
)
from mqkit.dead import AsyncDeadLetters, Choose, DeadLetter, chooser
from mqkit.errors import ConfigurationError

T = TypeVar("T")

Ids = Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="With this id; may be repeated.",
                                                show_default=False)]  # fmt: skip
Reason = Annotated[str | None, typer.Option(metavar="REASON", help="Dead for this reason: exhausted, rejected, ...")]
Error = Annotated[str | None, typer.Option(metavar="TEXT", help="With this in the error's type or text.")]
Key = Annotated[str | None, typer.Option(metavar="KEY", help="With this key.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="At most N.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which.")]

commands = typer.Typer(name="dlq", no_args_is_help=True, help="A group's dead letters: list, show, replay, purge.")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters were asked for."""

    ids: tuple[str, ...]
    choose: Choose


def list_(
    topic: TopicName,
    group: GroupName,
    id: Ids = None,
    reason: Reason = None,
    error: Error = None,
    key: Key = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most N.")] = 100,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, without taking them out.

    Examples:
      $ mqkit dlq list purchases billing
      $ mqkit dlq list purchases billing --reason exhausted --error TimeoutError --json
    """
    choose = chooser(id or None, reason=reason, error=error, key=key)

    async def ask(letters: AsyncDeadLetters) -> tuple[Sequence[DeadLetter], int | None]:
        return await letters.list(limit, choose), await letters.count()

    found, count = _with_letters(url, topic, group, ask)
    if as_json:
        document([letter.as_dict() for letter in found])
        return
    if not found:
        tell(f"{topic}.{group} has no dead letters" if not count else f"none of the {count:,} dead letters fits")
        return
    listing(found)
    if count is not None and count > len(found):
        remark(f"{len(found):,} of {count:,}")


def show(
    topic: TopicName,
    group: GroupName,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `mqkit dlq list` shows it.", show_default=False)],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it died, its headers, its body.

    Examples:
      $ mqkit dlq show purchases billing 1f0c5a7e-6d5c-4c57-8a43-1f1ab3a27a53
    """

    async def ask(letters: AsyncDeadLetters) -> Sequence[DeadLetter]:
        return await letters.list(1, chooser((id,)))

    found = _with_letters(url, topic, group, ask)
    if not found:
        raise ConfigurationError(
            f"{topic}.{group} has no dead letter {id!r}: see `mqkit dlq list {topic} {group}{at(url)}`"
        )
    if as_json:
        document(found[0].as_dict())
    else:
        portrait(found[0])


def replay(
    topic: TopicName,
    group: GroupName,
    id: Ids = None,
    reason: Reason = None,
    error: Error = None,
    key: Key = None,
    all: All = False,
    limit: Limit = None,
    rate: Annotated[float | None, typer.Option(metavar="N", min=0.001, help="At most N in a second.")] = None,
    dry_run: DryRun = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their group alone, attempts counted anew.

    Each is removed when its copy is safe: interrupted, run it again; nothing is lost.

    Examples:
      $ mqkit dlq replay purchases billing --all --dry-run
      $ mqkit dlq replay purchases billing --error ConnectionError --limit 100 --rate 10
    """
    chosen = _chosen(id, reason, error, key, all=all)

    async def act(letters: AsyncDeadLetters, progress: Callable[[int], None]) -> Sequence[str]:
        return await letters.replay(chosen.choose, limit=limit, rate=rate, dry=dry_run, progress=progress)

    ids = _counted("replayed", url, topic, group, act, _smaller(limit, len(chosen.ids) or None))
    _tell("replayed", topic, group, ids, chosen, dry=dry_run, as_json=as_json)


def purge(
    topic: TopicName,
    group: GroupName,
    id: Ids = None,
    reason: Reason = None,
    error: Error = None,
    key: Key = None,
    all: All = False,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good. Asks before it does.

    Examples:
      $ mqkit dlq purge purchases billing --reason schema
      $ mqkit dlq purge purchases billing --all --yes
    """
    chosen = _chosen(id, reason, error, key, all=all)
    if not yes and not dry_run:
        if not sys.stdin.isatty():
            raise UsageError("purge deletes for good and nobody is there to be asked: pass --yes, or --dry-run to look")

        async def count(letters: AsyncDeadLetters) -> Sequence[str]:
            return await letters.purge(chosen.choose, limit=limit, dry=True)

        found = _with_letters(url, topic, group, count)
        if found and not typer.confirm(f"Delete {_letters(len(found))} of {topic}.{group} for good?", err=True):
            remark("nothing was deleted")
            raise typer.Exit(1)

    async def act(letters: AsyncDeadLetters, progress: Callable[[int], None]) -> Sequence[str]:
        return await letters.purge(chosen.choose, limit=limit, dry=dry_run, progress=progress)

    ids = _counted("purged", url, topic, group, act, _smaller(limit, len(chosen.ids) or None))
    _tell("purged", topic, group, ids, chosen, dry=dry_run, as_json=as_json)


def _counted(
    verb: str,
    url: str | None,
    topic: str,
    group: str,
    act: Callable[[AsyncDeadLetters, Callable[[int], None]], Awaitable[Sequence[str]]],
    most: int | None,
) -> Sequence[str]:
    """What `act` returns, under a progress bar; an interruption says how far it came."""
    done = 0

    async def shown_act(letters: AsyncDeadLetters) -> Sequence[str]:
        with _progress(verb) as progress:
            task = progress.add_task("", total=_smaller(most, await letters.count()))

            def advance(count: int) -> None:
                nonlocal done
                done = count
                progress.update(task, completed=count)

            return await act(letters, advance)

    try:
        return _with_letters(url, topic, group, shown_act)
    except KeyboardInterrupt:
        remark(f"interrupted: {verb} {_letters(done)}; run it again for the rest")
        raise


def _with_letters(url: str | None, topic: str, group: str, act: Callable[[AsyncDeadLetters], Awaitable[T]]) -> T:
    app = AsyncApp(url)

    async def opened() -> T:
        async with app:
            return await act(app.dead_letters(topic, group))

    return asyncio.run(opened())


def _chosen(ids: list[str] | None, reason: str | None, error: str | None, key: str | None, *, all: bool) -> Chosen:
    given = bool(ids) or reason is not None or error is not None or key is not None
    if all == given:
        raise UsageError("say which: --all, or some of --id, --reason, --error, --key")
    if error == "":
        raise UsageError("--error is empty, which stands in every error: leave it out, or say --all")
    return Chosen(tuple(ids or ()), chooser(ids or None, reason=reason, error=error, key=key))


def _smaller(limit: int | None, count: int | None) -> int | None:
    return min((n for n in (limit, count) if n is not None), default=None)


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _tell(verb: str, topic: str, group: str, ids: Sequence[str], chosen: Chosen, *, dry: bool, as_json: bool) -> None:
    absent = [wanted for wanted in chosen.ids if wanted not in ids]
    if as_json:
        document({verb: list(ids), "dry_run": dry, "absent": absent})
    else:
        if dry:
            for found in ids:
                tell(found)
        tell(f"{f'would have {verb}' if dry else verb} {_letters(len(ids))} of {topic}.{group}")
    if absent:
        raise ConfigurationError(
            f"{topic}.{group} has no dead letter {', '.join(map(repr, absent))} that fits: "
            f"see `mqkit dlq list {topic} {group}`"
        )


def _progress(verb: str) -> Progress:
    out = console(stderr=True)
    return Progress(
        TextColumn(verb), BarColumn(), MofNCompleteColumn(), console=out, transient=True, disable=not out.is_terminal
    )
