"""Dead letters: read, filtered, sent back and removed; nothing leaves before its copy is confirmed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest

from mqkit.backend import Subscription
from mqkit.backends.memory import MemoryBackend
from mqkit.bridge import for_event_loop
from mqkit.dead import PAGE, AsyncDeadLetters, chooser, letter_id, read_letter
from mqkit.envelope import buried
from mqkit.errors import MessageTooLarge, MqkitError, PublishError, Unroutable
from mqkit.event_loop import AsyncPorts
from mqkit.message import Delivery, Outgoing, WireMessage
from mqkit.producer import Producer
from mqkit.topology import TopicNeed, Topology
from mqkit.verdict import Failure
from mqkit.wrapping import unwrapped, wrap


def dead(id: str, *, reason: str = "exhausted", error: str = "ValueError", key: bytes | None = None) -> WireMessage:
    delivery = Delivery(WireMessage(b'{"n": 1}', {"ce_id": id, "trace": "7"}, key), 1, "orders", "billing", "orders#1")
    return buried(
        delivery,
        "ce_",
        id,
        reason=reason,
        attempts=3,
        failure=Failure(error, "no", "trace"),
        now=0.0,
        handler="h",
        service="s",
    )


class Store:
    """A group's dead letters on a memory broker."""

    def __init__(self) -> None:
        self.backend = for_event_loop("blocking", MemoryBackend(f"memory://{uuid4().hex}"))
        self.ports = AsyncPorts()
        self.producer = Producer(self.backend, self.ports)
        self.letters = AsyncDeadLetters(
            backend=self.backend, producer=self.producer, ports=self.ports, topic="orders", group="billing", timeout=5
        )

    async def bury(self, *messages: WireMessage) -> None:
        await self.producer.send([Outgoing(message, "orders", "billing", dead=True) for message in messages], 5)

    async def received(self) -> Sequence[Delivery]:
        """What went back to the group."""
        receiver = await self.backend.open_receiver(Subscription(topic="orders", group="billing"), lambda *_: None)
        try:
            return await receiver.receive(10, 1)
        finally:
            await receiver.close()


