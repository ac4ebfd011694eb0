"""A. Publishing."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqkit.errors import EncodeError, MessageTooLarge, MqkitError, PublishError, SchemaError, Unroutable
from mqkit.message import Outgoing
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.faults import let_pass, refusal
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note, notes


class Publishing(Suite):
    """A1 to A8."""

    @promise("A1")
    def test_a_published_message_is_at_the_broker(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        publisher.publish(topic, note(1))
        publisher.publish_many(topic, notes(range(2, 4)))
        found = scene.harness.raw_receive(topic.name, "billing", 3)
        assert [Note.model_validate_json(message.body).number for message in found] == [1, 2, 3]

    @promise("A1", needs="persistent shared")
    def test_what_a_killed_publisher_was_told_to_be_safe_is_safe(self, scene: Scene) -> None:
        topic = scene.topic(int, groups=["billing"])
        publisher = scene.worker(topic, "billing", role="publish")
        publisher.wait_for("published", 30)
        publisher.kill()
        confirmed = set(publisher.payloads("published"))
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        service.wait_until(lambda: confirmed <= set(service.record.done), "every confirmed message is handled")

    @promise("A1", needs="interrupt")
    def test_no_publish_succeeds_while_the_broker_is_away(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        publisher.publish(topic, note(0))
        with scene.harness.interrupt():
            started = time.monotonic()
            with pytest.raises(PublishError) as one:
                publisher.publish(topic, note(1), timeout=0.7)
            with pytest.raises(PublishError) as many:
                publisher.publish_many(topic, notes(range(2, 4)), timeout=0.7)
            taken = time.monotonic() - started
        assert set(one.value.unknown) == {0}
        assert not one.value.rejected
        assert set(many.value.unknown) == {0, 1}
        assert taken < 2 * 0.7 + 3.0, "publishing ends within about its time-out"
        publisher.publish(topic, note(4), timeout=60)
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        service.wait_until(lambda: {0, 4} <= {n.number for n in service.record.done}, "what was confirmed is handled")

    @promise("A2", needs="routing_checked")
    def test_publishing_to_a_topic_without_a_group_raises(self, scene: Scene) -> None:
        topic = scene.topic()
        publisher = scene.publisher()
        with pytest.raises(Unroutable, match=topic.name):
            publisher.publish(topic, note(1))
        with pytest.raises(Unroutable, match=topic.name):
            publisher.publish(topic, note(1), delay=1)
        with pytest.raises(PublishError) as many:
            publisher.publish_many(topic, notes(range(3)))
        assert {i: type(error) for i, error in many.value.rejected.items()} == dict.fromkeys(range(3), Unroutable)
        assert not many.value.unknown

    @promise("A2")
    def test_publishing_to_a_topic_that_does_not_exist_raises(self, scene: Scene) -> None:
        publisher = scene.publisher(declare=False)
        started = time.monotonic()
        with pytest.raises(Unroutable):
            publisher.publish(scene.topic(), note(1))
        assert time.monotonic() - started < 10, "nothing is gained by waiting for it"

    @promise("A4")
    def test_many_messages_keep_the_order_of_each_key(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()
        service.subscribe(topic, "billing", ordering="key" if scene.harness.capabilities.ordering else "none")
        service.start()
        sent = [note(number, f"k{number % 7}") for number in range(500)]
        ids = service.publish_many(topic, sent)
        assert len(set(ids)) == len(sent)
        service.wait_until(lambda: len(service.record.done) >= len(sent), "all are handled")
        by_id = {call.message.id: call.payload for call in service.record.calls()}
        assert [by_id[each] for each in ids] == sent, "the ids are those of the payloads, by position"
        if scene.harness.capabilities.ordering:
            for key in {n.key for n in sent}:
                seen = [call.payload.number for call in service.record.calls() if call.payload.key == key]
                assert list(dict.fromkeys(seen)) == [n.number for n in sent if n.key == key]

    @promise("A4")
    def test_a_message_that_is_refused_for_now_is_not_overtaken_by_its_key(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=["billing"])
        faults = scene.faults()
        refused: list[bytes] = []

        def refuse_each_second_message_once(outgoing: Outgoing) -> MqkitError | None:
            body = outgoing.message.body
            if Note.model_validate_json(body).number % 2 or body in refused:
                return None
            refused.append(body)
            return refusal(retryable=True)

        faults.refusing = refuse_each_second_message_once
        scene.publisher(faults=faults).publish_many(topic, [note(number, "k") for number in range(1, 11)], timeout=30)
        assert len(refused) == 5
        found = scene.harness.raw_receive(topic.name, "billing", 10)
        assert [Note.model_validate_json(message.body).number for message in found] == list(range(1, 11))

    @promise("A8")
    def test_nobody_waits_for_a_topic_that_is_refused_but_who_publishes_to_it(self, scene: Scene) -> None:
        full, healthy = scene.topic(groups=["billing"]), scene.topic(groups=["billing"])
        faults = scene.faults()
        publisher = scene.publisher(faults=faults)
        publisher.publish(full, note(0))
        faults.refusing = lambda outgoing: refusal(retryable=True) if outgoing.topic == full.name else None
        with ThreadPoolExecutor() as threads:
            waiting = [threads.submit(publisher.publish, full, note(number), timeout=60) for number in range(3)]
            for number in range(50):
                publisher.publish(healthy, note(number))
            assert not any(one.done() for one in waiting)
            faults.refusing = let_pass
            assert all(one.result() for one in waiting)

    @promise("A4", needs="max_message_bytes")
    def test_many_messages_are_reported_one_by_one(self, scene: Scene) -> None:
        topic = scene.topic(bytes, groups=["billing"])
        publisher = scene.publisher()
        limit = scene.harness.largest
        with pytest.raises(PublishError) as failed:
            publisher.publish_many(topic, [b"first", bytes(limit + 1), b"last"])
        assert {i: type(error) for i, error in failed.value.rejected.items()} == {1: MessageTooLarge}
        assert not failed.value.unknown
        found = scene.harness.raw_receive(topic.name, "billing", 2)
        assert [message.body for message in found] == [b"first", b"last"], "the others are safe"

    @promise("A5")
    def test_a_payload_that_does_not_match_is_not_sent(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        wrong = Note.model_construct(number="many", key=None)  # type: ignore[arg-type] # wrong on purpose
        with pytest.raises(SchemaError) as one:
            publisher.publish(topic, wrong)
        assert [field.path for field in one.value.fields] == ["number"]
        with pytest.raises(SchemaError) as many:
            publisher.publish_many(topic, [note(1), wrong])
        assert [field.path for field in many.value.fields] == ["1.number"]
        with pytest.raises(EncodeError):
            publisher.publish(topic, note(2), headers={"mqkit-attempts": "9"})
        publisher.publish(topic, note(3))
        found = scene.harness.raw_receive(topic.name, "billing", 1)
        assert [Note.model_validate_json(message.body).number for message in found] == [3]

    @promise("A6")
    def test_too_large_a_message_names_both_sizes(self, scene: Scene) -> None:
        topic = scene.topic(bytes, groups=["billing"])
        faults = scene.faults()
        publisher = scene.publisher(faults=faults)
        batches: list[int] = []
        faults.sending = lambda batch: batches.append(len(batch))
        limit = scene.harness.largest
        with pytest.raises(MessageTooLarge) as failed:
            publisher.publish(topic, bytes(limit + 1))
        assert failed.value.size >= limit + 1
        assert failed.value.limit <= limit
        assert f"{failed.value.size:,}" in str(failed.value)
        assert f"{failed.value.limit:,}" in str(failed.value)
        assert len(batches) <= 1, "it is not tried again"
        publisher.publish(topic, b"small")
        assert [m.body for m in scene.harness.raw_receive(topic.name, "billing", 1)] == [b"small"]

    @promise("A8")
    def test_many_publish_at_once(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service()
        ordered = scene.harness.capabilities.ordering
        service.subscribe(topic, "billing", ordering="key" if ordered else "none")
        service.start()

        def publish(key: str) -> dict[str, Note]:
            payloads = [note(number, key) for number in range(12)]
            ids = [service.publish(topic, payload) for payload in payloads[:4]]
            ids += service.publish_many(topic, payloads[4:8])
            ids += [service.publish(topic, payload) for payload in payloads[8:]]
            return dict(zip(ids, payloads, strict=True))

        with ThreadPoolExecutor(16) as threads:
            sent = dict(pair for each in threads.map(publish, [f"k{n}" for n in range(16)]) for pair in each.items())
        assert len(sent) == 16 * 12, "each has an id of its own"
        service.wait_until(lambda: len(service.record.done) >= len(sent), "all are handled")
        calls = service.record.calls()
        assert {call.message.id: call.payload for call in calls} == sent
        if ordered:
            for key in {payload.key for payload in sent.values()}:
                seen = [call.payload.number for call in calls if call.payload.key == key]
                assert list(dict.fromkeys(seen)) == list(range(12)), "what one thread sent is in its order"
