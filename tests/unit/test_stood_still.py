"""A process that stood still starts nothing before its receiver was asked what is still its own."""

import asyncio
from typing import Any

import pytest

from mqkit.backend import Capabilities
from mqkit.errors import ConnectionLost
from mqkit.in_flight import InFlight
from tests.unit.scripted import Scripted
from tests.unit.test_pump import Works, pumping
from tests.unit.virtual_time import run, until

LEASE = 8.0


@pytest.fixture(autouse=True)
def leased(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Scripted) -> None:
        before(self)
        self.capabilities = Capabilities(lease=LEASE)

    before = Scripted.__init__
    monkeypatch.setattr(Scripted, "__init__", begin)


def stand_still(works: Works, seconds: float) -> None:
    """As when the process was stopped: the clock went on."""
    works.ports.loop.selector.elapsed += seconds  # type: ignore[attr-defined]  # the virtual loop's


@pytest.mark.parametrize("lost", [True, False])
def test_the_next_of_a_key_waits_for_the_receiver(*, lost: bool) -> None:
    started: list[Any] = []
    known: list[Works] = []

    async def stop_once(payload: Any) -> None:
        started.append(payload)
        if len(started) == 1:
            stand_still(known[0], 10 * LEASE)
            if lost:
                known[0].backend.lose(ConnectionLost("others have what it had"))

    async def work(works: Works) -> None:
        known.append(works)
        tokens = [works.backend.give(b"%d" % number, key=b"k") for number in range(3)]
        await until(lambda: started)
        if lost:  # nothing of that session starts: all of it is delivered again, from the beginning
            await until(lambda: len(works.backend.receivers) == 2)
        await works.settled(*tokens)

    pumping(stop_once, work, ordering="key")
    assert started == ([0, 0, 1, 2] if lost else [0, 1, 2])


def test_while_the_receiver_is_called_long_handlers_hold_nothing_up() -> None:
    started: list[Any] = []

    async def slow(payload: Any) -> None:
        started.append(payload)
        await asyncio.sleep(3 * LEASE)

    async def work(works: Works) -> None:
        tokens = [works.backend.give(b"%d" % number) for number in range(2)]
        await asyncio.sleep(3 * LEASE + 0.5)
        assert started == [0, 1]
        await works.settled(*tokens)

    pumping(slow, work, concurrency=1)


def test_what_was_lost_meanwhile_does_not_start() -> None:
    started: list[Any] = []
    known: list[Works] = []

    async def stop_once(payload: Any) -> None:
        started.append(payload)
        if len(started) == 1:
            stand_still(known[0], 10 * LEASE)
            known[0].backend.recall(2, 3, lost=True)

    async def work(works: Works) -> None:
        known.append(works)
        tokens = [works.backend.give(b"%d" % number) for number in range(4)]
        await until(lambda: started)
        await works.settled(tokens[0], tokens[3])
        await asyncio.sleep(30)

    works = pumping(stop_once, work, concurrency=1)
    assert started == [0, 3]
    assert works.kinds().count("lease-lost") == 1


def nothing(*_: object) -> None: ...


@pytest.mark.parametrize(("stood", "starts"), [(0.4, True), (0.6, False)])
def test_what_was_heard_of_lately_may_start_for_half_of_the_lease(stood: float, *, starts: bool) -> None:
    """The other half is for who is to notice that this process is gone, and for clocks that go unequally fast."""

    async def main() -> None:
        works = Works(stand_still, grace=0, publish=None)
        in_flight = InFlight(works.handler, works.ports, on_news=nothing, on_again=nothing, lease=LEASE)
        in_flight.hold()
        works.backend.give()
        in_flight.submit(works.backend.pending.values(), 1)
        stand_still(works, stood * LEASE)
        assert bool(in_flight.startable) is starts
        works.ports.close()

    run(main())
