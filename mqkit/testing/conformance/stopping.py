"""B9 and B11: how work ends, and what is delivered again after it."""

import pytest

from mqkit.message import Message
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note, notes


class Stopping(Suite):
    """B9 and B11."""

    @promise("B9")
    def test_stopping_lets_handlers_end_and_gives_the_rest_back(self, scene: Scene) -> None:
        topic = scene.topic()
        first, second = scene.service(), scene.service()
        gate = first.gate()

        def hold(_: Message[Note]) -> None:
            gate.pass_through()

        first.subscribe(topic, "billing", hold, concurrency=2)
        second.subscribe(topic, "billing")
        first.start().publish_many(topic, notes(range(12)))
        first.wait_until(lambda: len(first.record.running) == 2, "two run")
        first.begin_stop()
        first.wait_until(lambda: len(first.record.events("released")) >= 1, "what has not started is given back")
        gate.open()
        first.stop()
        started = {call.payload.number for call in first.record.calls()}
        assert len(first.record.calls()) == len(first.record.done) == 2, "two ended, and nothing new started"
        second.start()
        second.wait_until(lambda: len(second.record.done) >= 10, "the next gets the rest")
        second.wait_until_idle(topic, "billing")
        assert {n.number for n in second.record.done} == set(range(12)) - started
        assert {call.attempt for call in second.record.calls()} == {1}

    @promise("B9")
    def test_a_handler_over_its_grace_is_given_back(self, scene: Scene) -> None:
        topic = scene.topic()
        first, second = scene.service(grace=0.3), scene.service()
        gate = first.gate()
        first.subscribe(topic, "billing", lambda _: gate.pass_through())
        second.subscribe(topic, "billing")
        first.start().publish(topic, note(1))
        first.wait_until(lambda: first.record.running, "it runs")
        first.stop()
        assert [call.outcome for call in first.record.calls()] == [first.overdue]
        second.start()
        second.wait_until(lambda: second.record.done, "the next gets it")

    @promise("B9", needs="persistent shared")
    def test_sigterm_ends_the_process_in_order(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", gated=True, options={"concurrency": 1}, grace=30)
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish_many(topic, range(6))
        worker.wait_for("called")
        worker.terminate()
        worker.wait_until(lambda: any("stopping" in fact.text for fact in worker.facts("log")), "it is stopping")
        worker.open_gate()
        assert worker.wait() == 0
        assert worker.payloads("called") == worker.payloads("returned")
        assert len(worker.payloads("called")) == 1, "nothing new started"
        service.start()
        service.wait_until(lambda: len(service.record.done) >= 5, "the next gets the rest")
        service.wait_until_idle(topic, "billing")
        assert sorted(service.record.done + worker.payloads("called")) == list(range(6))
        assert {call.attempt for call in service.record.calls()} == {1}, "no attempt was counted"

    @promise("B9", needs="persistent shared")
    def test_a_second_signal_ends_the_process_at_once(self, scene: Scene) -> None:
        topic = scene.topic(int)
        worker = scene.worker(topic, "billing", gated=True, grace=120)
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish(topic, 1)
        worker.wait_for("called")
        worker.terminate()
        worker.wait_until(lambda: any("stopping" in fact.text for fact in worker.facts("log")), "it is stopping")
        worker.terminate()
        assert worker.wait(10) != 0
        assert not worker.payloads("returned")
        service.start()
        service.wait_until(lambda: service.record.done == [1], "its message is not lost", 60)

    @promise("B9", "C6", needs="persistent shared")
    @pytest.mark.parametrize("timeout", [0.2, None])
    def test_a_plain_function_that_never_ends_keeps_no_process(self, scene: Scene, timeout: float | None) -> None:
        topic = scene.topic(int)
        options = {"timeout": timeout}
        worker = scene.worker(topic, "billing", gated=True, plain=True, options=options, retry={"attempts": 1}, grace=1)
        worker.wait_for("started")
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish(topic, 1)
        worker.wait_for("dead-letter" if timeout else "called")
        worker.terminate()
        assert worker.wait(10) == 0
        assert not worker.payloads("returned")
        assert len(worker.facts("stuck")) == (1 if timeout else 0)
        service.start()
        if timeout:
            assert [letter.error_type for letter in service.letters(topic, "billing")] == ["TimeoutError"]
        else:
            service.wait_until(lambda: service.record.done == [1], "its message is not lost", 60)

    @promise("B11")
    def test_nothing_that_was_finished_comes_again_after_a_stop(self, scene: Scene) -> None:
        topic = scene.topic()
        first, second = scene.service(), scene.service()
        for service in (first, second):
            service.subscribe(topic, "billing", concurrency=8)
        first.start().publish_many(topic, notes(range(100)))
        first.wait_until(lambda: len(first.record.done) >= 60, "many are handled")
        first.close()
        finished = {n.number for n in first.record.done}
        second.start()
        second.publish(topic, note(100))
        second.wait_until(
            lambda: {n.number for n in first.record.done + second.record.done} == set(range(101)), "all are handled"
        )
        second.wait_until_idle(topic, "billing")
        assert not finished & {n.number for n in second.record.done}
