"""When partitions go that the group asks back: a table, and which deliveries are recalled."""

import pytest

from mqkit.backends.kafka.handover import AGAIN, CONFIRMING, PART, UNORDERED, Handover, Step, patience
from mqkit.backends.kafka.offsets import Progress
from mqkit.backends.kafka.partitions import Lease, Partition, recalled
from mqkit.backends.kafka.tiers import Tier
from mqkit.message import WireMessage


def partition(out: int = 0, number: int = 0) -> Partition:
    part = Partition(Tier("t"), number, Progress(0))
    part.out = out
    return part


def test_what_is_with_a_handler_keeps_its_partition_until_it_is_over_and_committed() -> None:
    part = partition(out=1)
    handover = Handover([part.place], [part], until=100)
    assert handover.step(1, committing=False, unsaid=True) is Step.WAIT
    part.out = 0
    assert handover.step(2, committing=False, unsaid=True) is Step.COMMIT
    assert handover.step(2.01, committing=True, unsaid=False) is Step.WAIT
    assert handover.step(2.02, committing=False, unsaid=False) is Step.GO


def test_the_last_commit_is_sent_even_if_nothing_seems_to_be_unsaid() -> None:
    handover = Handover([], [partition()], until=100)
    assert handover.step(0, committing=False, unsaid=False) is Step.COMMIT


def test_a_last_commit_that_failed_is_sent_again_and_not_for_ever() -> None:
    handover = Handover([], [partition()], until=100)
    assert handover.step(0, committing=False, unsaid=True) is Step.COMMIT
    assert handover.step(AGAIN / 2, committing=False, unsaid=True) is Step.WAIT
    assert handover.step(AGAIN, committing=False, unsaid=True) is Step.COMMIT
    assert handover.step(CONFIRMING, committing=True, unsaid=True) is Step.GO


def test_a_handler_that_does_not_end_loses_its_partition_in_time_after_a_commit() -> None:
    handover = Handover([], [partition(out=1)], until=100)
    assert handover.step(99.9, committing=False, unsaid=True) is Step.WAIT
    assert handover.step(100, committing=False, unsaid=True) is Step.COMMIT
    assert handover.step(100.1, committing=False, unsaid=False) is Step.GO


@pytest.mark.parametrize(
    ("ordering", "poll_interval", "seconds"),
    [("none", None, UNORDERED), ("key", None, PART * 300), ("key", "60000", PART * 60), ("none", "10000", PART * 10)],
)
def test_an_ordered_group_waits_as_long_as_the_broker_does(
    ordering: str, poll_interval: str | None, seconds: float
) -> None:
    assert patience(ordering, poll_interval) == seconds  # type: ignore[arg-type]  # a table


@pytest.mark.parametrize("lost", [True, False])
def test_a_recall_covers_what_is_out_of_its_partitions_and_nothing_else(lost: bool) -> None:
    going, staying, empty = partition(1, 0), partition(1, 1), partition(0, 2)
    (recall,) = recalled([going, empty], lost=lost)
    assert recall.lost is lost
    assert recall.covers(Lease(going, 5, WireMessage(b"")))
    assert not recall.covers(Lease(staying, 5, WireMessage(b"")))
    assert not recall.covers("a token of somebody else")
    assert recalled([empty], lost=lost) == []


def test_a_partition_that_leaves_with_nothing_out_is_committed_as_after_an_orderly_end() -> None:
    part = partition()
    part.tracker.take(0)
    part.hand_out(0, WireMessage(b""), "t", "g")
    part.leaving = True
    said = part.to_commit()
    part.out = 0
    part.tracker.finish(0)
    assert said is not None
    assert part.to_commit() == part.to_commit(leaving=True)
    assert said.metadata != part.place_of(part.tracker.progress()).metadata
