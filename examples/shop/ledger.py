"""Billing's own books: one line for each purchase, whoever enters it and however often. A small SQLite file."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from examples.shop.model import Purchase

TABLES = """
CREATE TABLE IF NOT EXISTS billed (purchase INTEGER PRIMARY KEY, customer TEXT, dollars TEXT, parcel TEXT);
CREATE TABLE IF NOT EXISTS retries (message TEXT);
"""


class Ledger:
    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")  # what was entered outlives the process
        self.db.executescript(TABLES)

    def enter(self, purchase: Purchase, parcel: str) -> None:
        """Enter `purchase`; nothing happens if it is there already."""
        line = (purchase.number, purchase.customer, str(purchase.dollars), parcel)
        self.db.execute("INSERT OR IGNORE INTO billed VALUES (?, ?, ?, ?)", line)

    def note_retry(self, message: str) -> None:
        """Count one more retry."""
        self.db.execute("INSERT INTO retries VALUES (?)", (message,))

    def __len__(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM billed").fetchone()[0])

    def retries(self) -> int:
        """How many retries were noted."""
        return int(self.db.execute("SELECT count(*) FROM retries").fetchone()[0])

    def totals(self) -> Mapping[str, Decimal]:
        """Customer -> dollars, to the cent."""
        totals: defaultdict[str, Decimal] = defaultdict(Decimal)
        for customer, dollars in self.db.execute("SELECT customer, dollars FROM billed"):
            totals[customer] += Decimal(dollars)
        return totals

    def close(self) -> None:
        self.db.close()
