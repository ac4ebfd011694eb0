"""Sets of offsets as ranges, against plain sets."""

from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.kafka.offsets import runs
from mqkit.backends.kafka.ranges import Ranges

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20)


@given(RANGES, st.integers(0, 40), st.integers(0, 40))
def test_ranges_hold_what_a_set_would(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    expected = {offset for first, last in ranges for offset in range(first, last)}
    found = Ranges(ranges)
    assert list(found) == list(runs(sorted(expected)))
    assert len(found) == len(list(found))
    assert {offset for offset in range(-1, 42) if offset in found} == expected
    assert found.count(start, stop) == len(expected & set(range(start, stop)))
