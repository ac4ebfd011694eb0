"""Publishing on purpose: how many are in flight, and that all that was confirmed is counted."""

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice

import pytest

from mqkit.bench.load import at_pace, in_batches, keep_in_flight
from mqkit.bench.meter import between, calibrate, peak_memory, reading
from mqkit.bench.orders import LARGE, SMALL, Order, made_up, numbered, sized


def some() -> list[Order]:
    return list(islice(made_up(), 3))


@pytest.mark.parametrize("window", [1, 7])
def test_a_window_is_kept_and_every_confirmation_counted(window: int) -> None:
    flying = most = confirmed = 0

    async def publish(_: Order) -> None:
        nonlocal flying, most, confirmed
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        confirmed += 1

    found = asyncio.run(keep_in_flight(publish, cycle(some()), window, 0.05))
    assert (most, flying) == (window, 0)
    assert found.confirmed == confirmed
    assert 0 < found.measured < confirmed
    assert found.stretch.seconds >= 0.05


def test_batches_are_counted_by_message() -> None:
    sizes: list[int] = []

    async def publish(orders: Sequence[Order]) -> None:
        sizes.append(len(orders))

    found = asyncio.run(in_batches(publish, cycle(some()), 10, 0.02))
    assert set(sizes) == {10}
    assert found.confirmed == sum(sizes)


def test_a_pace_is_kept_and_each_order_says_when_it_was_placed() -> None:
    placed: list[float] = []

    async def publish(order: Order) -> None:
        placed.append(order.placed)

    began = time.monotonic()
    assert asyncio.run(at_pace(publish, some(), 50.0)) == 3
    assert time.monotonic() - began >= 0.06
    assert all(began < at <= time.monotonic() for at in placed)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_order_is_as_long_as_was_asked_for(size: int) -> None:
    for order in numbered(made_up(), 1_200, size):
        assert abs(len(order.model_dump_json()) - size) < 20


def test_orders_are_numbered_from_zero_however_few_there_are() -> None:
    assert [order.number for order in numbered(some(), 7, SMALL)] == list(range(7))


def test_an_order_that_is_too_long_stays_as_it_is() -> None:
    order = some()[0]
    assert sized(order, 10).note == ""


def test_the_clocks_tell_work_from_waiting() -> None:
    first = reading()
    time.sleep(0.05)
    slept = between(first, reading())
    assert slept.seconds >= 0.05
    assert slept.cpu < 0.04
    first = reading()
    loop = calibrate()
    worked = between(first, reading())
    assert worked.cpu >= loop.cpu > 0
    assert worked.seconds >= loop.wall > 0
    assert 0 <= worked.steal <= 1


def test_memory_is_that_of_this_process() -> None:
    assert (peak_memory() or 1 << 23) > 1 << 22
