"""What the driver is told to fetch."""

from mqkit.backends.kafka.flow import Flow
from mqkit.backends.kafka.partitions import Partition
from mqkit.backends.kafka.tiers import HELD, Tier


def names(places: object) -> list[str]:
    assert isinstance(places, list)
    return [place.topic for place in places]


def test_all_pause_while_nothing_is_wanted_and_each_is_told_once() -> None:
    flow, parts = Flow(), [Partition(Tier(name), 0, None) for name in ("a", "b")]
    assert flow.changes(parts) == ([], [])
    flow.parked = True
    pause, resume = flow.changes(parts)
    assert (names(pause), resume) == (["a", "b"], [])
    assert flow.changes(parts) == ([], [])
    flow.parked = False
    pause, resume = flow.changes(parts)
    assert (pause, names(resume)) == ([], ["a", "b"])


def test_a_partition_that_comes_while_nothing_is_wanted_pauses_too_and_goes_on_with_the_others() -> None:
    flow, parts = Flow(), [Partition(Tier("a"), 0, None)]
    flow.parked = True
    flow.changes(parts)
    parts.append(Partition(Tier("came"), 0, None))
    assert names(flow.changes(parts)[0]) == ["came"]
    flow.parked = False
    assert names(flow.changes(parts)[1]) == ["a", "came"]


def test_a_tier_of_which_enough_waits_stays_paused_when_all_go_on() -> None:
    flow, tier, other = Flow(), Partition(Tier("tier", 60.0), 0, None), Partition(Tier("other"), 0, None)
    for offset in range(HELD):
        tier.waiting.add(1000.0 + offset, offset, 1, (offset, None))  # type: ignore[arg-type]  # nobody reads it
    assert flow.regulate([tier], now=0)
    assert not flow.regulate([tier], now=0)
    flow.parked = True
    assert names(flow.changes([tier, other])[0]) == ["tier", "other"]
    flow.parked = False
    assert names(flow.changes([tier, other])[1]) == ["other"]
    tier.waiting.take(3000.0, HELD)
    assert flow.regulate([tier], now=0)
    assert names(flow.changes([tier, other])[1]) == ["tier"]


def test_what_takes_the_place_of_a_paused_partition_is_known_to_be_paused() -> None:
    flow, anew = Flow(), Partition(Tier("a"), 0, None, paused=True)
    assert names(flow.changes([anew])[1]) == ["a"]
