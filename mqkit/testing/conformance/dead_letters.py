"""E. Dead letters: what becomes one, what it tells, and how it comes back."""

import json
import time
from datetime import datetime
from typing import Any

import pytest

from mqkit import dead
from mqkit.backend import Settlement
from mqkit.dead import chooser
from mqkit.errors import ConnectionLost, MqkitError, PublishError
from mqkit.message import Message, Outgoing
from mqkit.retry import Retry
from mqkit.signals import Reject
from mqkit.testing.conformance.suite import Suite
from mqkit.testing.faults import let_pass, refusal
from mqkit.testing.promises import promise
from mqkit.testing.scene import Note, Scene, note, notes
from mqkit.testing.service import Service
from mqkit.topic import Topic


def reject(message: Message[Note]) -> None:
    """The script of a handler that wants nothing."""
    raise Reject(f"no {message.payload.number}")


def buried(scene: Scene, numbers: range, **options: Any) -> tuple[Topic[Note], Service, list[bool]]:
    """A topic, a service whose group `billing` rejects until the list says otherwise, and its letters."""
    topic = scene.topic(key="key")
    service = scene.service(**options)
    healed: list[bool] = []

    def reject_until_healed(message: Message[Note]) -> None:
        if not healed:
            reject(message)

    service.subscribe(topic, "billing", reject_until_healed)
    service.subscribe(topic, "shipping")
    service.start().publish_many(topic, notes(numbers))
    service.wait_for_letters(topic, "billing", len(numbers))
    service.wait_until(lambda: len(service.record.done) == len(numbers), "the other group has handled all")
    return topic, service, healed


