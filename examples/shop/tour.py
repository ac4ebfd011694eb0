"""What the demo shows, in order: sell and bill, the books, the dead letters, the mended release, the replays."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.shop import old_till, services
from examples.shop.books import Books
from examples.shop.model import purchases
from mqkit import AsyncApp, DeadLetter
from mqkit.dead import chooser
from mqkit.registry import masked

SHOWN = 6


async def tour(folder: Path) -> bool:
    """The whole demo; whether the books balance at its end."""
    console = Console(highlight=False)
    log = folder / "services.log"
    async with AsyncApp(service="demo") as app:
        shared = app.backend.capabilities.shared
        where = "two processes" if shared else "one process: no other could reach a broker inside of it"
        console.rule("A shop of two services")
        console.print(f"broker    {masked(app.settings.url)}", soft_wrap=True)
        console.print(f"topic     {purchases.name}\nservices  storefront and billing, {where}\n")
        letters = app.dead_letters(purchases, "billing")
        with Books(folder / "ledger.db", letters, console) as books:
            async with services.billing("1", shared=shared, log=log) as check:
                await services.storefront(shared=shared, log=log)
                await old_till.send()
                await books.settle("billing works", check)
            dead = await books.show("The books of billing 1")
            books.compare()
            console.print()
            console.print(listing(dead))

            console.rule("Billing 2 mends the bug: it has a crate for large orders")
            async with services.billing("2", shared=shared, log=log) as check:
                first = next(letter for letter in dead if letter.reason == "exhausted")
                console.print(f"replayed message {first.id}\n{first.body.decode()}", soft_wrap=True)
                await letters.replay(chooser([first.id]))
                await books.settle("billing works", check)
                others = await letters.replay()
                console.print(f"replayed the other {len(others)} dead letters")
                await books.settle("billing works", check)
            left = await books.show("The books of billing 2")
            balanced = books.compare() and books.complete(left)
    if balanced:
        console.print("What is still dead was never a purchase: no replay mends a body.")
        console.print("The books balance.", style="bold green")
    else:
        console.print("The books do not balance.", style="bold red")
    return balanced


def listing(letters: Sequence[DeadLetter]) -> Table:
    """The first dead letters, a line for each."""
    table = Table(title=f"Dead letters: {len(letters)}", title_justify="left", expand=True)
    for name, ratio in (("reason", None), ("error", 3), ("attempts", None), ("body", 2)):
        table.add_column(name, no_wrap=True, ratio=ratio)
    for letter in letters[:SHOWN]:
        table.add_row(letter.reason, letter.error, str(letter.attempts), letter.body.decode())
    if len(letters) > SHOWN:
        table.add_row("...")
    return table
