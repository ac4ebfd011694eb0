"""How much a consumer has out: by number and by bytes, grown by what was seen."""

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.rabbitmq.window import Window

MB = 1_000_000


class Queue:
    """A broker with many messages; it sends what the prefetch allows, at once."""

    def __init__(self, window: Window, size: Callable[[int], int]) -> None:
        self.window = window
        self.size = size
        self.sent = 0
        self.out: deque[int] = deque()
        self.credit = window.size
        self.peak = 0
        self.changes = 0
        self.empty = False

    def run(self) -> None:
        """Send, and change the prefetch, until both are still."""
        before = self.changes
        while True:
            assert self.changes < before + 100, "it goes to and fro"
            while self.credit > 0 and not self.empty:
                self.credit -= 1
                self.out.append(self.size(self.sent))
                self.sent += 1
                self.window.out_bytes += self.out[-1]
                self.peak = max(self.peak, sum(self.out))
                if self.window.over and self.window.better(len(self.out)) is not None:
                    break
            better = self.window.better(len(self.out))
            if better is None:
                if self.credit <= 0 or self.empty:
                    return
                continue
            self.changes += 1
            self.window.began(better)
            self.credit = max(0, better - len(self.out))

    def settle(self, number: int) -> None:
        for _ in range(min(number, len(self.out))):
            self.window.out_bytes -= self.out.popleft()
            self.credit += 1 if self.window.size else 0
        self.run()


def queue(window: Window, size: Callable[[int], int]) -> Queue:
    found = Queue(window, size)
    found.run()
    return found


def test_small_messages_are_soon_all_that_is_wanted_and_then_nothing_changes() -> None:
    found = queue(Window(260, 0, 64 * MB, ordered=False), lambda _: 300)
    assert len(found.out) == 260
    assert found.changes <= 3
    for _ in range(1000):
        found.settle(7)
    assert (len(found.out), found.changes) == (260, 3)


@pytest.mark.parametrize("size", [MB, 10 * MB, 63 * MB, 65 * MB, 100 * MB])
def test_large_messages_are_out_by_their_bytes_and_one_always_is(size: int) -> None:
    found = queue(Window(260, 10_000, 64 * MB, ordered=False), lambda _: size)
    for _ in range(50):
        assert 1 <= len(found.out) <= max(1, 64 * MB // size)
        found.settle(1)
    assert found.peak <= max(size, 64 * MB)


def test_when_messages_become_larger_fewer_are_out_as_soon_as_that_is_seen() -> None:
    found = queue(Window(260, 0, 64 * MB, ordered=False), lambda number: 1000 if number < 2000 else 5 * MB)
    while found.sent < 2000:
        found.settle(10)
    for _ in range(200):
        found.settle(1)
    assert sum(found.out) <= 64 * MB * 1.5
    assert found.out


def test_what_waits_aside_is_made_up_for_and_later_that_is_taken_back() -> None:
    window = Window(10, 1000, 64 * MB, ordered=False)
    found = queue(window, lambda _: 100)
    assert not window.starve(0, 10)
    while len(found.out) < 500:
        assert window.starve(10, len(found.out))
        found.run()
    assert len(found.out) <= 1000
    found.empty = True
    found.settle(len(found.out) - 5)
    assert window.size == 10


def test_no_more_than_allowed_is_made_up_for() -> None:
    window = Window(10, 30, 64 * MB, ordered=False)
    found = queue(window, lambda _: 100)
    for _ in range(20):
        window.starve(10, len(found.out))
        found.run()
    assert len(found.out) == 40


def test_without_a_bound_of_bytes_the_prefetch_is_what_was_asked_for() -> None:
    window = Window(200, 0, None, ordered=False)
    assert window.size == 200
    window.out_bytes += 1000 * MB
    assert window.better(200) is None
    assert not window.over


@given(st.lists(st.integers(0, 70 * MB), min_size=1, max_size=50), st.lists(st.integers(1, 20), max_size=50))
def test_it_never_stands_still_with_nothing_out(sizes: list[int], settled: list[int]) -> None:
    found = queue(Window(50, 100, 64 * MB, ordered=False), lambda number: sizes[number % len(sizes)])
    for number in settled:
        assert found.out
        found.settle(number)
    assert found.out
    assert found.window.out_bytes == sum(found.out)


def test_one_that_keeps_an_order_has_all_that_was_out_before_it_has_anything_else() -> None:
    window = Window(20, 0, MB, ordered=True)
    assert window.size == 20
    window.out_bytes = 100 * MB
    for size in (20, 80, 320):
        assert window.better(size - 1) is None
        assert window.better(size) == 4 * size
        window.began(4 * size)
    window.fresh()
    assert window.better(window.size) is None


def test_there_is_an_end_to_what_one_that_keeps_an_order_asks_for() -> None:
    window = Window(65_000, 10_000, MB, ordered=True)
    assert window.better(65_000) == 65_535
    window.began(65_535)
    assert window.better(65_535) is None


def test_one_that_keeps_an_order_begins_small_with_an_empty_queue() -> None:
    window = Window(20, 0, 64 * MB, ordered=True)
    window.clear(empty=True)
    assert (window.size, window.trigger) == (1, 1)
    window.out_bytes += 100
    assert window.better(1) == 16


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50), st.integers(0, 5 * MB)), max_size=50))
def test_one_that_keeps_an_order_changes_only_when_nothing_is_on_its_way_and_only_grows(
    moments: list[tuple[int, int, int]],
) -> None:
    window = Window(50, 100, 64 * MB, ordered=True)
    window.fresh()
    for out, hungry, size in moments:
        window.out_bytes += size
        window.starve(hungry, out)
        better = window.better(out)
        assert better is None or out >= window.size < better <= 150
        assert not window.over
        assert not window.waits
        if better is not None:
            window.began(better)
