"""Pulling: a consumer's promises are those of `subscribe`, in the user's own loop."""

import pytest

from mqkit.errors import ClosedError, ConfigurationError
from mqkit.retry import Retry
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Scene, note, notes
from mqkit.testing.service import Puller


class Pulling(Suite):
    """B, C, D and E, where messages are pulled."""

    @promise("B1", "B11", "C1")
    def test_what_is_pulled_and_done_comes_once_and_not_again(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish_many(topic, notes(range(20)))
        with service.consumer(topic, "jobs") as consumer:
            found = consumer.pull(20)
            assert sorted(each.payload.number for each in found) == list(range(20))
            for each in found:
                each.done()
        service.wait_until_idle(topic, "jobs")
        with service.consumer(topic, "jobs") as consumer:
            assert not consumer.fetch(1, 0.5)

    @promise("B1", "B9")
    def test_what_was_fetched_and_not_decided_comes_again_and_no_attempt_is_counted(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish_many(topic, notes(range(3)))
        for _ in range(2):
            with service.consumer(topic, "jobs") as consumer:
                assert {each.message.attempt for each in consumer.pull(3)} == {1}
        with service.consumer(topic, "jobs") as consumer:
            (first, *others) = consumer.pull(3)
            first.done()
            for each in others:
                each.release()
            again = consumer.pull(2)
            assert {each.payload.number for each in again} == {each.payload.number for each in others}
            assert {each.message.attempt for each in again} == {1}
            for each in again:
                each.done()

    @promise("B4")
    def test_no_more_than_prefetch_are_out_at_once(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish_many(topic, notes(range(10)))
        with service.consumer(topic, "jobs", prefetch=4) as consumer:
            found = consumer.pull(4)
            assert not consumer.fetch(10, 0.5)
            for each in found:
                each.done()
            assert len(consumer.pull(4)) == 4

    @promise("B5", needs="ordering")
    def test_the_next_of_a_key_comes_when_the_one_before_it_was_decided(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=["jobs"])
        service = scene.publisher()
        service.publish_many(topic, [note(1, "a"), note(2, "a"), note(3, "b")])
        numbers: list[int] = []
        with service.consumer(topic, "jobs", ordering="key", retry=Retry(wait_initial=0.1)) as consumer:
            first = consumer.pull(2)
            assert sorted(each.payload.number for each in first) == [1, 3]
            assert not consumer.fetch(1, 0.3)
            for each in first:
                each.retry() if each.payload.number == 1 else each.done()
            while len(numbers) < 2:
                (each,) = consumer.pull(1)
                numbers.append(each.payload.number)
                each.done()
        assert numbers == [1, 2]

    @promise("C2", "D1", "E1")
    def test_what_fails_is_tried_as_the_policy_says_and_ends_among_the_dead_letters(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish(topic, note(1))
        attempts: list[int] = []
        for _ in range(2):  # attempts are counted across consumers
            with service.consumer(topic, "jobs", retry=Retry(attempts=2, wait_initial=0.1)) as consumer:
                (each,) = consumer.pull(1)
                attempts.append(each.message.attempt)
                each.retry(ValueError("no luck"))
        (letter,) = service.wait_for_letters(topic, "jobs", 1)
        assert attempts == [1, 2]
        assert (letter.reason, letter.attempts) == ("exhausted", 2)
        assert (letter.error_type, letter.error) == ("ValueError", "no luck")

    @promise("C3")
    def test_a_retry_may_say_when(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish(topic, note(1))
        with service.consumer(topic, "jobs", retry=Retry(wait_initial=60)) as consumer:
            (each,) = consumer.pull(1)
            each.retry(after=0.2)
            (each,) = consumer.pull(1)
            assert each.message.attempt == 2
            each.done()

    @promise("C4", "E1")
    def test_a_message_may_be_put_among_the_dead_letters_at_once(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish(topic, note(1))
        with service.consumer(topic, "jobs") as consumer:
            (each,) = consumer.pull(1)
            each.dead_letter("not for us")
            with pytest.raises(RuntimeError, match="a dead letter already"):
                each.done()
        (letter,) = service.wait_for_letters(topic, "jobs", 1)
        assert (letter.reason, letter.error) == ("rejected", "not for us")

    @promise("E1", "F2")
    def test_what_cannot_be_read_is_a_dead_letter_and_stalls_nobody(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish(topic, note(1))
        scene.harness.raw_publish(topic.name, b"\xff not JSON")
        with service.consumer(topic, "jobs") as consumer:
            (each,) = consumer.pull(1)
            assert each.payload.number == 1
            each.done()
            service.wait_until(lambda: consumer.fetch(1, 0.1) or service.record.events("dead-letter"), "all was seen")
        (letter,) = service.wait_for_letters(topic, "jobs", 1)
        assert letter.reason == "undecodable"

    @promise("B8", needs="disconnect")
    def test_a_dropped_connection_interrupts_pulling_and_does_not_end_it(self, scene: Scene) -> None:
        topic = scene.topic(groups=["jobs"])
        service = scene.publisher()
        service.publish_many(topic, notes(range(4)))
        with service.consumer(topic, "jobs") as consumer:
            before = consumer.pull(4)
            scene.harness.disconnect()
            service.wait_until(lambda: service.record.events("connected"), "it is connected again")
            for each in before:
                each.done()  # of a session that is gone: it comes again
            again: list[int] = []
            while len(set(again)) < 4:
                for each in consumer.pull(1):
                    again.append(each.payload.number)
                    each.done()

    @promise("B1")
    def test_a_consumer_that_makes_no_sense_or_is_not_open_is_an_error(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.publisher()
        with pytest.raises(ConfigurationError, match="prefetch"):
            service.consumer(topic, "jobs", prefetch=0)
        with pytest.raises(ConfigurationError, match="group"):
            service.consumer(topic, "no such.group name")
        consumer: Puller = service.consumer(topic, "jobs")
        with pytest.raises(ClosedError, match="not open"):
            consumer.fetch(1, 0)
