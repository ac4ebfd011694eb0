"""Removing from a log what is finished, where mqkit alone writes and one group alone reads: retries and dead letters.

Those topics are kept for ever, and a group's committed offsets are not: Kafka drops them some days after the group's
last member has left. What is finished must not come back then, nor fill the disk. Only the beginning of a log can be
removed, up to the first record that is not finished.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from mqkit.backends.kafka.faults import NO_TOPIC, REFUSED, UNREACHABLE, WORTH_ANOTHER_TRY, log

Delete = Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, "Future[Any]"]]
"""Asks for the removal of records: KafkaAdmin.delete."""


class Trimming:
    """The logs of one session. Whoever calls has just seen that its topics still have the logs that it read."""

    def __init__(self, delete: Delete) -> None:
        self._delete = delete
        self._removed: dict[tuple[str, int], int] = {}
        self._asked: dict[tuple[str, int], tuple[int, Future[Any]]] = {}
        self._given_up: set[str] = set()

    def wanted(self, finished: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Those of these positions before which there is something left to remove."""
        return [
            place
            for place in finished
            if place.offset > self._removed.get((place.topic, place.partition), 0) and place.topic not in self._given_up
        ]

    def remove(self, finished: Iterable[TopicPartition]) -> None:
        """Ask for the removal of what lies before these positions; does not wait for it."""
        self._hear()
        more = [place for place in self.wanted(finished) if (place.topic, place.partition) not in self._asked]
        if more:
            offsets = {(place.topic, place.partition): place.offset for place in more}
            for place, future in self._delete(more).items():
                spot = (place.topic, place.partition)
                self._asked[spot] = (offsets[spot], future)

    def finish(self, timeout: float) -> None:
        """Wait for what was asked for. Never raises: what is not removed now is removed by the next session."""
        for _, future in self._asked.values():
            try:
                future.exception(timeout)
            except TimeoutError:
                break
        self._hear()

    def _hear(self) -> None:
        for (topic, number), (offset, future) in list(self._asked.items()):
            if not future.done():
                continue
            del self._asked[topic, number]
            try:
                future.result()
            except KafkaException as failure:
                self._failed(topic, failure)
            else:
                self._removed[topic, number] = offset

    def _failed(self, topic: str, failure: KafkaException) -> None:
        error = failure.args[0]
        if error.code() in NO_TOPIC | UNREACHABLE | WORTH_ANOTHER_TRY:
            log.debug("removing what is finished from topic %s: %s", topic, failure)
            return
        self._given_up.add(topic)
        advice = ": allow this user the operation Delete on it" if error.code() in REFUSED else ""
        log.warning(
            "finished messages stay in topic %s (%s), and come again when Kafka forgets the group's offsets%s",
            topic, error.str(), advice,
        )  # fmt: skip
