"""H and I: what exists at the broker, how a group stands, and what happened."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqkit.errors import ConfigurationError
from mqkit.message import Message
from mqkit.retry import Retry
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note, notes
from mqkit.testing.service import idle


class Operating(Suite):
    """H1, I1 and I2."""

    @promise("H1")
    def test_declaring_again_and_at_once_changes_nothing(self, scene: Scene) -> None:
        topic = scene.topic()
        services = [scene.service() for _ in range(4)]
        for service in services:
            for group in ("billing", "shipping"):
                service.subscribe(topic, group)
        with ThreadPoolExecutor(len(services)) as threads:
            list(threads.map(lambda service: service.open(), services))
        services[0].publish_many(topic, notes(range(5)))
        services[0].close()
        again = scene.service()
        for group in ("billing", "shipping"):
            again.subscribe(topic, group)
        again.start()
        again.publish(topic, note(5))
        again.wait_until(lambda: len(again.record.done) == 12, "nothing was lost by declaring again")
        for group in ("billing", "shipping"):
            again.wait_until_idle(topic, group)
        assert sorted(n.number for n in again.record.done) == sorted([*range(6), *range(6)]), "and each came once"

    @promise("H1", needs="shared")
    def test_processes_declare_at_once(self, scene: Scene) -> None:
        topic = scene.topic(int)
        workers = [scene.worker(topic, "billing") for _ in range(3)]
        for worker in workers:
            worker.wait_for("started")
        scene.publisher().publish_many(topic, range(30))
        workers[0].wait_until(
            lambda: {n for worker in workers for n in worker.payloads("returned")} == set(range(30)), "all are handled"
        )

    @promise("I1")
    def test_inspect_tells_how_a_group_stands(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        gate = service.gate()

        def script(message: Message[Note]) -> None:
            match message.payload.number % 10:
                case 0:
                    raise Reject("no")
                case 1:
                    raise RetryLater(after=30)
                case 2:
                    gate.pass_through()

        service.subscribe(topic, "billing", script, concurrency=10)
        service.open()
        counts = service.wait_for_counts(topic, "billing", idle, "an empty group is empty")
        assert not counts.dead
        service.publish_many(topic, notes(range(10)))
        service.wait_for_counts(
            topic, "billing", lambda c: c.ready in (None, 10) and c.lag in (None, 10), "ten are ready"
        )
        service.start()
        service.wait_for_counts(
            topic,
            "billing",
            lambda c: (
                c.ready in (None, 0) and c.in_flight in (None, 1) and c.waiting in (None, 1) and c.dead in (None, 1)
            ),
            "one is with a handler, one waits, one is dead",
        )
        gate.open()
        service.wait_for_counts(topic, "billing", lambda c: not c.in_flight, "nothing is with a handler")

    @promise("I1", needs="lag")
    def test_inspect_tells_the_lag(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing")
        service.open().publish_many(topic, notes(range(7)))
        service.wait_for_counts(topic, "billing", lambda counts: counts.lag == 7, "seven are not finished")
        service.start()
        service.wait_for_counts(topic, "billing", lambda counts: counts.lag == 0, "none is left")

    @promise("I1")
    def test_inspect_knows_no_group_that_is_not_there(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        publisher.publish(topic, note(1))
        with pytest.raises(ConfigurationError, match="shipping"):
            publisher.inspect(topic, "shipping")
        unknown = scene.topic()
        with pytest.raises(ConfigurationError, match=unknown.name):
            publisher.inspect(unknown, "billing")

    @promise("I2")
    def test_every_verdict_is_an_event_and_a_line(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def script(message: Message[Note]) -> None:
            match message.payload.number:
                case 1:
                    raise Skip("seen")
                case 2:
                    raise Reject("never")
                case 3 if message.attempt == 1:
                    raise ValueError("not yet")

        service.subscribe(topic, "billing", script, retry=Retry(wait_initial=0.1))
        service.start()
        ids = service.publish_many(topic, notes(range(4)))
        service.wait_until(lambda: len(service.record.done) == 2, "two succeed")
        service.wait_for_letters(topic, "billing", 1)
        service.wait_until(lambda: len(service.record.events("done")) == 2, "both are told")
        service.stop()
        told = sorted((event.kind, event.id, event.attempt) for event in service.record.events() if event.id)
        assert told == sorted(
            [
                ("done", ids[0], 1),
                ("skipped", ids[1], 1),
                ("dead-letter", ids[2], 1),
                ("retry", ids[3], 1),
                ("done", ids[3], 2),
            ]
        )
        assert {(e.topic, e.group) for e in service.record.events() if e.id} == {(topic.name, "billing")}
        assert [e.kind for e in service.record.events() if not e.id and e.kind in ("started", "stopped")] == [
            "started",
            "stopped",
        ]
        for kind, id_, attempt in told:
            words = (f"{kind} ", f"topic={topic.name}", "group=billing", f"id={id_}", f"attempt={attempt}")
            assert len(scene.log.about(*words)) == 1, words
        assert scene.log.about("dead-letter", "never", level=logging.WARNING)
        assert service.record.events("retry")[0].seconds == pytest.approx(0.1)
