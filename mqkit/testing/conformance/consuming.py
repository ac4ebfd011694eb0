"""B. Consuming: who gets what, how many at once, in which order, and what outages do to it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from mqkit.backend import Backend, Settlement
from mqkit.errors import LeaseLost
from mqkit.message import Message
from mqkit.retry import Retry
from mqkit.testing.conformance.notes import session, taken
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.record import Call
from mqkit.testing.scene import Note, Scene, note, notes
from mqkit.testing.service import idle


def overlapping(calls: list[Call]) -> list[tuple[Call, Call]]:
    """Pairs that ran at one moment."""
    return [(a, b) for i, a in enumerate(calls) for b in calls[i + 1 :] if a.overlaps(b)]


class Consuming(Suite):
    """B1 to B5, B7 and B8."""

    @promise("B1")
    def test_all_that_is_published_while_a_group_exists_is_handled(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open()
        service.publish_many(topic, notes(range(100)))
        service.start()
        for number in range(100, 120):
            service.publish(topic, note(number))
        service.stop()
        service.publish_many(topic, notes(range(120, 150)))
        service.start()
        service.wait_until(lambda: {n.number for n in service.record.done} == set(range(150)), "all are handled")

    @promise("B2")
    def test_every_group_gets_every_message_and_one_member_has_it(self, scene: Scene) -> None:
        topic = scene.topic()
        services = [scene.service(), scene.service()]
        for service in services:
            for group in ("billing", "shipping"):
                service.subscribe(topic, group, concurrency=4)
            service.start()
        services[0].publish_many(topic, notes(range(200)))

        def calls(group: str) -> list[Call]:
            return [c for s in services for c in s.record.calls(lambda c: c.message.group == group)]

        for group in ("billing", "shipping"):
            expected = dict.fromkeys(range(200))
            services[0].wait_until(
                lambda: {c.payload.number for c in calls(group)} == expected.keys(),  # noqa: B023 - called at once
                f"{group} has all",
            )
            services[0].wait_until_idle(topic, group)
            by_id: dict[str, list[Call]] = {}
            for call in calls(group):
                by_id.setdefault(call.message.id, []).append(call)
            assert not [pair for same in by_id.values() for pair in overlapping(same)]

    @promise("B3")
    def test_a_worker_killed_in_its_handlers_loses_nothing(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", gated=True, options={"concurrency": 5, "prefetch": 5})
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish_many(topic, range(20))
        worker.wait_for("called", 5)
        worker.kill()
        service.start()
        service.wait_until(lambda: set(service.record.done) == set(range(20)), "all are handled by the next", 180)
        service.wait_until_idle(topic, "billing")

    @promise("B3")
    def test_a_worker_killed_while_it_settles_loses_nothing(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", seconds=0.001, options={"concurrency": 4})
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish_many(topic, range(2000))
        worker.wait_for("returned", 100)
        worker.kill()
        finished = set(worker.payloads("returned"))
        assert len(finished) < 2000, "it was killed too late to prove anything"
        service.start()
        service.wait_until(
            lambda: finished | set(service.record.done) == set(range(2000)), "all were handled by one of the two", 60
        )

    @promise("B4")
    def test_concurrency_and_prefetch_are_bounds(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        service = scene.service()
        gate = service.gate()
        most, lock = [0], Lock()

        def hold(_: Message[Note]) -> None:
            with lock:
                most[0] = max(most[0], len(service.record.running))
            gate.pass_through()

        service.subscribe(topic, "billing", hold, concurrency=3, prefetch=2)
        service.open().publish_many(topic, notes(range(40)))
        service.start()
        service.wait_until(lambda: len(service.record.running) >= 3, "three handlers run")
        counts = service.wait_for_counts(
            topic, "billing", lambda c: c.in_flight in (None, 5) and c.ready in (None, 35), "five of forty are here"
        )
        assert counts.in_flight is not None or counts.lag == 40
        assert len(service.record.running) == 3
        gate.open()
        service.wait_until(lambda: len(service.record.done) == 40, "all are handled")
        assert most[0] == 3

    @promise("B5")
    def test_messages_of_one_key_keep_their_order_through_retries(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()

        def sometimes_fail(message: Message[Note]) -> None:
            if message.payload.number % 5 == 0 and message.attempt < 3:
                raise RuntimeError("not yet")

        service.subscribe(
            topic,
            "billing",
            sometimes_fail,
            ordering="key",
            concurrency=8,
            retry=Retry(attempts=5, wait_initial=0.02, wait_factor=1),
        )
        service.open()
        sent = [note(number, f"k{number % 6}") for number in range(120)]
        service.publish_many(topic, sent[:60])
        service.start()
        service.publish_many(topic, sent[60:])
        service.wait_until(lambda: len(service.record.done) >= len(sent), "all are handled")
        for key in {n.key for n in sent}:
            calls = [call for call in service.record.calls() if call.payload.key == key]
            assert not overlapping(calls)
            numbers = [call.payload.number for call in calls]
            assert numbers == sorted(numbers), f"{key}: {numbers}"
            assert sorted(set(numbers)) == [n.number for n in sent if n.key == key]

    @promise("B5")
    def test_other_keys_flow_while_one_is_held_up(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()
        gate = service.gate()

        def hold_one(message: Message[Note]) -> None:
            if message.key == "slow":
                gate.pass_through()

        service.subscribe(topic, "billing", hold_one, ordering="key", concurrency=4)
        service.start()
        service.publish_many(topic, [note(0, "slow"), note(1, "slow"), *(note(n, f"k{n}") for n in range(2, 12))])
        service.wait_until(lambda: len(service.record.done) == 10, "the other keys are handled")
        assert [n.number for n in service.record.running] == [0]
        gate.open()
        service.wait_until(lambda: len(service.record.done) == 12, "then the slow one")

    @promise("B5")
    def test_a_restart_in_the_middle_keeps_the_order(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        services = [scene.service(), scene.service()]
        for service in services:
            service.subscribe(topic, "billing", ordering="key", concurrency=4)
        sent = [note(number, f"k{number % 3}") for number in range(600)]
        services[0].start().publish_many(topic, sent)
        services[0].wait_until(lambda: len(services[0].record.done) >= 20, "some are handled")
        services[0].close()
        services[1].start()
        services[1].wait_until(
            lambda: len({n.number for s in services for n in s.record.done}) == len(sent), "all are handled"
        )
        for key in {n.key for n in sent}:
            done = [n.number for service in services for n in service.record.done if n.key == key]
            assert done == [n.number for n in sent if n.key == key]

    @promise("B7")
    def test_messages_that_finish_settle_none_that_runs(self, scene: Scene) -> None:
        topic = scene.topic()
        first, second = scene.service(grace=0.0), scene.service()
        gate = first.gate()

        def hold_some(message: Message[Note]) -> None:
            if message.payload.number in (0, 7):
                gate.pass_through()

        first.subscribe(topic, "billing", hold_some, concurrency=10)
        second.subscribe(topic, "billing")
        first.start().publish_many(topic, notes(range(20)))
        first.wait_until(lambda: len(first.record.events("done")) == 18, "all but two are settled")
        first.begin_stop()
        first.wait_until(lambda: first.record.events("stopped"), "it stopped")
        second.start()
        second.publish(topic, note(99))
        second.wait_until(lambda: {n.number for n in second.record.done} >= {0, 7, 99}, "the two come again")
        second.wait_until_idle(topic, "billing")
        assert sorted(n.number for n in second.record.done) == [0, 7, 99], "and none that was finished"

    @promise("B7")
    def test_who_settles_twice_is_told_and_nothing_else_changes(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=["billing"])
        scene.publisher().publish_many(topic, [note(number, f"k{number}") for number in range(4)])

        async def work(backend: Backend) -> None:
            async with session(backend, topic) as receiver:
                found = await taken(receiver, 4)
                await receiver.settle([(found[0].token, Settlement.DONE)])
                for other, settlement in ((1, Settlement.DONE), (2, Settlement.RELEASE)):
                    with pytest.raises(LeaseLost):
                        await receiver.settle([(found[0].token, settlement), (found[other].token, Settlement.DONE)])
            async with session(backend, topic) as receiver:
                assert set(await taken(receiver, 1)) == {3}, "the others were settled, and stay so"
                assert not await receiver.receive(1, 0.2)

        scene.at_the_seam(work)

    @promise("B7", needs="persistent shared")
    def test_a_crash_brings_back_what_ran_among_others_that_finished(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", gated=True, held=[0, 7], options={"concurrency": 10})
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish_many(topic, range(20))
        worker.wait_for("done", 18)
        worker.kill()
        service.start()
        service.wait_until(lambda: set(service.record.done) >= {0, 7}, "the two come again", 180)

    @promise("B8", "C7")
    def test_an_outage_interrupts_and_does_not_end_delivery(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service(publish_timeout=60)
        gate = service.gate()

        def hold_one(message: Message[Note]) -> None:
            if message.payload.number == 0 and not service.record.events("disconnected"):
                gate.pass_through()

        service.subscribe(topic, "billing", hold_one, retry=Retry(attempts=1), concurrency=1)
        service.start()
        service.publish_many(topic, notes(range(3)))
        service.wait_until(lambda: service.record.running, "a handler runs")

        def of(kind: str) -> int:
            return len([event for event in service.record.events(kind) if event.topic])

        with ThreadPoolExecutor(1) as threads:
            with scene.harness.interrupt():
                service.wait_until(lambda: of("disconnected"), "the outage is noticed", 180)
                sent = threads.submit(service.publish, topic, note(3))
                gate.open()
            sent.result()
        service.wait_until(lambda: {n.number for n in service.record.done} == set(range(4)), "all are handled", 180)
        service.publish(topic, note(4))
        service.wait_until(lambda: 4 in {n.number for n in service.record.done}, "what comes later, too")
        service.wait_for_counts(topic, "billing", idle, "nothing is left", 180)
        assert {call.attempt for call in service.record.calls()} == {1}, "no message pays for it"
        assert not service.letters(topic, "billing")
        assert of("connected") == of("disconnected") >= 1
        for kind in ("connected", "disconnected"):
            lines = scene.log.about(f"{topic.name}.billing: {kind}", level=logging.WARNING)
            assert len(lines) == of(kind), "one line for each change of state"

    @promise("B8", needs="disconnect")
    def test_a_dropped_connection_is_made_again(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        for number in range(3):
            scene.harness.disconnect()
            service.publish(topic, note(number))
            service.wait_until(lambda: len({n.number for n in service.record.done}) > number, "it is handled")  # noqa: B023 - called at once

    @promise("B8", needs="destroy")
    @pytest.mark.parametrize("ordering", ["none", "key"])
    def test_a_deleted_group_is_made_again(self, scene: Scene, ordering: str) -> None:
        topic = scene.topic(key="key")
        service = scene.service()
        service.subscribe(topic, "billing", ordering=ordering)
        service.start()
        service.publish(topic, note(1, "a"))
        service.wait_until(lambda: service.record.done, "it works")
        scene.harness.destroy(topic.name, "billing")
        service.wait_until(lambda: service.record.events("connected"), "it is made again")
        service.publish(topic, note(2, "a"))
        service.wait_until(lambda: len(service.record.done) == 2, "it works again")
