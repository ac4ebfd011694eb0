"""Which topics must exist, and how a group stands in them."""

import pytest

from mqkit.backend import Counts
from mqkit.backends.kafka import KafkaTopic
from mqkit.backends.kafka.counting import Log, counts, left, settled_among
from mqkit.backends.kafka.offsets import Progress
from mqkit.backends.kafka.options import parse_url
from mqkit.backends.kafka.plan import (
    HEADROOM,
    Found,
    Wanted,
    beside,
    beside_differences,
    cautions,
    dangers,
    groups_among,
    to_make,
    topic_differences,
    topic_wanted,
)
from mqkit.backends.kafka.ranges import Ranges
from mqkit.backends.kafka.tiers import tiers
from mqkit.errors import TopologyError
from mqkit.topology import TopicNeed


def test_all_that_a_group_reads_and_writes_is_wanted() -> None:
    need = TopicNeed("orders", frozenset({"a", "b"}))
    names = [wanted.name for wanted in (topic_wanted(need), *beside(need, topic_wanted(need), {}))]
    assert len(names) == len(set(names))
    expected = {tier.name for group in "ab" for tier in tiers("orders", group)} | {
        "orders",
        "orders.a.dlq",
        "orders.b.dlq",
        "orders.a.dlq.settled",
        "orders.b.dlq.settled",
    }
    assert set(names) == expected


def test_what_waits_or_is_dead_is_kept_for_ever_and_may_be_larger_than_what_came() -> None:
    need = TopicNeed("orders", frozenset({"a"}), (KafkaTopic(max_message_bytes=1000, replication=3),))
    for wanted in beside(need, topic_wanted(need), {"max.message.bytes": "77"}):
        assert wanted.replication == 3
        if not wanted.name.endswith(".settled"):
            assert wanted.settings["max.message.bytes"] == str(1000 + HEADROOM)
        if ".delay." not in wanted.name:
            assert wanted.settings["retention.ms"] == "-1"


def test_what_waits_is_stamped_by_the_broker() -> None:
    need = TopicNeed("orders", frozenset({"a"}), (KafkaTopic(retention=100),))
    stamped = {w.name for w in beside(need, topic_wanted(need), {}) if w.settings.get("message.timestamp.type")}
    assert stamped == {tier.name for tier in tiers("orders", "a")}


def test_a_delayed_message_is_kept_as_long_after_its_time_as_the_topic_keeps_others() -> None:
    need = TopicNeed("orders", options=(KafkaTopic(retention=100),))
    found = {wanted.name: wanted.settings["retention.ms"] for wanted in beside(need, topic_wanted(need), {})}
    assert found["orders.delay.60000ms"] == "160000"


def test_options_that_contradict_each_other_are_refused() -> None:
    need = TopicNeed("orders", options=(KafkaTopic(partitions=3), KafkaTopic(partitions=4), KafkaTopic(replication=1)))
    with pytest.raises(TopologyError, match="partitions is asked to be both 3 and 4"):
        topic_wanted(need)
    agreeing = TopicNeed("orders", options=(KafkaTopic(partitions=3), object(), KafkaTopic(config={"a": "b"})))
    assert topic_wanted(agreeing) == Wanted("orders", 3, None, {"a": "b"})


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Wanted("t", partitions=6), "partitions is 4, wanted 6; kafka-topics --alter --topic t --partitions 6"),
        (Wanted("t", partitions=2), "partitions is 4, wanted 2; partitions cannot be taken away"),
        (Wanted("t", replication=3), "replication is 1, wanted 3; kafka-reassign-partitions"),
        (Wanted("t", settings={"retention.ms": "5"}), "retention.ms is 7, wanted 5; kafka-configs --alter"),
        (Wanted("t", settings={"nope": "5"}), "nope is not set, wanted 5"),
    ],
)
def test_differences_name_what_is_there_what_is_wanted_and_a_remedy(wanted: Wanted, text: str) -> None:
    (difference,) = topic_differences(wanted, Found(4, 1, {"retention.ms": "7"}))
    assert str(difference).startswith(text)


def test_what_is_not_asked_for_does_not_differ() -> None:
    assert topic_differences(Wanted("t"), Found(4, 1, {"retention.ms": "7"})) == ()
    assert to_make(Wanted("t"), parse_url("kafka://a")) == (-1, -1)
    assert to_make(Wanted("t", 2), parse_url("kafka://a?partitions=5&replication=3")) == (2, 3)


