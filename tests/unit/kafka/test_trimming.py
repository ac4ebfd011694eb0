"""What is asked to be removed from a log, and what is made of the answers."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from mqkit.backends.kafka.trimming import Trimming


class Broker:
    """Keeps what it was asked to delete, and answers when told to."""

    def __init__(self) -> None:
        self.asked: list[dict[TopicPartition, Future[Any]]] = []

    def delete(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, Future[Any]]:
        self.asked.append({TopicPartition(place.topic, place.partition): Future() for place in places})
        return self.asked[-1]

    def answer(self, code: int | None = None) -> None:
        for future in self.asked[-1].values():
            if code is None:
                future.set_result(None)
            else:
                future.set_exception(KafkaException(KafkaError(code)))


def upto(offset: int, topic: str = "t.g.dlq") -> list[TopicPartition]:
    return [TopicPartition(topic, 0, offset)]


def test_each_record_is_removed_once_and_one_removal_waits_for_another() -> None:
    broker = Broker()
    trimming = Trimming(broker.delete)
    assert not trimming.wanted(upto(0)), "there is nothing before the first"
    trimming.remove(upto(5))
    trimming.remove(upto(7))
    assert len(broker.asked) == 1, "the first is on its way"
    broker.answer()
    trimming.finish(0)
    assert not trimming.wanted(upto(5))
    trimming.remove(upto(5))
    assert len(broker.asked) == 1
    trimming.remove(upto(7))
    assert len(broker.asked) == 2


def test_nothing_is_waited_for_longer_than_asked() -> None:
    trimming = Trimming(Broker().delete)
    trimming.remove(upto(5))
    trimming.finish(0)
    assert trimming.wanted(upto(5))


@pytest.mark.parametrize(
    ("code", "again", "advice"),
    [
        (KafkaError._TRANSPORT, True, ""),
        (KafkaError.NOT_LEADER_FOR_PARTITION, True, ""),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True, ""),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False, "allow this user the operation Delete on it"),
        (KafkaError.POLICY_VIOLATION, False, "finished messages stay in topic t.g.dlq"),
    ],
)
def test_what_cannot_be_removed_is_told_once_and_what_could_be_is_tried_again(
    caplog: pytest.LogCaptureFixture, code: int, again: bool, advice: str
) -> None:
    broker = Broker()
    trimming = Trimming(broker.delete)
    trimming.remove(upto(5))
    broker.answer(code)
    trimming.finish(0)
    trimming.remove(upto(6))
    assert len(broker.asked) == 1 + again
    assert advice in caplog.text
    assert len(caplog.records) == (not again)
