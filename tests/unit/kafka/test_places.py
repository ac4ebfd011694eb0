"""What a consumer asks the broker while the group's coordinator is not there yet."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from mqkit.backends.kafka import places
from mqkit.backends.kafka.places import committed_at_last


class Answers:
    """A consumer that gives these answers, one after the other."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def committed(self, asked: list[TopicPartition], timeout: float) -> object:
        assert asked
        assert timeout > 0
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def failure(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SOON", 0.001)


@pytest.mark.parametrize("code", sorted(places.MOVING))
def test_a_coordinator_that_is_not_there_yet_is_asked_again(code: int) -> None:
    there = [TopicPartition("t", 0, 7)]
    consumer: Any = Answers(failure(code), failure(code), there)
    assert committed_at_last(consumer, [TopicPartition("t", 0)]) == there


def test_any_other_error_is_raised_at_once() -> None:
    consumer: Any = Answers(failure(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaException) as caught:
        committed_at_last(consumer, [TopicPartition("t", 0)])
    assert caught.value.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def test_a_coordinator_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PATIENCE", 0.0)
    consumer: Any = Answers(failure(KafkaError.NOT_COORDINATOR))
    with pytest.raises(KafkaException):
        committed_at_last(consumer, [TopicPartition("t", 0)])
