"""The last commit of a member: a group that is dividing its partitions anew refuses it for a moment."""

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from mqkit.backends.kafka.commits import Commits
from mqkit.backends.kafka.partitions import Partition
from mqkit.backends.kafka.tiers import Tier


class Recorder:
    """Stands where commits have their consumer, and keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[list[TopicPartition]] = []

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.sent.append(offsets)


@pytest.fixture
def part() -> Partition:
    part = Partition(Tier("t"), 0, None)
    for offset in range(3):
        assert part.tracker.take(offset)
        part.tracker.finish(offset)
    return part


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def commits(part: Partition, recorder: Recorder) -> Commits:
    commits = Commits("g", 0.1, {("t", 0): part})
    commits.consumer = cast("Consumer", recorder)
    commits.changed.add(part)
    return commits


@pytest.mark.parametrize("refusal", [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS])
def test_a_last_commit_that_is_refused_is_sent_again_until_the_broker_has_it(
    commits: Commits, recorder: Recorder, part: Partition, refusal: int
) -> None:
    assert not commits.last([part])
    assert not commits.last([part])
    assert len(recorder.sent) == 1, "one at a time"
    commits.ended(KafkaError(refusal), recorder.sent[0])
    while len(recorder.sent) == 1:
        assert not commits.last([part])
    assert [place.offset for place in recorder.sent[1]] == [3]
    commits.ended(None, recorder.sent[1])
    assert commits.last([part])


def test_only_what_the_broker_has_counts_as_committed(commits: Commits, recorder: Recorder, part: Partition) -> None:
    assert not commits.last([part])
    commits.ended(KafkaError(KafkaError.ILLEGAL_GENERATION), recorder.sent[0])
    assert part.committed == -1
    commits.ended(None, recorder.sent[0])
    assert part.committed == 3


def test_where_nothing_changed_there_is_no_last_commit(commits: Commits, recorder: Recorder, part: Partition) -> None:
    commits.changed.clear()
    assert commits.last([part])
    assert not recorder.sent
