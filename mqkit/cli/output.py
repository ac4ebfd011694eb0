"""How results look: tables and sentences for people, JSON for programs.

No escape sequences in pipes, none with NO_COLOR, and nothing is cut off in a pipe. What comes out of messages is made
harmless first: a body may hold the control sequences of a terminal.
"""

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mqkit.legible import harmless, in_line

ENDLESS = 10_000
"""Columns of a pipe: wide enough for every table."""


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji, no highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, markup=False, emoji=False, highlight=False, width=None if stream.isatty() else ENDLESS
    )


def complain(text: str) -> None:
    """An error, on stderr."""
    console(stderr=True).print(Text.assemble(("error: ", "bold red"), harmless(text)), soft_wrap=True)


def remark(text: str) -> None:
    """What people want to know beside the result, on stderr."""
    console(stderr=True).print(Text(harmless(text), "dim"), soft_wrap=True)


def put(result: RenderableType) -> None:
    """A result on stdout; in a pipe without the blanks that fill up lines."""
    out = console()
    if out.is_terminal:
        out.print(result)
        return
    with out.capture() as captured:
        out.print(result)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().rstrip("\n").split("\n")))
    sys.stdout.flush()


def section(title: str, content: RenderableType) -> None:
    """One part of a longer result, under its title."""
    put(Group(Text(title, "bold"), Padding(content, (0, 0, 0, 2), expand=False), ""))


def tell(text: str | Text) -> None:
    """A result in a sentence."""
    console().print(harmless(text) if isinstance(text, str) else text, soft_wrap=True)


def table(*columns: str, numbers: Iterable[str] = (), long: Iterable[str] = ()) -> Table:
    """An empty table. `numbers` are columns to align at the right, `long` those to shorten on a narrow terminal."""
    terminal = sys.stdout.isatty()
    found = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        found.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=name not in long or not terminal,
            overflow="ellipsis" if name not in long else "fold",
        )
    return found


def shown(value: object) -> str:
    """A value as a cell of a table; what is not known is a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else in_line(str(value))


def document(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")
    sys.stdout.flush()


def line(value: object) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(json.dumps(value, default=_plain) + "\n")
    sys.stdout.flush()


def header_text(value: object) -> str:
    """A header's value for people."""
    return in_line(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value))


def body_fields(body: bytes) -> dict[str, str]:
    """A body for JSON: as text in `body`, or in base64 in `body_base64` if it is not UTF-8."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def readable(body: bytes) -> Text:
    """A body for people: JSON indented, other text as it is, other bytes by number."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Text(f"{len(body):,} bytes, not text: {body[:40].hex(' ')}{' ...' if len(body) > 40 else ''}", "dim")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Text(harmless(text))
    from rich.json import JSON

    shown = JSON.from_data(value, ensure_ascii=False).text
    legible = (
        text.isprintable() and harmless(shown.plain) == shown.plain
    )  # `\\u009b` is harmless only while it is escaped
    return shown if legible else Text(json.dumps(value, indent=2))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
