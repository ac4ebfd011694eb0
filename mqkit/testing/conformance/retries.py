"""D. Retries, and G1: what waits, how long, and what may happen meanwhile."""

import time
from collections.abc import Sequence
from itertools import pairwise

from mqkit.backend import Settlement
from mqkit.errors import ConnectionLost, MqkitError
from mqkit.message import Delivery, Message, Outgoing
from mqkit.retry import Retry
from mqkit.signals import RetryLater
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.faults import refusal
from mqkit.testing.promises import promise
from mqkit.testing.record import Call
from mqkit.testing.scene import Note, Scene, note
from mqkit.testing.service import Service

ROUNDS = 3
"""How often a wait is measured: the promise is about an idle system, and this one may have had something else to do."""


def latest(asked: float) -> float:
    """Seconds after which a wait was too long, by D2."""
    return asked + max(1.0, 0.1 * asked)


def fail_at_first(message: Message[Note]) -> None:
    """The script of a handler that succeeds at its second attempt."""
    if message.attempt == 1:
        raise ValueError("not yet")


class Retrying(Suite):
    """D1 to D7, and G1."""

    @promise("D1")
    def test_waits_grow_as_the_policy_says_and_inline_retries_do_not_wait(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def fail(_: Message[Note]) -> None:
            raise ValueError("no")

        policy = Retry(attempts=4, wait_initial=0.3, wait_factor=3, wait_max=0.6, inline=1)
        service.subscribe(topic, "billing", fail, retry=policy)
        service.start().publish(topic, note(1))
        service.wait_for_letters(topic, "billing", 1)
        calls = service.record.calls()
        waits = [after.started - (before.ended or 0) for before, after in pairwise(calls)]
        assert [call.attempt for call in calls] == [1, 2, 3, 4]
        # each is told when its copy is known to be safe, which may be after the copy was tried
        told = sorted(event.seconds for event in service.record.events("retry"))
        assert told == [0.0, 0.3, 0.6]
        assert waits[1] >= 0.3
        assert waits[2] >= 0.6

    @promise("D2")
    def test_a_retry_is_never_early_and_hardly_late(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        asked = {0: 0.05, 1: 0.4, 2: 1.0, 3: 1.3, 4: 2.6}

        def later(message: Message[Note]) -> None:
            if message.attempt <= 1:
                raise RetryLater(after=asked[message.payload.number % 10])

        service.subscribe(topic, "billing", later, concurrency=20)
        service.start()
        misses: list[str] = []
        for round_ in range(ROUNDS):
            numbers = [10 * round_ + each for each in asked]
            service.publish_many(topic, [note(number) for number in numbers])
            service.wait_until(lambda: _done(service) >= set(numbers), "all came again")  # noqa: B023 - called at once
            misses = []
            for number in numbers:
                first, second = _calls(service, number)
                waited, wanted = second.started - (first.ended or 0), asked[number % 10]
                assert waited >= wanted, f"asked for {wanted} s, came after {waited:.3f} s"
                if waited > latest(wanted):
                    misses.append(f"asked for {wanted} s, came after {waited:.3f} s")
            if not misses:
                return
        raise AssertionError(f"in each of {ROUNDS} rounds something was late, in the last: {misses}")

    @promise("D3")
    def test_a_waiting_message_blocks_no_other(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()

        def first_waits(message: Message[Note]) -> None:
            if message.payload.number == 0:
                raise RetryLater(after=60)

        service.subscribe(topic, "billing", first_waits, concurrency=1)
        service.start().publish(topic, note(0, "k"))
        service.wait_until(lambda: service.record.events("retry"), "it waits")
        service.publish_many(topic, [note(number, "k") for number in range(1, 20)])
        service.wait_until(lambda: _done(service) == set(range(1, 20)), "all others are handled", 20)

    @promise("D3", needs="ordering")
    def test_in_order_a_waiting_message_blocks_its_own_key_alone(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()

        def first_waits(message: Message[Note]) -> None:
            if message.payload.number == 0 and message.attempt == 1:
                raise RetryLater(after=3)

        service.subscribe(topic, "billing", first_waits, ordering="key", concurrency=2, prefetch=3)
        service.start().publish(topic, note(0, "slow"))
        service.wait_until(lambda: service.record.events("retry"), "it waits")
        behind = range(1, 20)  # more than are fetched ahead
        others = range(20, 30)
        service.publish_many(topic, [note(number, "slow") for number in behind])
        service.publish_many(topic, [note(number, f"k{number}") for number in others])
        service.wait_until(lambda: len(_done(service)) == 30, "all are handled")
        again = _calls(service, 0)[1]
        assert [n.number for n in service.record.done][-20:] == [0, *behind]
        for call in service.record.calls(lambda call: call.payload.key != "slow"):
            assert call.started < again.started, "other keys did not wait"
        assert _calls(service, 1)[0].started >= (again.ended or 0)

    @promise("D4")
    def test_a_waiting_message_survives_its_worker(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", fail=True, retry={"wait_initial": 2.0})
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish(topic, 1)
        worker.wait_for("retry")
        worker.kill()
        service.start()
        service.wait_until(lambda: any(c.attempt == 2 for c in service.record.calls()), "it comes again", 60)

    @promise("D4", "A1", needs="interrupt")
    def test_what_waits_survives_every_worker_and_the_broker(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", fail=True, retry={"wait_initial": 6.0})
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish(topic, 1)
        worker.wait_for("retry")
        worker.kill()
        service.publish(topic, 2)
        service.close()
        with scene.harness.interrupt():
            pass
        after = scene.service()
        after.subscribe(topic, "billing")
        after.start()
        after.wait_until(
            lambda: {(1, 2), (2, 1)} <= {(call.payload, call.attempt) for call in after.record.calls()}, "both come", 90
        )

    @promise("D5")
    def test_only_the_failing_group_sees_the_retry(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing", fail_at_first, retry=Retry(wait_initial=0.1))
        service.subscribe(topic, "shipping")
        service.start().publish(topic, note(1))
        service.wait_until(lambda: len(service.record.done) == 2, "both groups succeed")
        service.publish(topic, note(2))
        service.wait_until(lambda: len(service.record.done) == 4, "and once more")
        for group in ("billing", "shipping"):
            service.wait_until_idle(topic, group)
        seen = [(c.message.group, c.payload.number, c.attempt) for c in service.record.calls()]
        assert sorted(seen) == [
            ("billing", 1, 1), ("billing", 1, 2), ("billing", 2, 1), ("billing", 2, 2),
            ("shipping", 1, 1), ("shipping", 2, 1),
        ]  # fmt: skip

    @promise("D6")
    def test_every_attempt_sees_the_same_message(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()

        def fail_twice(message: Message[Note]) -> None:
            if message.attempt < 3:
                raise ValueError("not yet")

        service.subscribe(topic, "billing", fail_twice, retry=Retry(wait_initial=0.05, inline=0))
        service.start()
        id_ = service.publish(topic, note(1, "käse/7"), headers={"tenant": "a", "Grüße": "ß €"})
        strange = b' { "number" : 2 ,\n "key" : "k", "more": [1e2] } '
        scene.harness.raw_publish(
            topic.name, strange, headers={"tenant": "b"}, key=b"raw \xc3\xa9", content_type="application/json"
        )
        service.wait_until(lambda: len(service.record.done) == 2, "both succeed")
        for number in (1, 2):
            messages = [call.message for call in _calls(service, number)]
            assert [message.attempt for message in messages] == [1, 2, 3]
            for field in ("id", "key", "body", "headers", "content_type", "type", "source", "time"):
                assert len({str(getattr(message, field)) for message in messages}) == 1, field
        first, second = _calls(service, 1)[0].message, _calls(service, 2)[0].message
        assert (first.id, first.key, dict(first.headers)) == (id_, "käse/7", {"tenant": "a", "Grüße": "ß €"})
        assert second.body == strange
        assert second.key == "raw é"
        assert second.headers["tenant"] == "b"

    @promise("D7")
    def test_the_copy_is_safe_before_the_original_is_settled(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        service = scene.service(faults=faults)
        service.subscribe(topic, "billing", fail_at_first, retry=Retry(wait_initial=0.1))
        service.start().publish(topic, note(1))
        service.wait_until(lambda: service.record.done, "it succeeds")
        service.wait_until_idle(topic, "billing")
        kinds = ["copy" if passed.sent and passed.sent[0].group else passed.kind for passed in faults.passed]
        assert kinds[:3] == ["sent", "copy", "settled"]

    @promise("D7")
    def test_a_copy_that_cannot_be_stored_settles_nothing(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        broken, other = scene.service(faults=faults, grace=0.5), scene.service()
        broken.subscribe(topic, "billing", fail_at_first, retry=Retry(wait_initial=0.1))
        other.subscribe(topic, "billing")
        broken.start()
        faults.refusing = lambda outgoing: refusal() if outgoing.group else None
        broken.publish(topic, note(1))
        broken.wait_until(lambda: scene.log.about("could not be stored", "refused by the test"), "that was noticed")
        assert not any(settlement is Settlement.DONE for p in faults.passed for _, settlement in p.settled)
        broken.close()
        other.start()
        other.wait_until(lambda: other.record.done, "another member gets the message")
        assert not any(settlement is Settlement.DONE for p in faults.passed for _, settlement in p.settled)

    @promise("D7")
    def test_a_copy_that_can_be_stored_later_is(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        service = scene.service(faults=faults)
        service.subscribe(topic, "billing", fail_at_first, retry=Retry(wait_initial=0.1))
        refusals: list[Outgoing] = []

        def refuse_thrice(outgoing: Outgoing) -> MqkitError | None:
            if outgoing.group is None or len(refusals) >= 3:
                return None
            refusals.append(outgoing)
            return refusal(retryable=True)

        faults.refusing = refuse_thrice
        service.start().publish(topic, note(1))
        service.wait_until(lambda: service.record.done, "it succeeds")
        service.wait_until_idle(topic, "billing")
        assert len(refusals) == 3
        assert [call.attempt for call in service.record.calls()] == [1, 2]

    @promise("D7")
    def test_a_crash_between_copy_and_settlement_duplicates(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        service = scene.service(faults=faults)
        crashed: list[bool] = []

        def crash(settlements: Sequence[tuple[Delivery, Settlement]]) -> None:
            if not crashed and any(s is Settlement.DONE for _, s in settlements):
                crashed.append(True)
                raise ConnectionLost("crashed by the test")

        faults.settling = crash
        service.subscribe(topic, "billing", fail_at_first, retry=Retry(wait_initial=0.1))
        service.start().publish(topic, note(1))
        service.wait_until(lambda: len(service.record.done) == 2, "the copy and the original are handled")
        service.wait_until_idle(topic, "billing")
        assert crashed
        assert len({call.message.id for call in service.record.calls()}) == 1

    @promise("G1")
    def test_a_delayed_message_is_never_early_and_hardly_late(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        for group in ("billing", "shipping"):
            service.subscribe(topic, group)
        service.start()
        asked = {0: 0.3, 1: 1.2, 2: 2.3}
        misses: list[str] = []
        for round_ in range(ROUNDS):
            numbers = [10 * round_ + each for each in asked]
            sent: dict[int, tuple[float, float]] = {}
            for number in numbers:
                before = time.monotonic()
                service.publish(topic, note(number), delay=asked[number % 10])
                sent[number] = before, time.monotonic()
            service.publish(topic, note(10 * round_ + 9))
            service.wait_until(lambda: all(len(_calls(service, n)) == 2 for n in numbers), "both groups have all")  # noqa: B023 - called at once
            misses = []
            for number in numbers:
                wanted = asked[number % 10]
                for call in _calls(service, number):
                    assert call.started - sent[number][0] >= wanted, "too early"
                    if (waited := call.started - sent[number][1]) > latest(wanted):
                        misses.append(f"asked for {wanted} s, came after {waited:.3f} s")
                    assert call.attempt == 1
            assert _calls(service, 10 * round_ + 9)[0].started < _calls(service, numbers[-1])[0].started
            if not misses:
                return
        raise AssertionError(f"in each of {ROUNDS} rounds something was late, in the last: {misses}")

    @promise("G1", needs="routing_checked")
    def test_what_is_delayed_waits_at_the_broker(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        publisher.publish(topic, note(1), delay=0.8)
        publisher.close()
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        service.wait_until(lambda: service.record.done, "it comes without its publisher")


def _calls(service: Service, number: int) -> list[Call]:
    return service.record.calls(lambda call: call.payload.number == number)


def _done(service: Service) -> set[int]:
    return {n.number for n in service.record.done}
