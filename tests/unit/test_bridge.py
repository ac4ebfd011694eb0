"""Ports of an event loop, and blocking backends behind it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from mqkit.backend import Settlement, Subscription
from mqkit.backends.memory import MemoryBackend
from mqkit.bridge import ThreadedBackend, for_event_loop
from mqkit.errors import ClosedError, ConnectionLost
from mqkit.event_loop import AsyncJob, AsyncPorts
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import TopicNeed, Topology
from tests.unit.virtual_time import VirtualPorts, run


def with_ports(work: Callable[[VirtualPorts], Awaitable[None]]) -> None:
    async def main() -> None:
        ports = VirtualPorts()
        await work(ports)
        ports.close()

    run(main())


def test_a_signal_stays_up_until_it_was_seen_and_is_down_afterwards() -> None:
    async def work(ports: VirtualPorts) -> None:
        signal = ports.signal()
        signal.set()
        signal.set()
        assert await signal.wait(0)
        assert not await signal.wait(1)
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        waiting = asyncio.create_task(signal.wait())
        await asyncio.sleep(1)
        signal.set()
        assert await waiting

    with_ports(work)


def test_a_signal_raised_as_the_time_ran_out_is_not_lost() -> None:
    async def work(ports: VirtualPorts) -> None:
        signal = ports.signal()
        loop = asyncio.get_running_loop()
        loop.call_at(1, signal.set)
        seen = await signal.wait(1)
        assert seen or await signal.wait(0.1)

    with_ports(work)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def work(ports: VirtualPorts) -> None:
        signal = ports.signal()
        waiting = asyncio.create_task(signal.wait(100))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        signal.set()
        assert await signal.wait(0)

    with_ports(work)


def test_a_promise_is_kept_once() -> None:
    async def work(ports: VirtualPorts) -> None:
        fine, broken, forgotten = ports.promise(), ports.promise(), ports.promise()
        fine.resolve(None)
        fine.resolve(ValueError())
        await fine.result()
        broken.resolve(ValueError("no"))
        broken.resolve(None)
        with pytest.raises(ValueError, match="no"):
            await broken.result()
        forgotten.resolve(ValueError("nobody reads this, and nobody complains"))

    with_ports(work)


def test_a_job_ends_raises_or_is_cancelled() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def work(ports: VirtualPorts) -> None:
        job = ports.spawn(fails(), "fails")
        with pytest.raises(ValueError, match="no"):
            await job.join()
        job = ports.spawn(asyncio.sleep(1000), "sleeps")
        job.cancel()
        await job.join()
        assert isinstance(job, AsyncJob)

    with_ports(work)


def test_posting_works_from_any_thread_and_does_nothing_after_the_end() -> None:
    called = threading.Event()

    async def main() -> AsyncPorts:
        ports = AsyncPorts()
        thread = threading.Thread(target=ports.post, args=(called.set,))
        thread.start()
        await asyncio.to_thread(called.wait, 20)
        thread.join()
        ports.close()
        return ports

    ports = asyncio.run(asyncio.wait_for(main(), 30))
    ports.post(called.clear)
    assert called.is_set()


def test_a_blocking_backend_serves_an_event_loop_one_thread_for_each_session() -> None:
    threads: dict[str, set[str]] = {}

    class Watched(MemoryBackend):
        def open_sender(self) -> Any:
            threads.setdefault("sender", set()).add(threading.current_thread().name)
            return super().open_sender()

        def open_receiver(self, *args: Any) -> Any:
            threads.setdefault("receiver", set()).add(threading.current_thread().name)
            return super().open_receiver(*args)

    async def main() -> None:
        blocking = Watched(f"memory://{uuid4().hex}")
        backend = for_event_loop("blocking", blocking)
        assert isinstance(backend, ThreadedBackend)
        assert backend.capabilities is blocking.capabilities
        assert "memory" in await backend.connect(1)
        need = Topology((TopicNeed("t", frozenset("g")),))
        await backend.declare(need)
        assert {finding.state for finding in await backend.examine(need)} == {"present"}
        assert list(await backend.groups()) == [("t", "g")]
        sender = await backend.open_sender()
        receiver = await backend.open_receiver(Subscription(topic="t", group="g"), lambda *_: None)
        pending = asyncio.create_task(receiver.receive(1, 30))
        await sender.send([Outgoing(WireMessage(b"x"), "t")], 5)
        (delivery,) = await pending
        assert (await backend.inspect("t", "g")).in_flight == 1
        await receiver.settle([(delivery.token, Settlement.DONE)])
        pending = asyncio.create_task(receiver.receive(1, 30))
        await asyncio.sleep(0)
        receiver.wake()
        assert list(await pending) == []
        pending = asyncio.create_task(receiver.receive(1, 30))
        await asyncio.sleep(0)
        await receiver.close()
        assert list(await pending) == []
        await receiver.close()
        await sender.close()
        await sender.close()
        for call in (receiver.receive(1, 1), receiver.settle([]), sender.send([], 1)):
            with pytest.raises(ClosedError):
                await call
        await backend.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    (sender,), (receiver,) = threads["sender"], threads["receiver"]
    assert "mqkit-sender" in sender
    assert "mqkit-t.g" in receiver


def test_a_session_that_cannot_be_opened_leaves_no_thread() -> None:
    async def main() -> None:
        name = uuid4().hex
        backend = for_event_loop("blocking", MemoryBackend(f"memory://{name}"))
        MemoryBackend.broker(name).interrupt()
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                await backend.open_sender()
        end = asyncio.get_running_loop().time() + 10
        while threading.active_count() > before:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.01)

    asyncio.run(main())
