"""D1 where attempts happen in place, at the seam: whoever gets a message next finds what was noted with it."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.errors import LeaseLost
from mqkit.message import Delivery
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Scene, note
from mqkit.testing.waiting import PATIENCE, noted
from mqkit.topic import Topic

DONE, RELEASE = Settlement.DONE, Settlement.RELEASE
GROUP = "billing"


@asynccontextmanager
async def session(backend: Backend, topic: Topic[Any]) -> AsyncIterator[Receiver]:
    """A member of the group for a while; what it has not settled goes back at the end."""
    wanted = Subscription(topic=topic.name, group=GROUP, ordering="key")
    receiver = await backend.open_receiver(wanted, lambda *_: None)
    try:
        yield receiver
    finally:
        await receiver.close()


async def taken(receiver: Receiver, number: int) -> dict[int, Delivery]:
    """The next deliveries, by the number in their payload."""
    found: dict[int, Delivery] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came within {PATIENCE:g} s"
        for delivery in await receiver.receive(number - len(found), 1.0):
            found[json.loads(delivery.message.body)["number"]] = delivery
    return found


def spent(deliveries: Mapping[int, Delivery]) -> dict[int, int]:
    """What was noted with each."""
    return {number: delivery.spent for number, delivery in deliveries.items()}


class Noting(Suite):
    """D1, by `Receiver.note`."""

    @promise("D1", needs="ordering")
    def test_what_was_noted_is_found_in_later_sessions_and_goes_with_its_message(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=[GROUP])
        publisher = scene.publisher()
        publisher.publish_many(topic, [note(1, "a"), note(2, "b")])

        async def work(backend: Backend) -> None:
            for before, attempts in ((0, 2), (2, 3)):
                async with session(backend, topic) as receiver:
                    found = await taken(receiver, 2)
                    assert spent(found) == {1: before, 2: 0}
                    await noted(receiver, [(found[1].token, attempts)])
            async with session(backend, topic) as receiver:
                found = await taken(receiver, 2)
                assert spent(found) == {1: 3, 2: 0}
                await receiver.settle([(delivery.token, DONE) for delivery in found.values()])

        async def look(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                assert spent(await taken(receiver, 1)) == {1: 0}, "it is another message"

        scene.at_the_seam(work)
        publisher.publish(topic, note(1, "a"))
        scene.at_the_seam(look)

    @promise("D1", needs="ordering")
    def test_notes_of_many_messages_are_kept_apart(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=[GROUP])
        numbers = range(1, 13)
        scene.publisher().publish_many(topic, [note(number, f"k{number % 6}") for number in numbers])

        async def work(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                found = await taken(receiver, len(numbers))
                await noted(receiver, [(found[number].token, number) for number in numbers if number % 2])
                await receiver.settle([(found[number].token, DONE) for number in numbers if number % 3 == 0])
                await noted(receiver, [(found[number].token, 10 * number) for number in numbers if number % 5 == 0])
            async with session(backend, topic) as receiver:
                kept = spent(await taken(receiver, len(numbers) - len(numbers) // 3))
                assert kept == {1: 1, 2: 0, 4: 0, 5: 50, 7: 7, 8: 0, 10: 100, 11: 11}

        scene.at_the_seam(work)

    @promise("D1", needs="ordering")
    def test_what_is_given_back_keeps_its_note(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=[GROUP])
        scene.publisher().publish_many(topic, [note(1, "a"), note(2, "a")])

        async def work(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                for before, attempts in ((0, 2), (2, 3)):
                    found = await taken(receiver, 2)
                    assert spent(found) == {1: before, 2: 0}
                    await noted(receiver, [(found[1].token, attempts)])
                    await receiver.settle([(delivery.token, RELEASE) for delivery in found.values()])
            async with session(backend, topic) as receiver:
                assert spent(await taken(receiver, 2)) == {1: 3, 2: 0}

        scene.at_the_seam(work)

    @promise("D1", needs="ordering")
    def test_who_lost_its_claim_cannot_note_and_the_others_are_noted(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=[GROUP])
        scene.publisher().publish_many(topic, [note(1, "a"), note(2, "b"), note(3, "c")])

        async def work(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                stale = (await taken(receiver, 3))[1]
            async with session(backend, topic) as receiver:
                found = await taken(receiver, 3)
                with pytest.raises(LeaseLost):
                    await noted(receiver, [(stale.token, 9), (found[2].token, 5)])
                await receiver.settle([(found[3].token, DONE)])
                with pytest.raises(LeaseLost):
                    await noted(receiver, [(found[3].token, 9), (found[1].token, 6)])
            async with session(backend, topic) as receiver:
                assert spent(await taken(receiver, 2)) == {1: 6, 2: 5}

        scene.at_the_seam(work)

    @promise("D1", needs="ordering persistent shared")
    def test_a_note_outlives_the_process_that_made_it(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=[GROUP])
        scene.publisher().publish_many(topic, [note(1, "a"), note(2, "b")])
        worker = scene.worker(topic, GROUP, role="note", number=2, spent=2)
        worker.wait_for("noted")
        worker.kill()
        (noted,) = worker.payloads("noted")

        async def look(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                found = spent(await taken(receiver, 2))
                assert found == {number: 2 if number == noted["number"] else 0 for number in (1, 2)}

        scene.at_the_seam(look)
