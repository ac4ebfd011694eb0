"""D1: attempts are counted whoever makes them, wherever they wait, and whatever becomes of who made them."""

from mqkit.message import Message
from mqkit.retry import Retry
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note
from mqkit.testing.service import Service
from mqkit.testing.waiting import eventually


class Counting(Suite):
    """D1, across services and processes."""

    @promise("D1")
    def test_attempts_are_counted_across_services(self, scene: Scene) -> None:
        self._count_across_services(scene, "none")

    @promise("D1", needs="ordering")
    def test_attempts_are_counted_across_services_in_order_too(self, scene: Scene) -> None:
        self._count_across_services(scene, "key")

    @staticmethod
    def _count_across_services(scene: Scene, ordering: str) -> None:
        topic = scene.topic(key="key")
        attempts: list[int] = []

        def fail(message: Message[Note]) -> None:
            attempts.append(message.attempt)
            raise ValueError("no")

        def service() -> Service:
            each = scene.service(grace=1)
            each.subscribe(
                topic, "billing", fail, ordering=ordering, retry=Retry(attempts=3, wait_initial=1.0, wait_factor=1)
            )
            return each.start()

        services = [service()]
        services[0].publish(topic, note(1, "k"))

        def told() -> int:
            return sum(len(each.record.events("retry")) for each in services)

        for number in range(1, 3):
            services[-1].wait_until(lambda: told() >= number, f"attempt {number} waits for the next")  # noqa: B023 - called at once
            services[-1].close()
            services.append(service())
        (letter,) = eventually(lambda: services[-1].letters(topic, "billing"), "it is a dead letter", every=0.2)
        assert attempts == [1, 2, 3]
        assert letter.attempts == 3

    @promise("D1")
    def test_inline_attempts_are_counted_across_services(self, scene: Scene) -> None:
        self._count_inline_across_services(scene, "none")

    @promise("D1", needs="ordering")
    def test_inline_attempts_are_counted_across_services_in_order_too(self, scene: Scene) -> None:
        self._count_inline_across_services(scene, "key")

    @staticmethod
    def _count_inline_across_services(scene: Scene, ordering: str) -> None:
        topic = scene.topic(key="key")
        first, second = scene.service(grace=0.0), scene.service()
        gate = first.gate()

        def fail(_: Message[Note]) -> None:
            raise ValueError("no")

        def fail_then_hold(message: Message[Note]) -> None:
            if message.attempt == 3:
                gate.pass_through()
            fail(message)

        for service, script in ((first, fail_then_hold), (second, fail)):
            service.subscribe(topic, "billing", script, ordering=ordering, retry=Retry(attempts=5, inline=4))
        first.start().publish(topic, note(1, "k"))
        first.wait_until(lambda: first.record.running and len(first.record.calls()) == 3, "the third attempt runs")
        first.stop()
        second.start()
        (letter,) = second.wait_for_letters(topic, "billing", 1)
        assert [call.attempt for call in first.record.calls()] == [1, 2, 3]
        assert [call.attempt for call in second.record.calls()] == [3, 4, 5]
        assert letter.attempts == 5
        assert {event.seconds for s in (first, second) for event in s.record.events("retry")} == {0.0}

    @promise("D1", needs="ordering persistent shared")
    def test_attempts_in_order_are_counted_though_their_process_is_killed(self, scene: Scene) -> None:
        topic = scene.topic(int)
        waits = {"attempts": 6, "wait_initial": 0.2, "wait_factor": 1}
        worker = scene.worker(topic, "billing", fail=True, retry=waits, options={"ordering": "key"})
        worker.wait_for("started")
        service = scene.service()

        def fail(_: Message[int]) -> None:
            raise ValueError("no")

        policy = Retry(attempts=6, wait_initial=0.2, wait_factor=1)
        service.subscribe(topic, "billing", fail, ordering="key", retry=policy)
        service.open().publish(topic, 1, key="k")
        worker.wait_for("called", 3)
        worker.kill()
        made = len(worker.facts("called"))
        service.start()
        service.wait_until(lambda: service.record.events("dead-letter"), "the next goes on", 60)
        attempts = [call.attempt for call in service.record.calls()]
        assert attempts[0] in (made, made + 1), "but for the one that the kill may have interrupted, all count"
        assert attempts == list(range(attempts[0], 7))
        assert [letter.attempts for letter in service.wait_for_letters(topic, "billing", 1)] == [6]
