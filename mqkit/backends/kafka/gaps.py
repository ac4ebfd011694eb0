"""Offsets of a log that bring no record: marks of transactions, what was compacted, what was removed too early."""

from collections.abc import Iterable

from confluent_kafka import Consumer

from mqkit.backends.kafka.faults import log
from mqkit.backends.kafka.partitions import Partition


def passed(consumer: Consumer, parts: Iterable[Partition]) -> list[Partition]:
    """Learn from the driver how far it has read in these, no record of which waits here; those in which it was further.

    It tells of no mark and of no record that was taken back in a transaction, and still they have offsets: a group
    that has finished all would never be at its end.
    """
    # of a partition that is being given away the driver's records are dropped: they are read, and nobody had them
    known = {(part.tier.name, part.number): part for part in parts if not part.leaving}
    places = consumer.position([part.place for part in known.values()]) if known else []
    reached = ((known[place.topic, place.partition], place.offset) for place in places)
    return [part for part, position in reached if part.tracker.reach(position)]


def tell_what_is_gone(consumer: Consumer, part: Partition, group: str) -> None:
    """Warn where the log begins only behind what is expected next: retention took what the group had not finished."""
    if part.tracker.following < 0:
        return  # nothing was expected: the group is new here
    start, _ = consumer.get_watermark_offsets(part.place, cached=True)
    if start > part.tracker.following:
        log.warning(
            "%s: %d messages that group %s had not finished were removed by the topic's retention, or by hand: "
            "it goes on at offset %d", part, part.tracker.unfinished_before(start), group, start,
        )  # fmt: skip
