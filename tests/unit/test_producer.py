"""The producer: batches, repeats what is unknown, ends every send in time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest

from mqkit import outbox as outbox_module
from mqkit.errors import (
    AuthenticationFailed,
    BackendError,
    ClosedError,
    ConnectionLost,
    MqkitError,
    PublishError,
    Unroutable,
)
from mqkit.message import Outgoing, WireMessage
from mqkit.producer import Producer, new_id, published
from tests.unit.scripted import Script, Scripted, accept
from tests.unit.virtual_time import VirtualPorts, run, until


def letter(name: str, key: str | None = None, size: int = 0, topic: str = "orders") -> Outgoing:
    return Outgoing(
        WireMessage(b"x" * size, {"ce_id": name}, key=key.encode() if key else None), topic, labels={"id": name}
    )


def names(batch: Sequence[Outgoing]) -> list[str]:
    return [outgoing.labels["id"] for outgoing in batch]


def failing(error: Exception) -> Script:
    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        raise error

    return script


def hanging(gate: asyncio.Event) -> Script:
    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        await gate.wait()

    return script


def refusing(topic: str, open_again: Callable[[], bool] = lambda: False) -> Script:
    """A queue of `topic` is full, until `open_again`; all else is taken."""

    async def script(batch: Sequence[Outgoing], timeout: float) -> None:
        full = BackendError("queue full", retryable=True)
        rejected = {i: full for i, outgoing in enumerate(batch) if outgoing.topic == topic and not open_again()}
        if rejected:
            raise PublishError(rejected)

    return script


async def deaf(batch: Sequence[Outgoing], timeout: float) -> None:
    """A broker that never answers, and a driver that does not notice."""
    await asyncio.get_running_loop().create_future()


def produce(
    work: Callable[[Scripted, Producer], Awaitable[None]], changes: list[MqkitError | None] | None = None
) -> Scripted:
    """Run `work` with a started producer; close it afterwards."""

    async def main() -> Scripted:
        backend = Scripted()
        ports = VirtualPorts()
        producer = Producer(backend, ports, (changes if changes is not None else []).append)
        producer.start()
        try:
            await work(backend, producer)
        finally:
            await producer.close()
            ports.close()
        return backend

    return run(main())


def test_one_message_alone_is_sent_at_once() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        assert await producer.send((letter("a"),), 30) == {}
        assert asyncio.get_running_loop().time() == 0

    assert [names(batch) for batch in produce(work).sends] == [["a"]]


def test_what_is_published_while_a_batch_is_on_its_way_goes_together_into_the_next() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        first = asyncio.create_task(producer.send((letter("first"),), 30))
        await until(lambda: backend.sends)
        rest = [asyncio.create_task(producer.send((letter(str(i)),), 30)) for i in range(50)]
        await asyncio.sleep(1)
        assert len(backend.sends) == 1
        gate.set()
        assert await asyncio.gather(first, *rest) == [{}] * 51

    assert [len(batch) for batch in produce(work).sends] == [1, 50]


def test_a_batch_has_a_largest_number_and_a_largest_size() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        await producer.send([letter(str(i)) for i in range(outbox_module.LARGEST_BATCH + 1)], 30)
        await producer.send([letter(str(i), size=outbox_module.LARGEST_BATCH_BYTES - 1) for i in range(3)], 30)

    assert [len(batch) for batch in produce(work).sends] == [outbox_module.LARGEST_BATCH, 1, 2, 1]


def test_send_returns_only_after_the_broker_confirmed() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        sending = asyncio.create_task(producer.send((letter("a"),), 30))
        await asyncio.sleep(5)
        assert not sending.done()
        gate.set()
        assert await sending == {}

    produce(work)


def test_nothing_is_sent_for_an_empty_batch() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        assert await producer.send((), 30) == {}

    assert produce(work).sends == []


def test_a_rejected_message_fails_alone() -> None:
    wrong = Unroutable("nobody listens")

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(PublishError(rejected={1: wrong})))
        assert await producer.send([letter("a"), letter("b"), letter("c")], 30) == {1: wrong}

    backend = produce(work)
    assert len(backend.sends) == 1
    assert len(backend.senders) == 1


def test_two_callers_in_one_batch_hear_only_of_their_own() -> None:
    wrong = Unroutable("nobody listens")

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(PublishError(rejected={2: wrong})))
        mine = asyncio.create_task(producer.send([letter("a"), letter("b")], 30))
        theirs = asyncio.create_task(producer.send([letter("c")], 30))
        assert await mine == {}
        assert await theirs == {0: wrong}

    assert [names(batch) for batch in produce(work).sends] == [["a", "b", "c"]]


def test_an_unknown_outcome_is_sent_again_under_the_same_id_in_a_new_session() -> None:
    changes: list[MqkitError | None] = []

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(PublishError(unknown={1: ConnectionLost("cut")})))
        assert await producer.send([letter("a"), letter("b")], 30) == {}

    backend = produce(work, changes)
    assert [names(batch) for batch in backend.sends] == [["a", "b"], ["b"]]
    assert backend.sends[0][1] is backend.sends[1][0]
    assert len(backend.senders) == 2
    assert backend.senders[0].closed
    assert [type(change) for change in changes] == [ConnectionLost, type(None)]


def test_a_retryable_rejection_is_sent_again_in_the_same_session() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(PublishError(rejected={0: BackendError("queue full", retryable=True)})))
        assert await producer.send([letter("a"), letter("b")], 30) == {}

    backend = produce(work)
    assert [names(batch) for batch in backend.sends] == [["a", "b"], ["a"]]
    assert len(backend.senders) == 1


def test_the_first_repetition_comes_at_once_and_later_ones_wait_longer() -> None:
    times: list[float] = []

    async def lost(batch: Sequence[Outgoing], timeout: float) -> None:
        times.append(asyncio.get_running_loop().time())
        raise ConnectionLost("cut")

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = lost
        errors = await producer.send([letter("a")], 30)
        assert isinstance(errors[0], ConnectionLost)

    produce(work)
    waits = [after - before for before, after in pairwise(times)]
    assert waits[0] == 0
    assert waits[1] > 0
    assert waits[2] > waits[1]
    assert max(waits) <= 5
    assert len(waits) > 5


@pytest.mark.parametrize("timeout", [0.5, 3.0, 30.0])
def test_a_broker_that_is_away_ends_every_send_at_its_deadline_as_unknown(timeout: float) -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = failing(ConnectionLost("cut"))
        errors = await producer.send([letter("a"), letter("b")], timeout)
        assert timeout <= asyncio.get_running_loop().time() <= timeout + 0.6
        assert published(errors).unknown.keys() == {0, 1}

    produce(work)


def test_a_driver_that_never_returns_ends_the_send_it_holds_at_its_deadline() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = deaf
        errors = await producer.send([letter("a")], 3)
        assert 3 <= asyncio.get_running_loop().time() <= 4
        assert isinstance(errors[0], ConnectionLost)

    produce(work)


def test_a_patient_batch_on_its_way_does_not_keep_an_impatient_one_waiting() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        patient = asyncio.create_task(producer.send([letter("a")], 300))
        await until(lambda: backend.sends)
        began = asyncio.get_running_loop().time()
        errors = await producer.send([letter("b")], 1)
        assert asyncio.get_running_loop().time() - began <= 1.6
        assert isinstance(errors[0], ConnectionLost)
        gate.set()
        assert await patient == {}

    assert [names(batch) for batch in produce(work).sends] == [["a"]]


def test_a_time_out_ends_one_message_and_those_beside_it_are_sent_once() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        async def late(batch: Sequence[Outgoing], timeout: float) -> None:
            assert timeout > 20
            await asyncio.sleep(5)

        gate = asyncio.Event()
        backend.scripts += [hanging(gate), late]
        first = asyncio.create_task(producer.send([letter("first")], 30))
        await until(lambda: backend.sends)
        patient = asyncio.create_task(producer.send([letter("patient")], 30))
        hasty = asyncio.create_task(producer.send([letter("hasty")], 1))
        await asyncio.sleep(0)
        gate.set()
        errors = await hasty
        assert published(errors).unknown.keys() == {0}
        assert asyncio.get_running_loop().time() <= 1.6
        assert await first == await patient == {}

    backend = produce(work)
    assert [names(batch) for batch in backend.sends] == [["first"], ["patient", "hasty"]]
    assert len(backend.senders) == 1


def test_the_answer_that_nobody_waits_for_any_more_ends_no_session() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        async def half(batch: Sequence[Outgoing], timeout: float) -> None:
            await asyncio.sleep(5)
            raise PublishError(unknown={0: BackendError("not confirmed", retryable=True)})

        gate = asyncio.Event()
        backend.scripts += [hanging(gate), half]
        first = asyncio.create_task(producer.send([letter("first")], 30))
        await until(lambda: backend.sends)
        hasty = asyncio.create_task(producer.send([letter("hasty")], 1))
        patient = asyncio.create_task(producer.send([letter("patient")], 30))
        await asyncio.sleep(0)
        gate.set()
        assert published(await hasty).unknown.keys() == {0}
        assert await first == await patient == {}
        assert await producer.send([letter("next")], 30) == {}

    changes: list[MqkitError | None] = []
    backend = produce(work, changes)
    assert len(backend.senders) == 1
    assert not changes


def test_what_was_not_sent_beside_an_unknown_outcome_is_no_unknown_outcome_itself() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        refusal = BackendError("not sent", retryable=True)
        backend.script = failing(PublishError({1: refusal}, {0: ConnectionLost("cut")}))
        errors = await producer.send([letter("a"), letter("b")], 2)
        assert published(errors).unknown.keys() == {0}
        assert published(errors).rejected == {1: refusal}

    produce(work)


def test_nobody_waits_for_a_destination_that_refuses_but_who_publishes_there() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = refusing("full")
        full = [asyncio.create_task(producer.send([letter(f"full {i}", topic="full")], 20)) for i in range(3)]
        loop = asyncio.get_running_loop()
        while loop.time() < 15:
            await asyncio.sleep(0.1)
            began = loop.time()
            assert await producer.send([letter("healthy")], 10) == {}
            assert loop.time() == began
        for errors in await asyncio.gather(*full):
            assert published(errors).rejected.keys() == {0}

    produce(work)


def test_a_destination_that_refuses_is_tried_ever_less_often() -> None:
    times: list[float] = []

    async def full(batch: Sequence[Outgoing], timeout: float) -> None:
        assert len(batch) <= 5 * (not times) + 1, "one message is enough to try"
        times.append(asyncio.get_running_loop().time())
        raise PublishError(dict.fromkeys(range(len(batch)), BackendError("queue full", retryable=True)))

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = full
        errors = await producer.send([letter(str(i)) for i in range(6)], 30)
        assert published(errors).rejected.keys() == set(range(6))

    produce(work)
    waits = [after - before for before, after in pairwise(times)]
    assert waits[0] < 0.1
    assert waits[-1] > waits[0] * 10
    assert max(waits) <= 5
    assert len(waits) > 5


def test_a_destination_that_refused_gets_its_messages_in_order_and_ever_more_at_once() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        loop = asyncio.get_running_loop()
        backend.script = refusing("full", lambda: loop.time() > 3)
        sends = [asyncio.create_task(producer.send([letter(str(i), "k", topic="full")], 30)) for i in range(50)]
        await asyncio.sleep(1)
        sends += [asyncio.create_task(producer.send([letter(str(i), "k", topic="full")], 30)) for i in range(50, 100)]
        assert await asyncio.gather(*sends) == [{}] * 100

    backend = produce(work)
    assert names(backend.of("sent")) == [str(i) for i in range(100)]
    assert [len(batch) for batch in backend.sends][-7:] == [1, 2, 4, 8, 16, 32, 37]


def test_a_lost_session_keeps_the_order_of_a_destination_that_refused() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts += [refusing("orders"), failing(ConnectionLost("cut")), failing(ConnectionLost("cut"))]
        assert await producer.send([letter(str(i), "k") for i in range(5)], 30) == {}

    assert names(produce(work).of("sent")) == list("01234")


def test_what_waits_for_a_full_queue_takes_no_room_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM", 10)

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = refusing("full")
        loop = asyncio.get_running_loop()
        full = [asyncio.create_task(producer.send([letter(str(i), topic="full")], 20)) for i in range(100)]
        await asyncio.sleep(1)
        for _ in range(20):
            assert await producer.send([letter("healthy")], 10) == {}
        assert loop.time() <= 1.1
        assert len(producer._outbox) <= 20
        for errors in await asyncio.gather(*full):
            assert published(errors).rejected.keys() == {0}
        assert loop.time() <= 21

    produce(work)


def test_what_was_unknown_once_stays_unknown_whatever_fails_after_it() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(ConnectionLost("cut")))
        backend.script = failing(PublishError(rejected={0: BackendError("queue full", retryable=True)}))
        errors = await producer.send([letter("a")], 2)
        assert published(errors).unknown.keys() == {0}

    produce(work)


def test_a_refused_login_is_no_unknown_outcome() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.refuse_sender.extend(AuthenticationFailed("who are you") for _ in range(1000))
        errors = await producer.send([letter("a")], 2)
        assert isinstance(errors[0], AuthenticationFailed)
        assert published(errors).rejected.keys() == {0}

    assert produce(work).sends == []


def test_an_error_that_nobody_foresaw_is_an_unknown_outcome_and_ends_nothing() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        backend.scripts.append(failing(KeyError("a bug in the adapter")))
        assert await producer.send([letter("a")], 30) == {}
        backend.script = failing(KeyError("a bug in the adapter"))
        errors = await producer.send([letter("b")], 1)
        assert isinstance(errors[0], ConnectionLost)
        backend.script = accept
        assert await producer.send([letter("c")], 30) == {}

    produce(work)


def test_the_order_of_each_key_survives_a_lost_connection() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()

        async def lost(batch: Sequence[Outgoing], timeout: float) -> None:
            await gate.wait()
            raise ConnectionLost("cut")

        backend.scripts.append(lost)
        sends = [asyncio.create_task(producer.send([letter(str(i), key="k")], 30)) for i in range(3)]
        await until(lambda: backend.sends)
        sends += [asyncio.create_task(producer.send([letter(str(i), key="k")], 30)) for i in range(3, 6)]
        await asyncio.sleep(0.1)
        gate.set()
        await asyncio.gather(*sends)

    backend = produce(work)
    assert names(backend.of("sent")) == list("012345")


def test_a_full_queue_keeps_memory_bounded_and_every_send_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM", 10)

    async def work(backend: Scripted, producer: Producer) -> None:
        backend.script = deaf
        loop = asyncio.get_running_loop()

        async def one(i: int) -> float:
            errors = await producer.send([letter(str(i))], 2)
            assert isinstance(errors[0], ConnectionLost)
            return loop.time()

        tasks = [asyncio.create_task(one(i)) for i in range(100)]
        await asyncio.sleep(1)
        assert len(producer._outbox) <= 10
        assert max(await asyncio.gather(*tasks)) <= 3

    produce(work)


def test_who_waits_for_room_goes_on_when_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM", 10)
    monkeypatch.setattr(outbox_module, "LARGEST_BATCH", 3)

    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        tasks = [asyncio.create_task(producer.send([letter(str(i))], 30)) for i in range(100)]
        await asyncio.sleep(1)
        assert len(producer._outbox) == 10
        for gone in tasks[60:70]:
            gone.cancel()
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results.count({}) == 90
        assert not any(producer._room.values())

    produce(work)


def test_bytes_fill_the_queue_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM_BYTES", 1000)

    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        tasks = [asyncio.create_task(producer.send([letter(str(i), size=400)], 30)) for i in range(20)]
        await asyncio.sleep(1)
        assert len(producer._outbox) == 3
        gate.set()
        assert await asyncio.gather(*tasks) == [{}] * 20
        assert producer._outbox.bytes == 0

    produce(work)


def test_close_sends_what_waits() -> None:
    sending: list[asyncio.Task[dict[int, MqkitError]]] = []

    async def work(backend: Scripted, producer: Producer) -> None:
        sending.append(asyncio.create_task(producer.send([letter("a")], 30)))
        await asyncio.sleep(0)

    backend = produce(work)
    assert names(backend.of("sent")) == ["a"]
    assert sending[0].result() == {}
    assert backend.senders[0].closed


@pytest.mark.parametrize("script", [deaf, failing(ConnectionLost("cut"))], ids=["deaf", "away"])
def test_close_ends_everything_within_its_time(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM", 5)

    async def main() -> None:
        backend = Scripted()
        backend.script = script
        producer = Producer(backend, VirtualPorts())
        producer.start()
        tasks = [asyncio.create_task(producer.send([letter(str(i))], 300)) for i in range(20)]
        await asyncio.sleep(1)
        await producer.close(2.0)
        assert asyncio.get_running_loop().time() <= 1 + 2 + 1
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, ClosedError) or (
                isinstance(result, dict) and isinstance(result[0], ConnectionLost)
            )

    run(main())


def test_a_closed_producer_says_so() -> None:
    async def main() -> None:
        producer = Producer(Scripted(), VirtualPorts())
        with pytest.raises(ClosedError):
            await producer.send([letter("a")], 30)
        producer.start()
        await producer.close()
        with pytest.raises(ClosedError):
            await producer.send([letter("a")], 30)
        await producer.close()

    run(main())


def test_a_cancelled_caller_disturbs_nobody() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        gone = asyncio.create_task(producer.send([letter("a")], 30))
        await until(lambda: backend.sends)
        gone.cancel()
        other = asyncio.create_task(producer.send([letter("b")], 30))
        await asyncio.sleep(0.1)
        gate.set()
        assert await other == {}
        assert gone.cancelled()

    produce(work)


def test_what_a_cancelled_caller_had_waiting_is_not_sent() -> None:
    async def work(backend: Scripted, producer: Producer) -> None:
        gate = asyncio.Event()
        backend.scripts.append(hanging(gate))
        first = asyncio.create_task(producer.send([letter("a")], 30))
        await until(lambda: backend.sends)
        gone = asyncio.create_task(producer.send([letter("b"), letter("c")], 30))
        await asyncio.sleep(0.1)
        gone.cancel()
        other = asyncio.create_task(producer.send([letter("d")], 30))
        await asyncio.sleep(0.1)
        gate.set()
        assert await first == await other == {}

    assert [names(batch) for batch in produce(work).sends] == [["a"], ["d"]]


def test_published_tells_the_rejected_from_the_unknown() -> None:
    error = published({0: Unroutable("nobody"), 3: ConnectionLost("cut")})
    assert error.rejected.keys() == {0}
    assert error.unknown.keys() == {3}


def test_ids_are_random_uuids() -> None:
    made = [new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    for each in made:
        read = UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, RFC_4122)
    digits = zip(*made, strict=True)
    assert {len(set(column)) for column in digits} == {1, 4, 16}, "hyphens and the version, the variant, all else"
