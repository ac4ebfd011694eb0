"""F. Envelope: what strangers read, and what they may send."""

from datetime import UTC, datetime

import pytest

from mqkit.errors import EncodeError
from mqkit.message import Headers, Message
from mqkit.retry import Retry
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note

JSON = "application/json"


class Enveloping(Suite):
    """F1 to F4."""

    @promise("F1")
    def test_a_plain_client_reads_the_body_and_the_cloud_event(self, scene: Scene) -> None:
        topic = scene.topic(key="key", groups=["billing"])
        publisher = scene.publisher(service="shop")
        before = datetime.now(UTC)
        id_ = publisher.publish(topic, note(1, "k"), headers={"tenant": "Grüße"})
        (message,) = scene.harness.raw_receive(topic.name, "billing", 1)
        assert message.body == b'{"number":1,"key":"k"}'
        assert message.content_type == JSON
        assert message.key == b"k"
        prefix = scene.harness.capabilities.attribute_prefix
        found = {name: value for name, value in message.headers.items() if name.startswith(prefix)}
        time = datetime.fromisoformat(str(found.pop(f"{prefix}time")))
        assert before <= time <= datetime.now(UTC)
        found.pop(f"{prefix}partitionkey", None)
        assert found == {
            f"{prefix}specversion": "1.0",
            f"{prefix}id": id_,
            f"{prefix}source": "shop",
            f"{prefix}type": "Note",
        }
        assert message.headers["tenant"] == "Grüße"

    @promise("F1")
    def test_raw_bytes_are_raw(self, scene: Scene) -> None:
        topic = scene.topic(bytes, groups=["billing"])
        body = bytes(range(256))
        scene.publisher().publish(topic, body)
        (message,) = scene.harness.raw_receive(topic.name, "billing", 1)
        assert message.body == body
        assert message.content_type == "application/octet-stream"

    @promise("F2")
    def test_missing_attributes_get_defaults(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        scene.harness.raw_publish(topic.name, b'{"number": 1}')
        scene.harness.raw_publish(
            topic.name, b'{"number": 2}', headers={"ce_id": "mine", "ce_type": "t"}, content_type=JSON
        )
        scene.harness.raw_publish(topic.name, b'{"number": 3}', content_type="application/json; charset=utf-8")
        scene.harness.raw_publish(topic.name, b'{"number": 4}', content_type="application/vnd.shop+json")
        service.wait_until(lambda: len(service.record.done) == 4, "all are handled")
        messages = {call.payload.number: call.message for call in service.record.calls()}
        assert all(message.id and message.attempt == 1 for message in messages.values())
        assert len({message.id for message in messages.values()}) == 4
        assert (messages[2].id, messages[2].type) == ("mine", "t")
        assert messages[1].headers.keys() == set()

    @promise("F2")
    def test_a_message_without_an_id_has_the_same_at_every_delivery_and_in_every_group(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.publisher()
        for group in ("billing", "shipping"):
            with service.consumer(topic, group):
                pass  # declared
        scene.harness.raw_publish(topic.name, b'{"number": 1}', headers={"tenant": "a"}, content_type=JSON, key=b"k")
        ids = []
        for group in ("billing", "billing", "shipping"):
            with service.consumer(topic, group) as consumer:
                ids += [each.message.id for each in consumer.pull(1)]  # not decided: it comes again
        assert len(ids) == 3
        assert len(set(ids)) == 1

    @promise("F2")
    def test_an_event_in_structured_mode_is_read_and_a_batch_of_them_named(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        event = b'{"id": "A-1", "source": "till", "type": "order", "subject": "7", "data": {"number": 1}}'
        scene.harness.raw_publish(topic.name, event, content_type="application/cloudevents+json; charset=UTF-8")
        scene.harness.raw_publish(topic.name, b"[]", content_type="application/cloudevents-batch+json")
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert (letter.reason, letter.body) == ("envelope", b"[]")
        assert "batch of CloudEvents" in letter.error
        service.wait_until(lambda: service.record.done, "the event is handled")
        (call,) = service.record.calls()
        assert (call.payload, call.message.body) == (note(1), event)
        assert (call.message.id, call.message.source, call.message.type) == ("A-1", "till", "order")
        assert call.message.headers == {"ce_subject": "7"}

    @promise("F2")
    def test_hostile_messages_become_dead_letters_and_stall_nothing(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing", concurrency=2)
        service.start()
        good = b'{"number": 1}'
        hostile: list[tuple[bytes, Headers, str | None, str]] = [
            (b"", {}, JSON, "undecodable"),
            (b"\xff\xfe\x00", {}, JSON, "undecodable"),
            (b"[" * 200_000, {}, JSON, "undecodable"),
            (b'{"number": ' + b"9" * 50_000 + b"}", {}, JSON, "undecodable"),
            (b'{"number": "many"}', {}, JSON, "schema"),
            (good, {}, "image/png", "undecodable"),
            (good, {}, "application/json; charset=utf-16", "undecodable"),
            (good, {"ce_specversion": "7.3"}, JSON, "envelope"),
            (good, {"ce_time": "yesterday"}, JSON, "envelope"),
            (good, {"ce_id": "i" * 5_000}, JSON, "envelope"),
            (good, {"ce_id": b"\xff\xfe"}, JSON, "envelope"),
            (good, {"mqkit-due": "soon"}, JSON, "envelope"),
            (good, {"mqkit-due": "1e300"}, JSON, "envelope"),
        ]
        for body, headers, content_type, _ in hostile:
            scene.harness.raw_publish(topic.name, body, headers=headers, content_type=content_type)
        service.publish(topic, note(7))
        service.wait_until(lambda: service.record.done == [note(7)], "what is good is handled")
        letters = service.wait_for_letters(topic, "billing", len(hostile))
        assert sorted((letter.body[:20], letter.reason) for letter in letters) == sorted(
            (body[:20], reason) for body, _, _, reason in hostile
        )
        assert [call.payload for call in service.record.calls()] == [note(7)]
        service.wait_until_idle(topic, "billing")

    @promise("F2")
    def test_a_body_that_is_too_large_for_the_app_is_a_dead_letter(self, scene: Scene) -> None:
        topic = scene.topic(options=scene.harness.large_topic_options)
        service = scene.service()
        service.subscribe(topic, "billing")
        service.start()
        huge = b'{"number": 1, "more": "' + b"x" * scene.harness.huge + b'"}'
        scene.harness.raw_publish(topic.name, huge, content_type=JSON)
        service.publish(topic, note(2))
        service.wait_until(lambda: note(2) in service.record.done, "what is good is handled")
        if scene.harness.huge > 16 * 1024 * 1024:
            (letter,) = service.wait_for_letters(topic, "billing", 1)
            assert letter.reason == "too-large"
            assert letter.body == huge
        else:
            service.wait_until(lambda: note(1) in service.record.done, "what is large is handled")

    @promise("F3")
    def test_unknown_headers_survive_everything(self, scene: Scene) -> None:
        self._send_through_everything(scene, {"tenant": "a", "Grüße": "ß €", "empty": "", "raw": b"\x00\xff"})

    @promise("F3", needs="typed_headers")
    def test_header_types_survive_everything(self, scene: Scene) -> None:
        self._send_through_everything(
            scene,
            {"number": 5, "big": 2**40, "half": 0.5, "yes": True, "none": None, "list": ["a", 1], "map": {"a": "b"}},
        )

    @staticmethod
    def _send_through_everything(scene: Scene, headers: Headers) -> None:
        topic = scene.topic()
        service = scene.service()
        replayed: list[bool] = []

        def fail_until_replayed(_: Message[Note]) -> None:
            if not replayed:
                raise ValueError("no")

        service.subscribe(topic, "billing", fail_until_replayed, retry=Retry(attempts=2, wait_initial=0.1, inline=0))
        service.start()
        scene.harness.raw_publish(topic.name, b'{"number": 1}', headers=headers, content_type=JSON)
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert {name: letter.headers[name] for name in headers} == headers
        replayed.append(True)
        service.replay(topic, "billing")
        service.wait_until(lambda: service.record.done, "it is handled after its replay")
        assert [call.attempt for call in service.record.calls()] == [1, 2, 1]
        for call in service.record.calls():
            assert dict(call.message.headers) == headers

    @promise("F4")
    def test_bookkeeping_that_a_publisher_wrote_is_not_believed(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def fail(_: Message[Note]) -> None:
            raise ValueError("no")

        service.subscribe(topic, "billing", fail, retry=Retry(attempts=2, wait_initial=0.1))
        service.subscribe(topic, "shipping")
        service.start()
        forged = {
            "mqkit-attempts": "99",
            "mqkit-first-failed": "2001-01-01T00:00:00Z",
            "mqkit-reason": "forged",
            "mqkit-group": "shipping",
            "mqkit-topic": "elsewhere",
            "mqkit-whatever": "x",
        }
        scene.harness.raw_publish(topic.name, b'{"number": 1}', headers=forged, content_type=JSON)
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert [c.attempt for c in service.record.calls(lambda c: c.message.group == "billing")] == [1, 2]
        assert len(service.record.calls(lambda c: c.message.group == "shipping")) == 1
        assert (letter.reason, letter.attempts, letter.group) == ("exhausted", 2, "billing")
        assert not letter.first_failed.startswith("2001")
        assert not any(call.message.headers for call in service.record.calls())

    @promise("F4")
    def test_a_publisher_cannot_write_bookkeeping(self, scene: Scene) -> None:
        topic = scene.topic(groups=["billing"])
        publisher = scene.publisher()
        for name in ("mqkit-attempts", "ce_id", "cloudEvents_id", "cloudEvents:id", "content-type"):
            with pytest.raises(EncodeError, match=name):
                publisher.publish(topic, note(1), headers={name: "9"})
