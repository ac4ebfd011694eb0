"""C. Outcomes: what a handler's return, or what it raised, does to its message."""

import logging
import time
from threading import Barrier

from mqkit.errors import BackendError, ClosedError, ConnectionLost
from mqkit.message import Message
from mqkit.retry import Retry
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.testing.colours import LONGEST_CALL
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note, notes
from mqkit.testing.service import idle

QUICK = Retry(attempts=3, wait_initial=0, wait_max=0)


class Outcomes(Suite):
    """C1 to C8."""

    @promise("C1")
    def test_a_message_is_settled_after_the_handler_returned(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        gate = service.gate()
        service.subscribe(topic, "billing", lambda _: gate.pass_through())
        service.start().publish(topic, note(1))
        service.wait_until(lambda: service.record.running, "it runs")
        service.wait_for_counts(topic, "billing", lambda counts: not idle(counts), "the message is still the broker's")
        assert not service.record.events("done")
        gate.open()
        service.wait_until(lambda: service.record.events("done"), "it is settled")
        service.wait_until_idle(topic, "billing")
        assert service.record.calls()[0].outcome == "returned"
        assert not service.letters(topic, "billing")

    @promise("C1")
    def test_a_message_is_not_settled_before_the_handler_returned(self, scene: Scene) -> None:
        topic = scene.topic()
        first, second = scene.service(grace=0.0), scene.service()
        gate = first.gate()
        first.subscribe(topic, "billing", lambda _: gate.pass_through())
        second.subscribe(topic, "billing")
        first.start().publish(topic, note(1))
        first.wait_until(lambda: first.record.running, "it runs")
        first.stop()
        second.start()
        second.wait_until(lambda: second.record.done, "it is delivered again")

    @promise("C2")
    def test_the_retry_policy_decides_about_exceptions(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def fail(message: Message[Note]) -> None:
            raise (ValueError if message.payload.number else KeyError)("no")

        service.subscribe(topic, "billing", fail, retry=Retry(attempts=3, wait_initial=0, wait_max=0, on=ValueError))
        service.start().publish_many(topic, [note(0), note(1)])
        letters = service.wait_for_letters(topic, "billing", 2)
        assert {(letter.reason, letter.attempts) for letter in letters} == {("not-retryable", 1), ("exhausted", 3)}
        assert [c.attempt for c in service.record.calls(lambda c: c.payload.number == 1)] == [1, 2, 3]
        assert [c.attempt for c in service.record.calls(lambda c: c.payload.number == 0)] == [1]

    @promise("C2")
    def test_a_message_that_succeeds_at_last_is_done(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def fail_twice(message: Message[Note]) -> None:
            if message.attempt < 3:
                raise ValueError("not yet")

        service.subscribe(topic, "billing", fail_twice, retry=QUICK)
        service.start().publish(topic, note(1))
        service.wait_until(lambda: service.record.done, "it succeeds")
        service.wait_until_idle(topic, "billing")
        assert [call.attempt for call in service.record.calls()] == [1, 2, 3]
        assert not service.letters(topic, "billing")

    @promise("C3")
    def test_retry_later_waits_as_long_as_it_says_and_counts(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def later(message: Message[Note]) -> None:
            if message.payload.number == 0 or message.attempt == 1:
                raise RetryLater("busy", after=0.6)

        service.subscribe(topic, "billing", later, retry=Retry(attempts=2, wait_initial=60))
        service.start().publish_many(topic, [note(0), note(1)])
        letters = service.wait_for_letters(topic, "billing", 1)
        service.wait_until(lambda: service.record.done, "the other succeeds")
        first, second = service.record.calls(lambda call: call.payload.number == 1)
        assert (first.attempt, second.attempt) == (1, 2)
        assert second.started - (first.ended or 0) >= 0.6
        assert [(letter.reason, letter.attempts) for letter in letters] == [("exhausted", 2)]

    @promise("C4")
    def test_reject_makes_a_dead_letter_at_once(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def reject(_: Message[Note]) -> None:
            raise Reject("never heard of this customer")

        service.subscribe(topic, "billing", reject, retry=Retry(attempts=5))
        service.start().publish(topic, note(1))
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert (letter.reason, letter.attempts) == ("rejected", 1)
        assert letter.error == "never heard of this customer"
        service.wait_until_idle(topic, "billing")
        assert len(service.record.calls()) == 1

    @promise("C5")
    def test_skip_settles_and_is_counted_as_skipped(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def skip(_: Message[Note]) -> None:
            raise Skip("seen it")

        service.subscribe(topic, "billing", skip)
        service.start().publish(topic, note(1))
        service.wait_until(lambda: service.record.events("skipped"), "it is skipped")
        service.wait_until_idle(topic, "billing")
        assert not service.record.events("done")
        assert len(service.record.calls()) == 1
        assert not service.letters(topic, "billing")

    @promise("C6")
    def test_a_handler_over_its_time_out_has_failed(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        gate = service.gate()

        def slow_at_first(message: Message[Note]) -> None:
            if message.payload.number == 0 or message.attempt == 1:
                gate.pass_through()

        service.subscribe(
            topic, "billing", slow_at_first, timeout=0.3, retry=Retry(attempts=2, wait_initial=0, wait_max=0)
        )
        service.start().publish_many(topic, [note(0), note(1)])
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert (letter.reason, letter.attempts, letter.error_type) == ("exhausted", 2, "TimeoutError")
        service.wait_until(lambda: service.record.done, "the other succeeds at its second attempt")
        overdue = service.record.calls(lambda call: call.outcome == service.overdue)
        assert len(overdue) == 3
        assert all((call.ended or time.monotonic()) - call.started >= 0.29 for call in overdue)

    @promise("C7")
    def test_what_is_not_the_messages_fault_costs_it_no_attempt(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        faults = [ConnectionLost("gone"), ClosedError("closed"), BackendError("refused")]
        met: set[int] = set()

        def meet_a_fault(message: Message[Note]) -> None:
            number = message.payload.number
            if number not in met:
                met.add(number)
                raise faults[number]

        service.subscribe(topic, "billing", meet_a_fault, retry=Retry(attempts=1))
        service.start().publish_many(topic, notes(range(len(faults))))
        service.wait_until(lambda: len(service.record.done) == len(faults), "all succeed")
        service.wait_until_idle(topic, "billing")
        assert [call.attempt for call in service.record.calls()] == [1] * 2 * len(faults)
        assert not service.letters(topic, "billing")

    @promise("C8")
    def test_a_handler_may_publish(self, scene: Scene) -> None:
        topic, invoices = scene.topic(), scene.topic()
        service = scene.service()

        def publish(message: Message[Note]) -> None:
            service.publish(invoices, note(message.payload.number + 100))

        service.subscribe(topic, "billing", publish)
        service.subscribe(invoices, "mailing")
        service.start().publish_many(topic, [note(number) for number in range(10)])
        service.wait_until(
            lambda: {n.number for n in service.record.done} == {*range(10), *range(100, 110)}, "both are handled"
        )

    @promise("C8")
    def test_what_a_handler_returns_is_published_before_its_message_is_settled(self, scene: Scene) -> None:
        topic, invoices = scene.topic(), scene.topic()
        faults = scene.faults()
        service = scene.service(faults=faults)

        def answer(message: Message[Note]) -> Note | None:
            return None if message.payload.number == 0 else note(message.payload.number + 100)

        service.subscribe(topic, "billing", answer, publish=invoices)
        service.subscribe(invoices, "mailing")
        service.start().publish_many(topic, [note(0), note(1)])
        service.wait_until(lambda: 101 in {n.number for n in service.record.done}, "the result is handled")
        service.wait_until_idle(topic, "billing")
        service.wait_until_idle(invoices, "mailing")
        assert sorted(n.number for n in service.record.done) == [0, 1, 101], "None is no result"
        kinds = [
            passed.kind
            for passed in faults.passed
            if any(o.topic == invoices.name for o in passed.sent)
            or any(d.topic == topic.name and b'"number":1' in d.message.body for d, _ in passed.settled)
        ]
        assert kinds == ["sent", "settled"]

    @promise("C8", needs="routing_checked")
    def test_a_result_that_nobody_takes_does_not_lose_the_message(self, scene: Scene) -> None:
        topic, nowhere = scene.topic(), scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing", lambda message: message.payload, publish=nowhere)
        service.start().publish(topic, note(1))
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert letter.reason == "result"
        assert Note.model_validate_json(letter.body) == note(1)

    @promise("C6", needs="cancel")
    def test_a_time_out_frees_its_place(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        gate = service.gate()

        def hold_first(message: Message[Note]) -> None:
            if message.payload.number == 0:
                gate.pass_through()

        service.subscribe(topic, "billing", hold_first, concurrency=1, timeout=0.3, retry=Retry(attempts=1))
        service.start()
        started = time.monotonic()
        service.publish_many(topic, [note(0), note(1)])
        service.wait_until(lambda: service.record.done, "the next is handled")
        assert time.monotonic() - started >= 0.3

    @promise("C6")
    def test_a_plain_function_over_its_time_out_is_reported_and_keeps_its_place(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        gate, both, most = service.gate(), Barrier(2), [0]

        def hold_first(message: Message[Note]) -> None:
            most[0] = max(most[0], len(service.record.running))
            if message.payload.number == 0 and message.attempt == 1:
                gate.pass_through()
            elif message.payload.number >= 10:
                both.wait(LONGEST_CALL)
            else:
                time.sleep(0.02)

        service.subscribe(topic, "billing", hold_first, plain=True, concurrency=2, timeout=0.5, retry=QUICK)
        service.start()
        stuck_id = service.publish(topic, note(0))
        service.wait_until(lambda: service.record.events("stuck"), "its time is over")
        service.publish_many(topic, notes(range(1, 8)))
        service.wait_until(lambda: len(service.record.done) == 8, "all are handled, that one at its second attempt")
        assert [(event.id, event.attempt) for event in service.record.events("stuck")] == [(stuck_id, 1)]
        assert len(scene.log.about("stuck: ", f"id={stuck_id}", level=logging.WARNING)) == 1
        assert [(event.id, event.attempt) for event in service.record.events("retry")] == [(stuck_id, 1)]
        assert service.record.running == [note(0)]
        assert most == [2], "it counts among those that run at once"
        gate.open()
        service.wait_until(lambda: not service.record.running, "it ends")
        service.publish_many(topic, [note(10), note(11)])
        service.wait_until(lambda: len(service.record.done) == 11, "its place is free again: two run at once")
        service.wait_until_idle(topic, "billing")
        assert not service.letters(topic, "billing")
