"""In which portions dead letters are asked for."""

from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.rabbitmq.letters import LARGEST, Windows

MEBIBYTE = 1024 * 1024


def test_the_first_window_is_as_asked_for_and_the_next_ones_grow() -> None:
    windows = Windows(5, MEBIBYTE)
    assert [windows.widen() for _ in range(7)] == [5, 20, 80, 320, 1280, 5120, LARGEST]
    assert windows.granted == 5 + 20 + 80 + 320 + 1280 + 5120 + LARGEST


def test_a_window_has_as_many_letters_as_fit_into_the_bytes_by_the_largest_that_came() -> None:
    windows = Windows(100, MEBIBYTE)
    windows.widen()
    windows.arrived(200)
    windows.arrived(MEBIBYTE // 10)
    assert windows.widen() == 10
    windows.arrived(5 * MEBIBYTE)
    assert windows.widen() == 1
    windows.arrived(100)
    assert windows.widen() == 4


@given(st.integers(1, 100), st.integers(0, 2_000_000))
def test_a_few_hundred_windows_reach_any_number_of_small_letters(first: int, letters: int) -> None:
    windows, asked = Windows(first, 8 * MEBIBYTE), 0
    while windows.granted < letters:
        windows.arrived(800)
        windows.widen()
        asked += 1
    assert asked < 300
