"""The tables, and the states of a delivery.

A message's body is stored once. A group's deliveries refer to it, and the row goes with the last of them. The state is
part of a delivery's place in its table, so that "what is ready, in order" is one look at one tree.
"""

from typing import Final

APPLICATION_ID: Final = 0x6D716B74
"""`mqkt`, in the file's header: this file is ours."""
VERSION: Final = 3
"""In the file's header: of these tables. Raise it with every change to them, and add the change to UPGRADES."""

READY: Final = 0
HELD: Final = 1
WAITING: Final = 2
DEAD: Final = 3
DEAD_HELD: Final = 4
"""A dead letter that somebody looks at."""

TABLES: Final = (
    "CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    # tail: the member that this temporary group belongs to, 0 for a real one
    """CREATE TABLE topic_group (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic INTEGER NOT NULL REFERENCES topic,
        name TEXT NOT NULL,
        tail INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, name, tail))""",
    """CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        body BLOB NOT NULL,
        headers TEXT,
        content_type TEXT,
        message_id TEXT,
        properties TEXT)""",
    # times: how often its member was lost with it; spent: what was last noted with it; begun: how often it was begun by
    # a member that was not heard of again yet
    """CREATE TABLE delivery (
        topic_group INTEGER NOT NULL REFERENCES topic_group,
        state INTEGER NOT NULL,
        message INTEGER NOT NULL REFERENCES message,
        key BLOB,
        member INTEGER,
        due REAL,
        returned INTEGER NOT NULL,
        times INTEGER NOT NULL DEFAULT 0,
        spent INTEGER NOT NULL DEFAULT 0,
        begun INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (topic_group, state, message)) WITHOUT ROWID""",
    "CREATE INDEX delivery_due ON delivery (topic_group, due) WHERE state = 2",
    # the highest number that a message ever had: numbers are never used again
    "CREATE TABLE counter (last INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (0)",
    # AUTOINCREMENT: a member's number is never used again, so that an old claim can never be taken for a new one
    """CREATE TABLE member (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        topic_group INTEGER NOT NULL,
        tail INTEGER NOT NULL,
        locked INTEGER NOT NULL,
        lease REAL NOT NULL,
        expires REAL NOT NULL)""",
)

UPGRADES: Final = {
    1: "ALTER TABLE delivery ADD COLUMN spent INTEGER NOT NULL DEFAULT 0",
    2: "ALTER TABLE delivery ADD COLUMN begun INTEGER NOT NULL DEFAULT 0",
}
"""By the version that they start from. One who has the file open, with an earlier mqkit, must be able to go on."""
