"""Frames that settle exactly what was asked, and few of them."""

from hypothesis import given
from hypothesis import strategies as st

from mqkit.backend import Settlement
from mqkit.backends.rabbitmq.acknowledgements import Acknowledgement, acknowledgements

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE


@given(st.dictionaries(st.integers(1, 40), st.sampled_from([None, DONE, RELEASE])))
def test_what_was_asked_is_settled_and_nothing_else(asked: dict[int, Settlement | None]) -> None:
    """By a broker that does as AMQP says: several means all that is out up to there."""
    out = dict.fromkeys(sorted(asked))
    settled = {tag: settlement for tag, settlement in asked.items() if settlement is not None}
    told: dict[int, Settlement] = {}
    for one in acknowledgements(out, settled):
        tags = [tag for tag in out if tag <= one.tag] if one.multiple else [one.tag]
        told |= dict.fromkeys(tags, one.settlement)
        for tag in tags:
            del out[tag]
    assert told == settled


@given(st.sets(st.integers(1, 40), min_size=1))
def test_all_that_is_out_goes_in_one_frame(out: set[int]) -> None:
    told = acknowledgements(sorted(out), dict.fromkeys(out, DONE))
    assert told == [Acknowledgement(max(out), DONE, multiple=len(out) > 1)]


def test_what_lies_behind_something_that_stays_out_goes_one_by_one_in_its_order() -> None:
    told = acknowledgements([1, 2, 3, 4, 5, 6], {6: DONE, 4: DONE, 2: DONE, 1: DONE})
    assert [(one.tag, one.multiple) for one in told] == [(2, True), (4, False), (6, False)]


def test_one_out_of_a_million_is_told_without_looking_through_them() -> None:
    out = iter(range(1, 1_000_001))
    assert acknowledgements(out, {999_999: DONE}) == [Acknowledgement(999_999, DONE, multiple=False)]
    assert next(out) == 2
