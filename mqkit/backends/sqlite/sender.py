"""Publishing: one transaction for each batch, safe on the disk when it returns."""

import time
from collections.abc import Sequence

from mqkit.backends.sqlite.database import Database, mapped
from mqkit.backends.sqlite.headers import dump
from mqkit.backends.sqlite.presence import Presence
from mqkit.backends.sqlite.schema import DEAD, READY, WAITING
from mqkit.backends.sqlite.url import Options
from mqkit.errors import ClosedError, MessageTooLarge, MqkitError, PublishError, Unroutable
from mqkit.message import Outgoing


class SQLiteSender:
    """As BlockingSender."""

    def __init__(self, options: Options) -> None:
        self._limit = options.max_message_bytes
        self._presence = Presence.at(options.path)
        self._closed = False
        self._database = Database(
            options.path, self._presence.turn, durable=True, patience=options.busy_timeout, create=True
        )

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As Sender.send. ConnectionLost means that nothing was written, unless the disk failed under the commit."""
        if self._closed:
            raise ClosedError("this sender is closed")
        texts: dict[int, tuple[str | None, str | None]] = {}
        rejected: dict[int, MqkitError] = {}
        for position, outgoing in enumerate(batch):
            message = outgoing.message
            try:
                if len(message.body) > self._limit and outgoing.group is None:  # the file took what is copied
                    raise MessageTooLarge(len(message.body), self._limit, self._database.path)
                texts[position] = dump(message.headers), dump(message.properties)
            except MqkitError as error:
                rejected[position] = error
        with mapped(self._database.path), self._database.write(patience=timeout):
            touched = self._insert(batch, texts, rejected)
        for group in touched:
            self._presence.announce(group)
        if rejected:
            raise PublishError(rejected)

    def _insert(
        self,
        batch: Sequence[Outgoing],
        texts: dict[int, tuple[str | None, str | None]],
        rejected: dict[int, MqkitError],
    ) -> set[int]:
        """Write what can be written; the groups that got something."""
        connection = self._database.connection
        ways: dict[tuple[str, str | None], list[int]] = {}
        messages: list[tuple[object, ...]] = []
        deliveries: list[tuple[object, ...]] = []
        (number,) = connection.execute("SELECT last FROM counter").fetchone()
        now = time.time()
        for position, (headers, properties) in texts.items():
            outgoing = batch[position]
            way = (outgoing.topic, outgoing.group)
            if way not in ways:
                ways[way] = self._groups(*way)
            if not ways[way]:
                rejected[position] = self._unroutable(*way)
                continue
            number += 1
            message = outgoing.message
            messages.append((number, message.body, headers, _text(message.content_type), _text(message.id), properties))
            returned, due, state = outgoing.group is not None, None, READY
            if outgoing.dead:
                state = DEAD
            elif outgoing.delay > 0:
                state, due = WAITING, now + outgoing.delay
            deliveries += [(group, state, number, message.key, due, returned) for group in ways[way]]
        if messages:
            connection.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", messages)
            connection.executemany(
                "INSERT INTO delivery (topic_group, state, message, key, due, returned) VALUES (?, ?, ?, ?, ?, ?)",
                deliveries,
            )
            connection.execute("UPDATE counter SET last = ?", (number,))
        return {group for way in ways.values() for group in way}

    def _groups(self, topic: str, group: str | None) -> list[int]:
        """Where a message goes: to one group, or to all, with those who look on if there is anybody else."""
        if not topic.isascii():  # no topic has such a name, and SQLite refuses half characters
            return []
        rows = self._database.connection.execute(
            "SELECT g.id, g.tail FROM topic_group AS g JOIN topic AS t ON t.id = g.topic "
            "WHERE t.name = ? AND (? IS NULL OR (g.name = ? AND g.tail = 0))",
            (topic, group, group),
        ).fetchall()
        return [number for number, _ in rows] if any(not tail for _, tail in rows) else []

    def _unroutable(self, topic: str, group: str | None) -> Unroutable:
        names = {name for (name,) in self._database.connection.execute("SELECT name FROM topic")}
        if topic not in names:
            return Unroutable(f"there is no topic {topic!r}: declare it, with its groups, before publishing to it")
        if group is None:
            return Unroutable(f"topic {topic!r} has no group: nothing would ever receive the message")
        return Unroutable(f"topic {topic!r} has no group {group!r}")

    def close(self) -> None:
        """As Sender.close."""
        self._closed = True
        self._database.close()


def _text(value: str | None) -> str | bytes | None:
    """As SQLite takes it: half characters (lone surrogates) only as bytes."""
    if value is None or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    return value
