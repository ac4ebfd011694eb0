"""Orchestration without an event loop: what threads promise instead of it."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest

from mqkit.daemons import Daemons
from mqkit.monitor import Monitor
from mqkit.ports import HandlerTimeout, Job, joined
from mqkit.threads import JobCancelled, ThreadJob, ThreadPorts, ThreadSignal

PATIENCE = 10.0


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.001)


def thread(target: Callable[[], object]) -> threading.Thread:
    found = threading.Thread(target=target, daemon=True)
    found.start()
    return found


def joined_now(ports: ThreadPorts, job: Job) -> None:
    async def join() -> None:
        await job.join()

    ports.run(join())


@pytest.fixture
def ports() -> Any:
    found = ThreadPorts()
    yield found
    found.close()


class TestMonitor:
    def test_its_owner_may_take_it_again_and_others_wait(self) -> None:
        monitor, log = Monitor(), []

        def other() -> None:
            with monitor:
                log.append("other")

        with monitor, monitor:
            waiting = thread(other)
            waiting.join(0.05)
            log.append("owner")
        waiting.join(PATIENCE)
        assert log == ["owner", "other"]

    def test_it_is_left_altogether_and_taken_again_as_deep(self) -> None:
        monitor = Monitor()
        with monitor, monitor:
            depth = monitor.leave()
            assert depth == 2
            other = thread(monitor.__enter__)
            other.join(PATIENCE)
            assert not other.is_alive(), "it was not free"
            monitor._lock.release()  # the other thread is gone and cannot
            monitor._owner = monitor._depth = 0
            monitor.come_back(depth)
            assert monitor._depth == 2
        assert monitor._depth == 0

    def test_who_does_not_have_it_cannot_leave_it(self) -> None:
        monitor = Monitor()
        with monitor:
            left: list[int] = []
            thread(lambda: left.append(monitor.leave())).join(PATIENCE)
            assert left == [0]
            assert monitor.leave() == 1
            monitor.come_back(1)


class TestOneAtATime:
    def test_between_two_waits_no_other_job_runs(self, ports: ThreadPorts) -> None:
        inside = most = 0

        async def work() -> None:
            nonlocal inside, most
            for _ in range(50):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0001)  # noqa: ASYNC251 - no event loop; another thread would come in here, if it could
                inside -= 1
                await ports.signal().wait(0)

        async def main() -> None:
            await joined([ports.spawn(work(), f"job {i}") for i in range(4)])

        ports.run(main())
        assert most == 1

    def test_what_is_apart_runs_beside(self, ports: ThreadPorts) -> None:
        barrier = threading.Barrier(3)

        async def meet() -> int:
            return barrier.wait(PATIENCE)

        async def work() -> None:
            await ports.apart(meet(), copy_context())

        async def main() -> None:
            await joined([ports.spawn(work(), f"job {i}") for i in range(3)])

        ports.run(main())

    def test_a_call_from_outside_waits_for_its_turn(self, ports: ThreadPorts) -> None:
        log: list[str] = []

        async def main() -> None:
            ran = ports.signal()

            def posted() -> None:
                log.append("posted")
                ran.set()

            poster = thread(lambda: ports.post(posted))
            poster.join(PATIENCE)
            assert not poster.is_alive(), "posting never waits"
            log.append("main")
            assert await ran.wait(PATIENCE)

        ports.run(main())
        assert log == ["main", "posted"]

    def test_posting_waits_for_nobody_and_keeps_the_order(
        self, ports: ThreadPorts, caplog: pytest.LogCaptureFixture
    ) -> None:
        log: list[int] = []
        with ports.monitor:  # as a step that takes long
            for number in range(20):
                poster = thread(lambda number=number: ports.post(lambda: log.append(number)))  # type: ignore[misc]
                poster.join(PATIENCE)
                assert not poster.is_alive()
            thread(lambda: ports.post(lambda: 1 / 0)).join(PATIENCE)
            assert log == []
        until(lambda: len(log) == 20 and "ZeroDivisionError" in caplog.text)
        assert log == list(range(20))

    def test_what_was_posted_is_done_before_the_next_call(self, ports: ThreadPorts) -> None:
        log: list[str] = []
        with ports.monitor:
            thread(lambda: ports.post(lambda: log.append("posted"))).join(PATIENCE)

        async def main() -> None:
            log.append("next")

        ports.run(main())
        assert log == ["posted", "next"]

    def test_a_driver_s_call_outside_is_left_to_itself_when_its_job_is_cancelled(self, ports: ThreadPorts) -> None:
        gate, job = threading.Event(), ThreadJob(ports)

        async def main() -> None:
            await ports.outside(lambda: gate.wait(PATIENCE))

        def cancel() -> None:
            until(lambda: job.parked)
            job.cancel()

        canceller = thread(cancel)
        with pytest.raises(JobCancelled):
            ports.run(main(), job)
        canceller.join(PATIENCE)
        assert not gate.is_set()
        gate.set()
        assert ports.run(ports.outside(lambda: 5)) == 5


class TestSignal:
    def test_it_stays_up_until_it_was_seen(self, ports: ThreadPorts) -> None:
        async def main() -> None:
            flag = ports.signal()
            flag.set()
            assert await flag.wait(0)
            assert not await flag.wait(0.001)

        ports.run(main())

    def test_it_wakes_who_waits_from_any_thread(self, ports: ThreadPorts) -> None:
        flag = ports.signal()
        thread(flag.set)
        assert ports.run(flag.wait(PATIENCE))

    def test_no_flag_is_lost_between_many_threads(self, ports: ThreadPorts) -> None:
        there, back = ports.signal(), ports.signal()

        async def echo() -> None:
            for _ in range(500):
                await there.wait()
                back.set()

        async def main() -> None:
            job = ports.spawn(echo(), "echo")
            for _ in range(500):
                there.set()
                assert await back.wait(PATIENCE)
            await job.join()

        ports.run(main())


class TestPromise:
    def test_it_is_kept_before_or_while_somebody_waits(self, ports: ThreadPorts) -> None:
        early, late = ports.promise(), ports.promise()

        async def main() -> None:
            early.resolve(None)
            await early.result()
            thread(lambda: ports.post(lambda: late.resolve(ValueError("no"))))
            with pytest.raises(ValueError, match="no"):
                await late.result()
            late.resolve(None)
            with pytest.raises(ValueError, match="no"):
                await late.result()

        ports.run(main())


class TestJob:
    def test_joining_raises_what_it_raised(self, ports: ThreadPorts) -> None:
        async def fail() -> None:
            raise ValueError("no")

        async def main() -> None:
            with pytest.raises(ValueError, match="no"):
                await ports.spawn(fail(), "fails").join()

        ports.run(main())

    def test_it_is_cancelled_where_it_waits(self, ports: ThreadPorts) -> None:
        log: list[str] = []

        async def wait(flag: ThreadSignal) -> None:
            try:
                await flag.wait()
            except JobCancelled:
                log.append("cancelled")
                raise

        async def main() -> None:
            job = ports.spawn(wait(ports.signal()), "waits")
            await ports.signal().wait(0.01)
            job.cancel()
            await job.join()

        ports.run(main())
        until(lambda: log == ["cancelled"])

    def test_one_that_blocks_in_a_driver_is_left_to_itself_and_stops_when_it_comes_back(
        self, ports: ThreadPorts
    ) -> None:
        gate, log = threading.Event(), []

        async def block() -> None:
            try:
                with ports.away():
                    gate.wait(PATIENCE)
                log.append("went on")
            except JobCancelled:
                log.append("stopped")

        async def main() -> None:
            job = ports.spawn(block(), "blocks")
            await ports.signal().wait(0.01)
            job.cancel()
            await job.join()
            assert log == []

        ports.run(main())
        gate.set()
        until(lambda: log)
        assert log == ["stopped"]


class TestTimers:
    def test_calls_come_in_the_order_of_their_time(self, ports: ThreadPorts) -> None:
        log: list[str] = []

        async def main() -> None:
            ports.later(0.03, lambda: log.append("third"))
            ports.later(0.01, lambda: log.append("first"))
            ports.later(0.02, lambda: log.append("second"))
            ports.later(0.015, lambda: log.append("never")).cancel()

        start = time.monotonic()
        ports.run(main())
        until(lambda: len(log) == 3)
        assert log == ["first", "second", "third"]
        assert time.monotonic() - start >= 0.03

    def test_the_clock_outlives_what_a_call_raises(self, ports: ThreadPorts, caplog: pytest.LogCaptureFixture) -> None:
        called = threading.Event()

        async def main() -> None:
            ports.later(0, lambda: 1 / 0)
            ports.later(0.001, called.set)

        ports.run(main())
        assert called.wait(PATIENCE)
        assert "ZeroDivisionError" in caplog.text

    @pytest.mark.parametrize("delay", [1_795_604_904_659.0, float("inf"), float("nan"), -5.0, threading.TIMEOUT_MAX])
    def test_no_delay_stops_the_clock(self, ports: ThreadPorts, delay: float) -> None:
        called = threading.Event()

        async def main() -> None:
            ports.later(delay, lambda: None)

        async def again() -> None:
            ports.later(0.001, called.set)

        ports.run(main())
        ports.run(again())
        assert called.wait(PATIENCE)

    def test_one_that_comes_sooner_does_not_wait_for_those_before_it(self, ports: ThreadPorts) -> None:
        log: list[str] = []

        async def later(delay: float, text: str) -> None:
            ports.later(delay, lambda: log.append(text))

        ports.run(later(1000, "late"))
        time.sleep(0.02)  # its thread waits for it
        ports.run(later(0.01, "soon"))
        until(lambda: log)
        assert log == ["soon"]


class TestCall:
    def test_a_function_is_called_in_this_thread(self, ports: ThreadPorts) -> None:
        assert ports.run(ports.call(threading.get_ident, (), None)) == threading.get_ident()

    def test_one_that_takes_too_long_is_told_of_and_goes_on(self, ports: ThreadPorts) -> None:
        gate = threading.Event()

        async def main() -> HandlerTimeout:
            with pytest.raises(HandlerTimeout, match=r"longer than 0.02 s") as caught:
                await ports.apart(ports.call(gate.wait, (PATIENCE,), 0.02), copy_context())
            return caught.value

        timeout = ports.run(main())
        assert timeout.still is not None
        joiner = thread(partial(joined_now, ports, timeout.still))
        joiner.join(0.02)
        assert joiner.is_alive(), "it did not go on"
        gate.set()
        joiner.join(PATIENCE)
        assert not joiner.is_alive()

    @pytest.mark.parametrize("timeout", [None, 5.0])
    def test_what_it_returns_and_raises_comes_back(self, ports: ThreadPorts, timeout: float | None) -> None:
        assert ports.run(ports.call(max, (1, 2), timeout)) == 2
        with pytest.raises(ZeroDivisionError):
            ports.run(ports.call(lambda: 1 // 0, (), timeout))

    @pytest.mark.parametrize("timeout", [None, 5.0])
    @pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
    def test_one_that_means_to_end_its_thread_has_only_failed(
        self, ports: ThreadPorts, error: BaseException, timeout: float | None
    ) -> None:
        def leave() -> None:
            raise error

        with pytest.raises(RuntimeError, match=type(error).__name__):
            ports.run(ports.call(leave, (), timeout))

    def test_an_awaitable_is_refused(self, ports: ThreadPorts) -> None:
        async def late() -> None: ...

        with pytest.raises(TypeError, match="AsyncApp runs async ones"):
            ports.run(ports.call(partial(late), (), None))


class TestDaemons:
    def test_threads_are_used_again(self) -> None:
        daemons = Daemons("test")
        names: list[str] = []
        for _ in range(20):
            daemons.start(lambda: names.append(threading.current_thread().name))
            until(lambda: daemons._idle)
        assert names == ["test-1"] * 20
        daemons.close()

    def test_calls_at_the_same_time_have_threads_of_their_own_that_no_exit_waits_for(self) -> None:
        daemons, barrier = Daemons("test"), threading.Barrier(6)
        daemon: list[bool] = []

        def meet() -> None:
            daemon.append(threading.current_thread().daemon)
            barrier.wait(PATIENCE)

        for _ in range(5):
            daemons.start(meet)
        barrier.wait(PATIENCE)
        assert daemon == [True] * 5
        daemons.close()

    def test_they_end_when_it_is_closed(self) -> None:
        daemons = Daemons("closing")
        daemons.start(lambda: None)
        until(lambda: daemons._idle)
        daemons.close()
        until(lambda: not [each for each in threading.enumerate() if each.name.startswith("closing-")])
