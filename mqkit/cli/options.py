"""The options and arguments that several commands take, each said once."""

import shlex
from typing import Annotated

import typer

from mqkit.registry import masked

EVERYWHERE = "Everywhere"

TopicName = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.", show_default=False)]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.", show_default=False)]
AppPath = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:APP", help="Where the AsyncApp is: module and attribute. 'shop' is short for shop:app.",
        show_default=False,
    ),
]  # fmt: skip
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", show_default=False, rich_help_panel=EVERYWHERE,
        help="The broker. Otherwise MQKIT_URL, then url in mqkit.toml, then sqlite:///mqkit.db.",
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.", rich_help_panel=EVERYWHERE)]


def at(url: str | None) -> str:
    """How a command that is advised names the broker that this one was told to use; without its password."""
    return f" --url {shlex.quote(masked(url))}" if url else ""