def test_a_dead_letter_topic_that_takes_less_than_the_topic_differs() -> None:
    wanted = Wanted("t.g.dlq", 1, None, {"max.message.bytes": str(2000 + HEADROOM), "retention.ms": "-1"})
    assert beside_differences(wanted, Found(1, 1, {"max.message.bytes": "2000", "retention.ms": "5"})) == ()
    (difference,) = beside_differences(wanted, Found(1, 1, {"max.message.bytes": "1999"}))
    assert "add-config max.message.bytes=67536" in difference.remedy


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"retention.ms": "86400000"}, "keeps nothing for longer than 24 hours, finished or not: kafka-configs"),
        ({"retention.bytes": "5000"}, "keeps no more than 5,000 bytes, finished or not: kafka-configs"),
        ({"cleanup.policy": "compact,delete"}, "keeps only the last message of each key, finished or not: kafka-"),
    ],
)
def test_what_can_delete_waiting_and_dead_messages_is_a_danger(settings: dict[str, str], text: str) -> None:
    need = TopicNeed("t", frozenset({"g"}))
    there = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
    for wanted in beside(need, topic_wanted(need), {}):
        assert dangers(wanted, Found(1, 1, there)) == ()
        said = dangers(wanted, Found(1, 1, there | settings))
        assert [text in line for line in said] == ([] if ".delay." in wanted.name else [True])


@pytest.mark.parametrize(
    ("retention", "offsets_kept", "text"),
    [
        ("604800000", 604_800.0, None),
        ("604800001", None, None),
        (
            "1209600000",
            604_800.0,
            "keeps messages for 14 days, and Kafka keeps how far a group without workers is for 7",
        ),
        ("-1", 604_800.0, "keeps messages for ever"),
    ],
)
def test_a_topic_that_keeps_more_than_a_group_without_workers_remembers_is_told(
    retention: str, offsets_kept: float | None, text: str | None
) -> None:
    said = cautions(Wanted("t"), Found(1, 1, {"retention.ms": retention}), offsets_kept)
    assert len(said) == (text is not None)
    assert all(text is not None and text in line for line in said)


def test_groups_are_known_by_their_dead_letters() -> None:
    names = ["a.b", "a.b.g.dlq", "a.b.h.dlq", "x.g.dlq", "a.b.g.retry.0ms", "c", "c.g.dlq"]
    assert groups_among(names, None) == [("a.b", "g"), ("a.b", "h"), ("c", "g")]
    assert groups_among(names, "c") == [("c", "g")]


@pytest.mark.parametrize(
    ("progress", "number"),
    [
        (None, 20),
        (Progress(10), 20),
        (Progress(25, (12, 13)), 7),
        (Progress(30), 0),
        (Progress(5, (2,)), 20),
        (Progress(99, (98,)), 0),
    ],
)
def test_what_is_left_in_a_log_from_10_to_30(progress: Progress | None, number: int) -> None:
    assert left(Log(10, 30), progress) == number


@pytest.mark.parametrize(
    ("progress", "number"),
    [(None, 4), (Progress(10), 4), (Progress(25, (12, 13, 24)), 3), (Progress(30), 0), (Progress(5, (2,)), 4)],
)
def test_what_is_settled_although_a_commit_does_not_say_so_in_a_log_from_10_to_30(
    progress: Progress | None, number: int
) -> None:
    settled = Ranges([(2, 3), (8, 11), (12, 13), (24, 25), (29, 40)])
    assert settled_among(Log(10, 30), progress, settled) == number
    assert settled_among(Log(10, 30), progress, None) == 0


def test_a_group_stands_as_its_commits_say() -> None:
    logs = {
        ("t", 0): Log(0, 100),
        ("t", 1): Log(50, 60),
        ("t.g.retry.0ms", 0): Log(0, 2),
        ("t.g.retry.500ms", 0): Log(0, 5),
        ("t.delay.1000ms", 0): Log(0, 7),
        ("t.g.dlq", 0): Log(0, 9),
    }
    progress = {
        ("t", 0): Progress(90, (80, 85, 86), out=2),
        ("t.g.retry.500ms", 0): Progress(3, (1, 2), out=1),
        ("t.g.dlq", 0): Progress(9, (4,)),
    }
    assert counts("t", "g", logs, progress, members=True) == Counts(11 + 10 + 2, 3, 3 + 7, 1, 23)
    assert counts("t", "g", logs, progress, members=True, settled={0: Ranges([(4, 5)])}).dead == 0
    assert counts("t", "g", logs, progress, members=False) == Counts(13 + 10 + 2, 0, 4 + 7, 1, 23)
