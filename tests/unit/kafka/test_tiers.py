"""Where messages go and wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.kafka.tiers import (
    HELD,
    HELD_BYTES,
    HELD_SOON,
    Tier,
    Waiting,
    delay_tiers,
    destination,
    due,
    retry_tiers,
    tiers,
)
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import STEPS

MESSAGE = WireMessage(b"")


@pytest.mark.parametrize(
    ("outgoing", "topic"),
    [
        (Outgoing(MESSAGE, "shop.orders"), "shop.orders"),
        (Outgoing(MESSAGE, "orders", delay=2), "orders.delay.2000ms"),
        (Outgoing(MESSAGE, "orders", delay=0.1), "orders.delay.500ms"),
        (Outgoing(MESSAGE, "orders", delay=86400), "orders.delay.3600000ms"),
        (Outgoing(MESSAGE, "orders", "billing"), "orders.billing.retry.0ms"),
        (Outgoing(MESSAGE, "orders", "billing", delay=60), "orders.billing.retry.60000ms"),
        (Outgoing(MESSAGE, "orders", "billing", dead=True), "orders.billing.dlq"),
        (Outgoing(MESSAGE, "orders", "billing", dead=True, delay=5), "orders.billing.dlq"),
    ],
)
def test_messages_go_to_the_topic_of_their_step(outgoing: Outgoing, topic: str) -> None:
    assert destination(outgoing) == topic


@given(st.floats(0, 1e6), st.sampled_from([None, "billing"]))
def test_a_group_reads_whatever_is_sent_to_it(delay: float, group: str | None) -> None:
    outgoing = Outgoing(MESSAGE, "orders", group, delay=delay)
    found = {tier.name: tier for tier in (Tier("orders"), *tiers("orders", "billing"))}[destination(outgoing)]
    assert found.returned is (group is not None)
    assert found.step in (0.0, *STEPS)
    assert (found.step > 0) is (delay > 0)


def test_only_the_groups_own_topics_count_as_returned() -> None:
    assert all(tier.returned for tier in retry_tiers("orders", "billing"))
    assert not any(tier.returned for tier in delay_tiers("orders"))
    names = [tier.name for tier in tiers("orders", "billing")]
    assert len(names) == len(set(names)) == len(STEPS) + 1 + len(STEPS)


@given(st.floats(0, 4e9), st.floats(0, 3600), st.floats(0, 100))
def test_nothing_is_due_before_its_delay_is_over(sent: float, delay: float, later: float) -> None:
    timestamp = int(sent * 1000)  # as the driver cuts it off
    assert due(timestamp, delay, sent + later + 0.001) >= sent + delay - 1e-6
    assert due(timestamp, delay, sent + later + 0.001) <= sent + delay + 0.0011


def test_a_clock_ahead_of_ours_holds_a_message_no_longer_than_its_step() -> None:
    assert due(10_000_000_000_000, 5.0, now=1000.0) == 1005.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))), st.integers(0, 50), st.integers(0, 10))
def test_what_is_due_comes_out_the_earliest_first(records: list[tuple[int, int]], now: int, limit: int) -> None:
    waiting: Waiting[int] = Waiting()
    for offset, (when, size) in enumerate(records):
        waiting.add(when, offset, size, offset)
    expected = sorted((when, offset) for offset, (when, _) in enumerate(records) if when <= now)[:limit]
    assert list(waiting.take(now, limit)) == [offset for _, offset in expected]
    assert len(waiting) == len(records) - len(expected)
    left = set(range(len(records))) - {offset for _, offset in expected}
    assert waiting.next_due == min((records[offset][0] for offset in left), default=float("inf"))


def test_memory_is_bounded_in_number_and_bytes() -> None:
    many: Waiting[None] = Waiting()
    for offset in range(HELD):
        assert not many.full(now=0.0)
        many.add(1.0, offset, 1, None)
    assert many.full(now=0.0)
    large: Waiting[None] = Waiting()
    large.add(1.0, 0, HELD_BYTES, None)
    assert large.full(now=0.9)
    assert not large.wants_more(0.9), "one that large is enough until it is gone"
    list(large.take(1.0, 1))
    assert not large.full(now=1.0)
    assert large.wants_more(1.0)


def test_more_is_fetched_before_the_last_is_due_but_not_without_an_end() -> None:
    waiting: Waiting[None] = Waiting()
    for offset in range(HELD):
        waiting.add(100.0 + offset / 1000, offset, 1, None)
    assert not waiting.wants_more(99.9)
    assert waiting.wants_more(100.2)
    for offset in range(HELD, HELD_SOON):
        assert not waiting.full(now=100.2), "it does not pause and go on again for each"
        waiting.add(100.3, offset, 1, None)
    assert waiting.full(now=100.2)
    assert not waiting.wants_more(100.2)
    list(waiting.take(100.2, HELD // 2))
    assert waiting.wants_more(100.2)


def test_more_is_fetched_when_most_are_gone() -> None:
    waiting: Waiting[None] = Waiting()
    for offset in range(HELD):
        waiting.add(1.0 if offset < HELD * 3 // 4 else 60.0, offset, 1, None)
    assert not waiting.wants_more(1.0)
    list(waiting.take(1.0, HELD))
    assert waiting.wants_more(1.0)
