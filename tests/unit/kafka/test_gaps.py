"""Offsets that bring no record, by what the driver says of its position."""

from types import SimpleNamespace
from typing import Any

from confluent_kafka import TopicPartition

from mqkit.backends.kafka.gaps import passed
from mqkit.backends.kafka.offsets import Progress
from mqkit.backends.kafka.partitions import Partition
from mqkit.backends.kafka.tiers import Tier


def position(place: TopicPartition) -> TopicPartition:
    """The driver has read up to 10 everywhere."""
    return TopicPartition(place.topic, place.partition, 10)


def test_what_the_driver_has_passed_is_passed_but_where_its_records_are_dropped() -> None:
    driver: Any = SimpleNamespace(position=lambda places: [position(place) for place in places])
    behind, there = (Partition(Tier("t"), number, Progress(7 + 3 * number)) for number in range(2))
    given_away = Partition(Tier("t"), 2, Progress(7))
    given_away.leaving = True
    assert passed(driver, [behind, there, given_away]) == [behind]
    assert behind.tracker.progress() == Progress(10)
    assert given_away.tracker.progress() == Progress(7), "who gets it reads them"
    assert passed(driver, []) == []