class DeadLettering(Suite):
    """E1 to E4."""

    @promise("E1")
    def test_a_dead_letter_tells_what_and_why(self, scene: Scene) -> None:
        topic = scene.topic(key="key")
        service = scene.service(service="shop", version="2.1")

        def fail(_: Message[Note]) -> None:
            raise ZeroDivisionError("nothing to divide by")

        service.subscribe(topic, "billing", fail, retry=Retry(attempts=2, wait_initial=1.1))
        service.start()
        before = time.time()
        id_ = service.publish(topic, note(1, "käse"), headers={"tenant": "a"})
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        body = service.record.calls()[0].message.body
        assert (letter.id, letter.topic, letter.group) == (id_, topic.name, "billing")
        assert (letter.body, letter.key, letter.headers["tenant"]) == (body, "käse", "a")
        assert letter.content_type == "application/json"
        assert (letter.reason, letter.attempts) == ("exhausted", 2)
        assert letter.error_type == "ZeroDivisionError"
        assert letter.error == "nothing to divide by"
        assert "ZeroDivisionError: nothing to divide by" in letter.traceback
        first, last = (datetime.fromisoformat(text) for text in (letter.first_failed, letter.last_failed))
        assert before - 1 <= first.timestamp() < last.timestamp() <= time.time() + 1
        assert letter.origin
        assert "handle" in letter.handler
        assert letter.service == "shop 2.1"
        service.wait_until_idle(topic, "billing")

    @promise("E1")
    def test_a_dead_letter_of_an_ordered_group_tells_its_first_failure_and_its_last(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()

        def fail(_: Message[Note]) -> None:
            raise ZeroDivisionError

        service.subscribe(topic, "billing", fail, ordering="key", retry=Retry(attempts=2, wait_initial=0.2))
        service.start()
        service.publish(topic, note(1, "ann"))
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        first, last = (datetime.fromisoformat(text) for text in (letter.first_failed, letter.last_failed))
        assert (last - first).total_seconds() >= 0.2

    @promise("E1")
    def test_a_message_that_cannot_be_read_becomes_a_dead_letter(self, scene: Scene) -> None:
        topic = scene.topic()
        service = scene.service()
        service.subscribe(topic, "billing", retry=Retry(attempts=5))
        service.start()
        bodies = {b"\xff\xfe no text": "undecodable", b'{"number": "many"}': "schema"}
        for body in bodies:
            scene.harness.raw_publish(topic.name, body, headers={"tenant": "a"}, content_type="application/json")
        letters = service.wait_for_letters(topic, "billing", len(bodies))
        assert {letter.body: letter.reason for letter in letters} == bodies
        assert all(letter.headers["tenant"] == "a" and letter.error and letter.id for letter in letters)
        assert not service.record.calls(), "no handler saw them"
        assert "number" in next(letter.error for letter in letters if letter.reason == "schema")

    @promise("E2")
    def test_what_cannot_be_stored_as_a_dead_letter_stays(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        service = scene.service(faults=faults)
        service.subscribe(topic, "billing", reject)
        refusals: list[Outgoing] = []

        def refuse_thrice(outgoing: Outgoing) -> MqkitError | None:
            if not outgoing.dead or len(refusals) >= 3:
                return None
            refusals.append(outgoing)
            return refusal(retryable=True)

        faults.refusing = refuse_thrice
        service.start().publish(topic, note(1))
        (letter,) = service.wait_for_letters(topic, "billing", 1)
        assert len(refusals) == 3
        assert letter.reason == "rejected"
        service.wait_until_idle(topic, "billing")
        kinds = [
            "dead" if any(o.dead for o in passed.sent) else passed.kind
            for passed in faults.passed
            if passed.kind == "sent" or any(s is Settlement.DONE for _, s in passed.settled)
        ]
        assert kinds == ["sent", "dead", "settled"]

    @promise("E2")
    def test_a_message_without_its_dead_letter_is_delivered_again(self, scene: Scene) -> None:
        topic = scene.topic()
        faults = scene.faults()
        broken, other = scene.service(faults=faults, grace=0.5), scene.service()
        broken.subscribe(topic, "billing", reject)
        other.subscribe(topic, "billing")
        faults.refusing = lambda outgoing: refusal() if outgoing.dead else None
        broken.start().publish(topic, note(1))
        broken.wait_until(lambda: scene.log.about("could not be stored", "refused by the test"), "that was noticed")
        broken.close()
        other.start()
        other.wait_until(lambda: other.record.done, "another member gets the message")
        assert not other.letters(topic, "billing")

    @promise("E3")
    def test_looking_at_dead_letters_takes_none_out(self, scene: Scene) -> None:
        topic, service, _ = buried(scene, range(5))
        assert len(service.letters(topic, "billing")) == 5
        two = service.letters(topic, "billing", limit=2)
        some = service.letters(topic, "billing", choose=chooser(error="no 3"))
        assert len(two) == 2
        assert [letter.error for letter in some] == ["no 3"]
        assert service.letters(topic, "billing", choose=chooser([some[0].id])) == some
        assert not service.letters(topic, "billing", choose=chooser(reason="exhausted"))
        again = service.letters(topic, "billing")
        assert {letter.error for letter in again} == {f"no {number}" for number in range(5)}
        exported = json.loads(json.dumps([letter.as_dict() for letter in again]))
        assert {json.loads(letter["body"])["number"] for letter in exported} == set(range(5))
        service.wait_for_counts(topic, "billing", lambda counts: counts.dead in (None, 5), "all are still there")
        assert not service.letters(topic, "shipping")

    @promise("E3")
    def test_all_letters_are_found_however_few_are_read_ahead(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead, "PAGE", 2)
        topic, service, _ = buried(scene, range(25))
        assert len(service.letters(topic, "billing", limit=3)) == 3
        for _ in range(2):  # what was read the first time is all given back
            (last,) = service.letters(topic, "billing", choose=chooser(error="no 24"))
            assert last.error == "no 24"
            assert not service.letters(topic, "billing", choose=chooser(error="no such"))
        assert len(service.purge(topic, "billing", chooser(error="no 2"))) == 6
        left = service.letters(topic, "billing", limit=25)
        assert {letter.error for letter in left} == {f"no {n}" for n in range(25) if n // 10 != 2 and n != 2}
        assert len(left) == 19

    @promise("E4")
    def test_replay_sends_chosen_letters_to_the_failing_group_alone(self, scene: Scene) -> None:
        topic, service, healed = buried(scene, range(6))
        healed.append(True)
        chosen = chooser(error="no 4")
        dry = service.replay(topic, "billing", chosen, dry=True)
        assert len(dry) == 1
        assert len(service.letters(topic, "billing")) == 6, "a dry run changes nothing"
        assert list(service.replay(topic, "billing", chosen)) == list(dry)
        service.wait_until(lambda: len(service.record.done) == 7, "it is handled")
        assert len(service.replay(topic, "billing", limit=2)) == 2
        service.wait_until(lambda: len(service.record.done) == 9, "two more are handled")
        assert len(service.letters(topic, "billing")) == 3
        started = time.monotonic()
        assert len(service.replay(topic, "billing", rate=4)) == 3
        service.wait_until(lambda: len(service.record.done) == 12, "the rest is handled")
        assert not service.letters(topic, "billing")
        assert time.monotonic() - started >= 0
        for group in ("billing", "shipping"):
            service.wait_until_idle(topic, group)
        billing = service.record.calls(lambda c: c.message.group == "billing" and c.outcome == "returned")
        assert {call.attempt for call in billing} == {1}, "attempts are counted anew"
        assert sorted(call.payload.number for call in billing) == list(range(6))
        assert len(service.record.calls(lambda c: c.message.group == "shipping")) == 6, "the other group sees none"
        originals = {c.payload.number: c.message.id for c in service.record.calls(lambda c: c.outcome == "Reject")}
        assert {call.payload.number: call.message.id for call in billing} == originals

    @promise("E4")
    def test_an_interrupted_replay_loses_nothing(self, scene: Scene) -> None:
        faults = scene.faults()
        topic, service, healed = buried(scene, range(4), faults=faults, publish_timeout=1.0)
        healed.append(True)

        faults.refusing = lambda outgoing: refusal() if outgoing.group else None
        with pytest.raises(PublishError):
            service.replay(topic, "billing")
        assert len(service.letters(topic, "billing")) == 4, "nothing left the store without a copy"
        faults.refusing = let_pass

        def crash(_: object) -> None:
            raise ConnectionLost("crashed by the test")

        faults.settling = crash
        service.stop()
        with pytest.raises(ConnectionLost):
            service.replay(topic, "billing")
        faults.settling = let_pass
        service.start()
        assert len(service.letters(topic, "billing")) == 4, "copied, and not removed"
        assert len(service.replay(topic, "billing")) == 4
        assert not service.letters(topic, "billing")

        def handled() -> set[int]:
            calls = service.record.calls(lambda call: call.message.group == "billing" and call.outcome == "returned")
            return {call.payload.number for call in calls}

        service.wait_until(lambda: handled() == set(range(4)), "each is handled, once or twice")

    @promise("E3")
    def test_purge_removes_what_was_chosen(self, scene: Scene) -> None:
        topic, service, _ = buried(scene, range(3))
        assert len(service.purge(topic, "billing", chooser(error="no 1"))) == 1
        assert {letter.error for letter in service.letters(topic, "billing")} == {"no 0", "no 2"}
