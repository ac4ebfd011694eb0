"""The demo's bookkeeping: what was published must be billed or among the dead letters, and the totals must agree."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.shop.ledger import Ledger
from examples.shop.model import purchases_on_file
from examples.shop.old_till import BODIES
from mqkit import AsyncDeadLetters, DeadLetter

PATIENCE = 20.0
"""Seconds without any progress after which what is missing counts as lost."""


class Books:
    """What the file says against what billing did."""

    def __init__(self, ledger: Path, letters: AsyncDeadLetters, console: Console) -> None:
        self.ledger = Ledger(str(ledger))
        self.letters = letters
        self.console = console
        self.on_file = list(purchases_on_file())
        self.published = len(self.on_file) + len(BODIES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ledger.close()

    async def settle(self, what: str, check: Callable[[], None]) -> None:
        """Wait until every message is billed or dead; give up when nothing moves any more."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(what, total=self.published)
            seen, since = -1, time.monotonic()
            while seen < self.published and time.monotonic() - since < PATIENCE:
                check()
                done = len(self.ledger) + (await self.letters.count() or 0)
                if done != seen:
                    seen, since = done, time.monotonic()
                    bar.update(task, completed=done)
                await asyncio.sleep(0.1)

    async def show(self, title: str) -> Sequence[DeadLetter]:
        """Print what became of all messages; the dead letters."""
        dead = await self.letters.list(limit=self.published)
        lost = self.published - len(self.ledger) - len({letter.id for letter in dead})
        table = Table("", "messages", "", title=title, title_justify="left")
        table.columns[1].justify = "right"
        table.add_row("published", f"{self.published:,}", f"{len(BODIES)} of them broken, by an old till")
        table.add_row("handled", f"{len(self.ledger):,}", "each has a line in billing's ledger")
        table.add_row("retried", f"{self.ledger.retries():,}", "attempts after a first that failed")
        table.add_row("dead-lettered", f"{len(dead):,}", "")
        for (reason, error), count in Counter((x.reason, x.error_type) for x in dead).most_common():
            table.add_row("", "", f"{count:,} {reason}: {error.rpartition('.')[2]}")
        table.add_row("lost", f"{lost:,}", "", style="bold red" if lost else "bold green")
        self.console.print(table)
        return dead

    def compare(self) -> bool:
        """Compare each customer's total with the file, to the cent, and say how they stand."""
        wanted: defaultdict[str, Decimal] = defaultdict(Decimal)
        for purchase in self.on_file:
            wanted[purchase.customer] += purchase.dollars
        found = self.ledger.totals()
        wrong = [customer for customer in wanted.keys() | found.keys() if wanted[customer] != found.get(customer)]
        total, short = sum(wanted.values()), sum(wanted.values()) - sum(found.values())
        if wrong:
            self.console.print(f"The totals of {len(wrong)} customers differ from the file, by ${short:,} in all.")
        else:
            self.console.print(f"The totals of {len(wanted):,} customers agree with the file to the cent: ${total:,}.")
        return not wrong

    def complete(self, dead: Sequence[DeadLetter]) -> bool:
        """Whether every purchase is billed, and nothing is dead but what the old till broke."""
        return len(self.ledger) == len(self.on_file) and sorted(x.body for x in dead) == sorted(BODIES)
