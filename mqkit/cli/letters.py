"""How dead letters look to people: a list of them, and all that is known about one."""

import sys
from collections.abc import Sequence

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from mqkit.cli.output import header_text, put, readable, section, shown, table
from mqkit.dead import DeadLetter
from mqkit.legible import harmless, in_line


def listing(letters: Sequence[DeadLetter]) -> None:
    """Two lines for each on a terminal, where an error has room; one row in a pipe."""
    if sys.stdout.isatty():
        for letter in letters:
            head = Text(in_line(letter.id or "no id"), "bold cyan")
            if letter.key is not None:
                head.append("  key ", "dim").append(in_line(letter.key))
            head.append(f"  {in_line(letter.reason) or 'dead'}", "yellow")
            head.append(f"  {letter.attempts} attempt{'s' * (letter.attempts != 1)}  {_moment(letter)}", "not bold dim")
            put(head)
            put(Padding(Text(_error(letter), no_wrap=True, overflow="ellipsis"), (0, 0, 0, 2)))
        return
    rows = table("id", "key", "reason", "attempts", "last failed", "error", numbers=["attempts"])
    for letter in letters:
        cells = (letter.id, letter.key, letter.reason, letter.attempts, _moment(letter), _error(letter))
        rows.add_row(*map(shown, cells))
    put(rows)


def _error(letter: DeadLetter) -> str:
    """Type and text in one line."""
    parts = (letter.error_type.rpartition(".")[2], letter.error)
    return in_line(" ".join(": ".join(part for part in parts if part).split()))


def _moment(letter: DeadLetter) -> str:
    return in_line(letter.last_failed[:19].replace("T", " "))


def portrait(letter: DeadLetter) -> None:
    """Why it died, its headers, its body."""
    facts = table("", "")
    facts.show_header = False
    for name, value in (
        ("id", letter.id),
        ("topic, group", f"{letter.topic}, {letter.group}"),
        ("key", letter.key),
        ("reason", letter.reason),
        ("error", ": ".join(part for part in (letter.error_type, letter.error) if part)),
        ("attempts", letter.attempts),
        ("first failed", letter.first_failed),
        ("last failed", letter.last_failed),
        ("handler", letter.handler),
        ("service", letter.service),
        ("came from", letter.origin),
        ("content type", letter.content_type),
    ):
        if value not in (None, ""):
            facts.add_row(Text(name, "dim"), Text(shown(value), overflow="fold", no_wrap=False))
    facts.columns[1].no_wrap = False
    facts.columns[1].overflow = "fold"
    put(Group(facts, ""))
    if letter.traceback:
        section("Traceback", Text(harmless(letter.traceback.rstrip())))
    if letter.headers:
        headers = "\n".join(f"{in_line(name)}: {header_text(value)}" for name, value in letter.headers.items())
        section("Headers", Text(headers))
    section("Body", readable(letter.body))