def with_store(work: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store()
        await store.backend.declare(Topology((TopicNeed("orders", frozenset(["billing"])),)))
        store.producer.start()
        try:
            await work(store)
        finally:
            await store.producer.close()
            await store.backend.close()
            store.ports.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_letters_are_listed_oldest_first_without_taking_them_out() -> None:
    async def work(store: Store) -> None:
        assert list(await store.letters.list()) == []
        await store.bury(*(dead(str(i)) for i in range(250)))
        for _ in range(2):
            assert [letter.id for letter in await store.letters.list(1000)] == [str(i) for i in range(250)]
        assert len(await store.letters.list(7)) == 7
        assert await store.letters.count() == 250

    with_store(work)


def test_a_letter_tells_all_that_is_known() -> None:
    async def work(store: Store) -> None:
        await store.bury(dead("a", key=b"k"))
        (letter,) = await store.letters.list()
        assert (letter.id, letter.reason, letter.error_type, letter.error, letter.attempts) == (
            "a",
            "exhausted",
            "ValueError",
            "no",
            3,
        )
        assert (letter.origin, letter.handler, letter.service, letter.key, letter.body) == (
            "orders#1",
            "h",
            "s",
            "k",
            b'{"n": 1}',
        )
        assert letter.headers == {"ce_id": "a", "trace": "7"}
        assert letter.as_dict()["body"] == '{"n": 1}'

    with_store(work)


def test_replay_sends_back_to_the_group_and_purge_removes_both_only_what_fits() -> None:
    async def work(store: Store) -> None:
        await store.bury(dead("a"), dead("b", reason="rejected"), dead("c", error="KeyError"), dead("d", key=b"k"))
        assert await store.letters.replay(chooser(reason="rejected"), dry=True) == ["b"]
        assert await store.letters.count() == 4
        assert await store.letters.replay(chooser(reason="rejected")) == ["b"]
        assert await store.letters.replay(chooser(error="keyerr")) == ["c"]
        assert await store.letters.purge(chooser(key="k")) == ["d"]
        assert await store.letters.purge(chooser(["nobody"])) == []
        assert [letter.id for letter in await store.letters.list()] == ["a"]
        assert (await store.backend.inspect("orders", "billing")).ready == 2

    with_store(work)


def test_behind_a_letter_that_died_again_meanwhile_there_can_be_others() -> None:
    """As in a store of several partitions, each of which ends with what died again."""

    class Pages:
        """A Receiver."""

        def __init__(self, *pages: Sequence[Delivery]) -> None:
            self.left = [*pages, ()]

        async def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
            return self.left.pop(0)

    def lying(id: str) -> Delivery:
        return Delivery(dead(id), id, "orders", "billing", "orders#1")

    async def work(store: Store) -> None:
        store.ports.now = lambda: -1.0
        receiver: Any = Pages([lying("a")], [lying("b")], [lying("a"), lying("c")])
        found = [letter_id(one) async for page in store.letters._pages(receiver, 3, {"a"}) for one in page]
        assert found == ["b", "c"]

    with_store(work)


def test_replay_is_limited_and_tells_its_progress_over_pages() -> None:
    progress: list[int] = []

    async def work(store: Store) -> None:
        await store.bury(*(dead(str(i)) for i in range(2 * PAGE + 50)))
        ids = await store.letters.replay(limit=PAGE + 20, progress=progress.append)
        assert ids == [str(i) for i in range(PAGE + 20)]
        assert await store.letters.count() == PAGE + 30

    with_store(work)
    assert progress == [PAGE, PAGE + 20]


def test_replay_keeps_to_its_rate() -> None:
    async def work(store: Store) -> None:
        await store.bury(*(dead(str(i)) for i in range(6)))
        began = asyncio.get_running_loop().time()
        await store.letters.replay(rate=10)
        assert asyncio.get_running_loop().time() - began < 5
        await store.bury(*(dead(str(i)) for i in range(4)))
        began = asyncio.get_running_loop().time()
        await store.letters.replay(rate=2)
        assert asyncio.get_running_loop().time() - began >= 1

    with_store(work)


def test_what_cannot_be_sent_stays() -> None:
    async def work(store: Store) -> None:
        await store.bury(dead("a"), dead("b"))

        class Refusing(Producer):
            async def send(self, batch: Any, timeout: float) -> Any:
                return {0: Unroutable("gone")} | dict(await store.producer.send(batch[1:], timeout))

        store.letters._producer = Refusing(store.backend, store.ports)
        with pytest.raises(PublishError, match="1 rejected: gone"):
            await store.letters.replay()
        assert [letter.id for letter in await store.letters.list()] == ["a"]

    with_store(work)


@pytest.mark.parametrize(
    ("headers", "id", "attempts"),
    [
        ({"ce_id": "a", "mqkit-attempts": "3"}, "a", 3),
        ({"ce_id": "a", "mqkit-due": "1800000000.0"}, "a", 0),
        ({"ce_id": "a", "mqkit-attempts": "x"}, "a", 0),
        ({"ce_id": "a", "mqkit-attempts": "9" * 5000}, "a", 0),
        ({"ce_id": ["broken"]}, "wire", 0),
        ({}, "wire", 0),
    ],
)
def test_a_letter_that_somebody_else_wrote_can_be_read(headers: dict[str, Any], id: str, attempts: int) -> None:
    delivery = Delivery(WireMessage(b"\xff", headers, id="wire"), 1, "orders", "billing")
    letter = read_letter(delivery)
    assert (letter.id, letter_id(delivery), letter.attempts) == (id, id, attempts)
    assert letter.as_dict()["body_base64"] == "/w=="


def test_a_wrapped_letter_is_read_and_sent_back_as_what_it_was() -> None:
    async def work(store: Store) -> None:
        await store.bury(wrap(dead("a", key=b"k"), "zlib"), wrap(dead("b"), "xz"))
        first, second = await store.letters.list()
        assert (first.id, first.key, first.reason, first.body, first.headers) == (
            "a", "k", "exhausted", b'{"n": 1}', {"ce_id": "a", "trace": "7"},
        )  # fmt: skip
        assert second.id == "b"
        assert await store.letters.replay() == ["a", "b"]
        back = await store.received()
        assert [delivery.message.body for delivery in back] == [b'{"n": 1}'] * 2
        assert [dict(delivery.message.headers) for delivery in back] == [
            {"ce_id": "a", "trace": "7"},
            {"ce_id": "b", "trace": "7"},
        ]

    with_store(work)


def test_what_the_broker_does_not_take_as_it_was_goes_back_wrapped() -> None:
    async def work(store: Store) -> None:
        sound = store.producer.send

        async def refusing(batch: Sequence[Outgoing], timeout: float) -> dict[int, MqkitError]:
            refused = {
                i: MessageTooLarge(2, 1, "the broker") for i, o in enumerate(batch) if "trace" in o.message.headers
            }
            errors = await sound([outgoing for i, outgoing in enumerate(batch) if i not in refused], timeout)
            assert not errors
            return dict(refused)

        await store.bury(wrap(dead("a"), "zlib"))
        store.producer.send = refusing  # type: ignore[method-assign]  # a broker that takes small headers alone
        assert await store.letters.replay() == ["a"]
        assert await store.letters.count() == 0
        (back,) = await store.received()
        assert back.message.headers["mqkit-wrapped"] == "zlib"
        assert unwrapped(back).message.headers == {"ce_id": "a", "trace": "7"}

    with_store(work)


async def awaited(letter: Any) -> bool:
    return False


ALWAYS: list[Any] = [awaited, lambda letter: awaited(letter), lambda letter: (yield letter), lambda: True]  # noqa: PLW0108


@pytest.mark.parametrize("choose", ALWAYS)
def test_a_filter_that_gives_no_answer_chooses_nothing(choose: Any) -> None:
    """What it returns instead of an answer would be taken for yes, and all would be purged."""

    async def work(store: Store) -> None:
        await store.bury(dead("a"), dead("b"))
        for act in (store.letters.purge, store.letters.replay):
            with pytest.raises(TypeError, match=r"choose (is a function of a letter|answers yes or no)"):
                await act(choose)
        with pytest.raises(TypeError, match="choose"):
            await store.letters.list(choose=choose)
        assert await store.letters.count() == 2

    with_store(work)


UNCLEAR: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"limit": -1}, ValueError, "limit is a number of letters, not -1"),
    ({"limit": 1.5}, TypeError, "limit is a whole number"),
    ({"rate": 0}, ValueError, "rate is a number of letters in a second, above 0"),
    ({"rate": -1}, ValueError, "above 0"),
    ({"rate": float("nan")}, ValueError, "above 0"),
    ({"rate": "5"}, TypeError, "rate is a number, not str"),
]


@pytest.mark.parametrize(("arguments", "kind", "told"), UNCLEAR)
def test_how_many_and_how_fast_are_told_before_anything_is_done(
    arguments: dict[str, Any], kind: type[Exception], told: str
) -> None:
    async def work(store: Store) -> None:
        await store.bury(dead("a"), dead("b"), dead("c"))
        with pytest.raises(kind, match=told):
            await store.letters.replay(**arguments)
        assert await store.letters.purge(limit=0) == []
        assert await store.letters.count() == 3

    with_store(work)


def test_of_no_ids_none_fits() -> None:
    async def work(store: Store) -> None:
        await store.bury(dead("a"))
        assert await store.letters.purge(chooser([])) == []
        with pytest.raises(TypeError, match=r"\['a'\]"):
            chooser("a")

    with_store(work)
