"""What a consumer asks the broker: whether its topics are there, where partitions were left; and how it closes."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mqkit.backends.kafka.faults import log
from mqkit.backends.kafka.offsets import Progress, decode, in_log, merged

PATIENCE: Final = 10.0
"""Seconds for one answer of the broker."""
SOON: Final = 0.1
"""Seconds between two questions to a coordinator that is not there yet."""
MOVING: Final = frozenset(
    {
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)
"""What is said while a group's coordinator begins its work, or has moved."""


def missing(consumer: Consumer, names: set[str], timeout: float) -> set[str] | None:
    """Which of these topics are not there; None if no broker answers in time."""
    try:
        known: set[str] = consumer.list_topics(timeout=timeout).topics.keys()
    except KafkaException:
        return None
    return names - known


def committed(consumer: Consumer, places: list[TopicPartition], timeout: float = PATIENCE) -> list[TopicPartition]:
    """What was committed of them. Raises KafkaException."""
    found = consumer.committed(places, timeout=timeout)
    for place in found:
        if place.error is not None:
            raise KafkaException(place.error)
    return found


def committed_at_last(consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    """What was committed of them; a coordinator that begins its work or moves to another broker is asked again.

    Not within a callback of the driver: it could not find the other one meanwhile.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return committed(consumer, places, max(SOON, deadline - time.monotonic()))
        except KafkaException as failure:
            if failure.args[0].code() not in MOVING or time.monotonic() >= deadline:
                raise
        time.sleep(SOON)


def restored(consumer: Consumer, place: TopicPartition, mine: Progress | None, log_id: str) -> Progress | None:
    """How far a partition is: as its last owner committed, and as we remember it if that was us. Raises KafkaException.

    Args:
        place: as `committed` found it.
        mine: what we could not commit any more.
        log_id: of the topic's log by now; a position in another one says nothing.
    """
    said = None if place.offset < 0 else decode(place.offset, place.metadata)
    progress = in_log(said, log_id)
    if progress is not said:
        log.warning("%s[%s] was deleted and made anew: it is read from its beginning", place.topic, place.partition)
    if mine is not None:
        return mine if progress is None else merged(replace(progress, reserved=0), mine)
    if progress is not None and progress.reserved > progress.low:  # an end out of order
        _, end = consumer.get_watermark_offsets(place, timeout=PATIENCE)
        progress = replace(progress, reserved=min(progress.reserved, end))
    return progress


def closing(consumer: Consumer, asked_back: Sequence[TopicPartition] = ()) -> Thread:
    """A thread that closes a consumer.

    Args:
        asked_back: what the group waits for: the driver closes only when it has been told that this is given away.
    """
    if asked_back:
        with suppress(KafkaException):
            consumer.incremental_unassign(list(asked_back))

    def close() -> None:
        try:
            consumer.close()
        except (KafkaException, RuntimeError) as failure:
            log.debug("closing a consumer: %s", failure)

    thread = Thread(target=close, name="mqkit-kafka-close", daemon=True)
    thread.start()
    return thread


def listed(places: Sequence[TopicPartition]) -> str:
    """Their names, for people."""
    names = sorted(f"{place.topic}[{place.partition}]" for place in places)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
