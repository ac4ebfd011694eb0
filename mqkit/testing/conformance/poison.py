"""E5: a message that ends its worker, whatever lies beside it; and at the seam, how often it was begun."""

from typing import Literal

import pytest

from mqkit.backend import Backend, Receiver, Settlement, Subscription
from mqkit.message import Delivery
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.processes import Fact
from mqkit.testing.promises import promise
from mqkit.testing.scene import Scene
from mqkit.testing.waiting import noted

GROUP = "billing"
POISON = 13


class Poisoning(Suite):
    """E5."""

    @promise("E5", needs="persistent shared")
    def test_a_message_that_ends_its_workers_is_dead_and_those_beside_it_are_handled(self, scene: Scene) -> None:
        topic = scene.topic(int, groups=[GROUP])
        service = scene.service()
        service.open().publish_many(topic, [POISON, *range(6)])
        calls: list[Fact] = []
        for _ in range(3):  # two of which nobody knows whose fault it was, and one by the message alone
            worker = scene.worker(topic, GROUP, poison=[POISON], options={"lost_workers": 1, "concurrency": 4})
            assert worker.wait(60) == POISON
            calls += worker.facts("called")
        assert [fact.attempt for fact in calls if fact.payload == POISON] == [1, 1, 1]
        last = scene.worker(topic, GROUP, poison=[POISON], options={"lost_workers": 1, "concurrency": 4})
        last.wait_for("dead-letter")
        (letter,) = service.letters(topic, GROUP)
        assert (letter.body, letter.reason, letter.attempts) == (b"13", "worker-lost", 1)
        handled = {fact.payload for fact in calls}
        last.wait_until(lambda: handled | set(last.payloads("called")) == {POISON, *range(6)}, "all are handled")
        last.terminate()
        assert last.wait() == 0

    @pytest.mark.parametrize("ordering", ["none", "key"])
    @promise("E5", needs="persistent shared ordering")
    def test_how_often_a_message_was_begun_is_kept_until_somebody_is_heard_of(
        self, scene: Scene, ordering: Literal["none", "key"]
    ) -> None:
        topic = scene.topic(int, groups=[GROUP])
        scene.publisher().publish(topic, POISON)
        for begun in (None, 0, 1):  # the first has it and does not begin
            worker = scene.worker(topic, GROUP, role="begin", ordering=ordering, begin=begun is not None)
            worker.wait_for("has")
            assert worker.payloads("has") == [begun]
            worker.kill()

        async def look(backend: Backend) -> None:
            wanted = Subscription(topic=topic.name, group=GROUP, ordering=ordering)

            async def taken(receiver: Receiver) -> Delivery:
                for _ in range(60):
                    if found := await receiver.receive(1, 1.0):
                        return found[0]
                raise AssertionError("it did not come again")

            for _ in range(2):
                receiver = await backend.open_receiver(wanted, lambda *_: None)
                delivery = await taken(receiver)
                assert delivery.redelivered >= 2
                assert await receiver.begin(delivery.token) == 2
                await receiver.settle([(delivery.token, Settlement.RELEASE)])
                delivery = await taken(receiver)
                assert await receiver.begin(delivery.token) == 2, "who gave it back lives"
                await receiver.close()  # and so does who leaves in order
            receiver = await backend.open_receiver(wanted, lambda *_: None)
            delivery = await taken(receiver)
            assert await receiver.begin(delivery.token) == 2
            if ordering == "key":
                await noted(receiver, [(delivery.token, 5)])
                assert await receiver.begin(delivery.token) == 2, "who says how it went lives"
            await receiver.settle([(delivery.token, Settlement.DONE)])
            await receiver.close()

        scene.at_the_seam(look)
