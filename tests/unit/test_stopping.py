"""The end of work: all at the same time, within the grace, whatever the broker does."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from mqkit.codec import Codecs
from mqkit.handler import Handler, HandlerOptions
from mqkit.message import Outgoing, WireMessage
from mqkit.middleware import Around
from mqkit.ports import Job
from mqkit.producer import Producer
from mqkit.pump import Pump
from mqkit.stopping import CLOSING, FLUSHING, OPENING, PARTING, SETTLING, ended, hung_up, parted
from mqkit.topic import Topic
from tests.unit.scripted import GROUP, TOPIC, Scripted
from tests.unit.virtual_time import VirtualPorts, run, until


async def for_ever(*_: Any) -> Any:
    await asyncio.Event().wait()


async def hang(payload: Any) -> None:
    await for_ever()


class Frozen(Scripted):
    """A broker that does not answer while it is `frozen`, as at the end of a half-open connection."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False
        self.unreachable = False
        """Nobody answers who connects."""

    async def open_receiver(self, *args: Any) -> Any:
        if self.unreachable:
            await for_ever()
        receiver = await super().open_receiver(*args)
        closing = receiver.close

        async def close() -> None:
            if self.frozen:
                await for_ever()
            await closing()

        receiver.close = close  # type: ignore[method-assign]
        return receiver

    async def close(self) -> None:
        if self.frozen:
            await for_ever()


class Work:
    """Pumps of one service at one broker."""

    def __init__(self, number: int, function: Callable[[Any], Awaitable[None]], grace: float) -> None:
        self.ports = VirtualPorts()
        self.backend = Frozen()
        self.producer = Producer(self.backend, self.ports)
        self.producer.start()
        self.jobs: list[tuple[Pump, Job]] = []
        for _ in range(number):
            topic: Topic[Any] = Topic(TOPIC, None)
            handler = Handler(
                topic=topic, group=GROUP, function=function, options=HandlerOptions(), codec=Codecs().bind(topic),
                around=Around(()), ports=self.ports, prepare=for_ever,  # type: ignore[arg-type]
            )  # fmt: skip
            pump = Pump(
                backend=self.backend, handler=handler, producer=self.producer, ports=self.ports,
                emit=lambda _: None, service="", grace=grace,
            )  # fmt: skip
            self.jobs.append((pump, self.ports.spawn(pump.run(), "pump")))

    async def stopped(self) -> float:
        """Seconds that it takes to stop all."""
        began = self.ports.monotonic()
        for pump, _ in self.jobs:
            pump.stop()
        await ended(self.ports, self.jobs)
        return self.ports.monotonic() - began


def working(
    act: Callable[[Work], Awaitable[None]],
    *,
    number: int = 10,
    function: Callable[[Any], Awaitable[None]] = hang,
    grace: float = 30.0,
) -> None:
    async def main() -> None:
        work = Work(number, function, grace)
        await until(lambda: all(pump.connected for pump, _ in work.jobs))
        await act(work)
        work.backend.frozen = False
        await hung_up(work.ports, work.producer)
        work.ports.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    run(main())


def test_pumps_that_cannot_connect_are_not_waited_for_one_after_the_other() -> None:
    async def act(work: Work) -> None:
        work.backend.unreachable = True
        for receiver in work.backend.receivers:
            receiver.fail(ConnectionError("cut"))
        await until(lambda: not any(pump.connected for pump, _ in work.jobs))
        await asyncio.sleep(1)
        assert await work.stopped() < OPENING + 0.5

    working(act)


def test_hundreds_of_good_byes_take_their_time_as_long_as_they_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def act(work: Work) -> None:
        for number, receiver in enumerate(work.backend.receivers, 1):
            receiver.close = partial(asyncio.sleep, number * 0.5)  # type: ignore[method-assign]
        assert 50 <= await work.stopped() < 51

    working(act, number=100)
    assert "does not answer" not in caplog.text


def test_hundreds_of_good_byes_that_are_all_answered_late_are_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def act(work: Work) -> None:
        for receiver in work.backend.receivers:
            receiver.close = partial(asyncio.sleep, SETTLING + 1.5)  # type: ignore[method-assign]
        await work.stopped()

    working(act, number=100)
    assert "does not answer" not in caplog.text


def test_a_pump_that_has_ended_while_others_were_looked_at_is_not_taken_for_one_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act(work: Work) -> None:
        for turns, receiver in enumerate(work.backend.receivers):
            receiver.close = partial(slowly, turns)  # type: ignore[method-assign]
        await work.stopped()

    async def slowly(turns: int) -> None:
        await asyncio.sleep(OPENING + 1)
        for _ in range(3 * turns):  # so that they end one after the other, within one look
            await asyncio.sleep(0)

    working(act, number=100)
    assert "does not answer" not in caplog.text


def test_pumps_whose_broker_hangs_in_a_good_bye_are_left_all_at_once() -> None:
    async def act(work: Work) -> None:
        work.backend.frozen = True
        assert await work.stopped() < SETTLING + PARTING + 0.5

    working(act)


def test_handlers_keep_their_grace_and_what_outlasts_it_does_not() -> None:
    async def act(work: Work) -> None:
        work.backend.give()
        await until(lambda: any(pump.running for pump, _ in work.jobs))
        work.backend.frozen = True
        took = await work.stopped()
        assert 7.0 <= took < 7.0 + SETTLING + PARTING + 1.5

    working(act, number=2, grace=7.0)


def test_pumps_whose_broker_answers_end_at_once() -> None:
    async def act(work: Work) -> None:
        assert await work.stopped() < 0.5

    working(act)


def test_what_a_pump_raised_is_raised() -> None:
    async def act(work: Work) -> None:
        async def dies() -> None:
            raise ZeroDivisionError

        pump, _ = work.jobs[0]
        work.jobs.append((pump, work.ports.spawn(dies(), "dies")))
        with pytest.raises(ZeroDivisionError):
            await work.stopped()
        assert all([await job.over(0) for _, job in work.jobs]), "the others were waited for"

    working(act, number=2)


def test_closing_leaves_a_broker_that_does_not_answer() -> None:
    async def act(work: Work) -> None:
        await work.stopped()
        sending = asyncio.create_task(work.producer.send((Outgoing(WireMessage(b"", {}), TOPIC),), 100.0))
        work.backend.script = for_ever
        await asyncio.sleep(0.1)
        work.backend.frozen = True
        began = work.ports.monotonic()
        await hung_up(work.ports, work.producer)
        await parted(work.ports, work.backend)
        assert work.ports.monotonic() - began < FLUSHING + PARTING + CLOSING + 0.5
        await sending

    working(act, number=1)
