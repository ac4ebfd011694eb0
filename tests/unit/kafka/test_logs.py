"""Whether a session still reads the logs that it began with."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from mqkit.backends.kafka.logs import EVERY, NO_ID, SOON, Logs, id_of


class Cluster:
    """Answers from `there`: ids by topic, or an error's code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **there: str | int) -> None:
        self.there: Mapping[str, str | int] = there
        self.now = 1000.0
        self.late = False
        self.asked: list[dict[str, Future[Any]]] = []
        monkeypatch.setattr("mqkit.backends.kafka.logs.monotonic", lambda: self.now)
        self.logs = Logs(self.describe, {name: str(known) for name, known in there.items()})

    def describe(self, names: Iterable[str]) -> dict[str, Future[Any]]:
        self.asked.append({name: Future() for name in names})
        if not self.late:
            self.answer()
        return self.asked[-1]

    def answer(self) -> None:
        for name, future in self.asked[-1].items():
            known = self.there[name]
            if isinstance(known, int):
                future.set_exception(KafkaException(KafkaError(known)))
            else:
                future.set_result(SimpleNamespace(topic_id=known, partitions=[0, 1]))

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.logs.gone() or self.logs.gone()


def test_a_topic_that_stays_what_it_is_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, t="A", u="B")
    assert cluster.after(EVERY - 0.1) is None
    assert not cluster.asked
    for _ in range(3):
        assert cluster.after(EVERY) is None
    assert (len(cluster.asked), cluster.logs.looked) == (3, 3)
    assert cluster.logs.partitions == {"t": 2, "u": 2}


def test_a_look_waits_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, t="A")
    cluster.late = True
    for _ in range(5):
        assert cluster.after(EVERY) is None
    assert len(cluster.asked) == 1
    cluster.there = {"t": "B"}
    cluster.answer()
    assert cluster.logs.gone() == "topic t was deleted and made anew"


def test_another_log_of_the_name_is_found_and_sooner_when_something_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, t="A", u="B")
    cluster.there = {"t": "A", "u": "C"}
    assert cluster.after(0.1) is None
    cluster.logs.hurry()
    assert cluster.after(0) == "topic u was deleted and made anew"


def test_a_topic_counts_as_deleted_at_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, t="A", u="B")
    cluster.there = {"t": "A", "u": KafkaError.UNKNOWN_TOPIC_OR_PART}
    assert cluster.after(EVERY) is None
    cluster.there = {"t": KafkaError.UNKNOWN_TOPIC_OR_PART, "u": "B"}
    assert cluster.after(SOON) is None, "it was another one that was not known"
    assert cluster.after(SOON) == "topic t was deleted"


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_no_answer_is_no_deletion(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    cluster = Cluster(monkeypatch, t="A")
    cluster.there = {"t": code}
    assert [cluster.after(EVERY) for _ in range(3)] == [None] * 3
    assert cluster.logs.looked == 0


def test_brokers_without_ids_have_topics_that_never_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert id_of(SimpleNamespace(topic_id=NO_ID)) == ""
    cluster = Cluster(monkeypatch, t="")
    cluster.there = {"t": "A"}
    assert cluster.after(EVERY) is None
