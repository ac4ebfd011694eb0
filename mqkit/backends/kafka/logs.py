"""Which log a topic is: a topic that is deleted and made anew has its old name and another id.

A position counts for one log alone: in another it would pass over messages that nobody handled. So the id is kept with
each commit (offsets.py), and looked at while a session reads, since neither the broker nor the driver tells.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from time import monotonic
from typing import Any, Final

from confluent_kafka import KafkaException

from mqkit.backends.kafka.faults import NO_TOPIC, log

EVERY: Final = 2.0
"""Seconds between two looks."""
SOON: Final = 0.2
"""Seconds until the second look at a topic that was not there: a broker that has just started may not know it yet."""
NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"
"""What a broker gives that is too old to have ids."""

Describe = Callable[[Iterable[str]], Mapping[str, "Future[Any]"]]
"""Asks for topics' descriptions: KafkaAdmin.describe."""


def id_of(description: Any) -> str:
    """The id of a topic's log, in 22 characters; empty where the broker has none."""
    text = str(description.topic_id)
    return "" if text == NO_ID else text


class Logs:
    """The logs that a session reads, and whether its topics still have them.

    Args:
        ids: by topic, as they were before the session read anything.
    """

    def __init__(self, describe: Describe, ids: Mapping[str, str]) -> None:
        self.ids = ids
        self._describe = describe
        self._asked: Mapping[str, Future[Any]] | None = None
        self._missing: set[str] = set()
        self._next = monotonic() + EVERY
        self.partitions: dict[str, int] = {}
        """By topic, how many it had at the last look."""
        self.looked = 0
        """How many looks have found all topics as they were."""

    def hurry(self) -> None:
        """Look at once: something is odd."""
        self._next = 0.0

    def same(self, timeout: float) -> bool:
        """Look now, for up to `timeout` seconds. False: a topic has another log, or nobody answers."""
        try:
            asked = self._describe(self.ids)
            return all(id_of(future.result(timeout)) == self.ids[name] for name, future in asked.items())
        except (KafkaException, TimeoutError) as failure:
            log.debug("looking at topics: %s", failure)
            return False

    def gone(self) -> str | None:
        """What became of a topic that has another log now, or none; None as far as is known. Never waits."""
        if self._asked is None:
            if self._next <= monotonic():
                self._asked = self._describe(self.ids)
            return None
        if not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, None
        self._next = monotonic() + EVERY
        missing: set[str] = set()
        for name, future in asked.items():
            try:
                description = future.result()
            except KafkaException as failure:
                if failure.args[0].code() not in NO_TOPIC:
                    log.debug("looking at topic %s: %s", name, failure)
                    return None
                missing.add(name)
                continue
            found = id_of(description)
            self.partitions[name] = len(description.partitions)
            if found and self.ids[name] and found != self.ids[name]:
                return f"topic {name} was deleted and made anew"
        if missing & self._missing:
            return f"topic {min(missing & self._missing)} was deleted"
        self._missing = missing
        if missing:
            self._next = monotonic() + SOON
        else:
            self.looked += 1
        return None
