"""Which note belongs to which message, and which are done with: tables, and a broker of ten lines against a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mqkit.backends.rabbitmq import notes as notes_module
from mqkit.backends.rabbitmq.notes import Note, Notes, identity
from mqkit.message import Delivery, HeaderValue, WireMessage

MESSAGE = WireMessage(b"body", {"a": 1, "b": "2"}, b"k", "text/plain", "id-1", {"priority": 3})


def delivery(token: object = 1, message: WireMessage = MESSAGE, *, returned: bool = False) -> Delivery:
    return Delivery(message, token, "cds", "billing", returned=returned)


@pytest.mark.parametrize(
    "other",
    [
        replace(MESSAGE, body=b"other"),
        replace(MESSAGE, headers={"a": 1}),
        replace(MESSAGE, headers={"a": "1", "b": "2"}),
        replace(MESSAGE, key=b"l"),
        replace(MESSAGE, key=None),
        replace(MESSAGE, content_type=None),
        replace(MESSAGE, id="id-2"),
        replace(MESSAGE, id=None),
        replace(MESSAGE, properties={}),
    ],
)
def test_whatever_differs_makes_another_message(other: WireMessage) -> None:
    assert identity(delivery(message=other)) != identity(delivery())


def test_a_copy_that_came_by_the_groups_way_back_is_another_message() -> None:
    assert identity(delivery(returned=True)) != identity(delivery())


def test_a_redelivery_is_the_same_message_whatever_the_order_of_its_headers() -> None:
    again = Delivery(replace(MESSAGE, headers={"b": "2", "a": 1}), 7, "cds", "billing", redelivered=3)
    assert identity(again) == identity(delivery())


@given(st.text(), st.binary())
def test_every_message_has_an_identity(text: str, body: bytes) -> None:
    broken = body.decode("utf-8", "surrogateescape")
    message = WireMessage(body, {text: broken, broken: [None, {"x": body}]}, body, broken, text)
    assert identity(delivery(message=message)) == identity(delivery(2, message))


def test_a_note_is_read_as_it_was_written() -> None:
    note = Note("s", 2, 3, "digest")
    assert Note.read(note.headers) == note


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**Note("s", 1, 1, "d").headers, "mqkit-note-spent": "1"},
        {**Note("s", 1, 1, "d").headers, "mqkit-note-spent": -1},
        {**Note("s", 1, 1, "d").headers, "mqkit-note-of": 5},
        {"mqkit-note-of": "d", "mqkit-note-series": "s"},
    ],
)
def test_what_is_no_note_is_taken_away(headers: Mapping[str, HeaderValue]) -> None:
    assert Note.read(headers) is None
    assert Notes().arrived(7, headers) == [7]


def test_many_notes_that_come_late_are_matched_without_looking_through_all_messages_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[Delivery] = []

    def counting(one: Delivery) -> str:
        compared.append(one)
        return identity(one)

    monkeypatch.setattr(notes_module, "identity", counting)
    many, notes = 300, Notes()
    messages = [replace(MESSAGE, id=str(number)) for number in range(many)]
    for number in range(many):
        notes.handed_out(delivery(number, messages[number]), redelivered=True)
    for number in reversed(range(many)):
        note = Note(f"s{number}", 1, 4, identity(delivery(message=messages[number])))
        assert notes.arrived(1000 + number, note.headers) == []
    assert len(compared) <= 2 * many
    late = delivery("late", replace(MESSAGE, id="late"))
    notes.handed_out(late, redelivered=True)
    assert notes.arrived(1, Note("late", 1, 4, identity(late)).headers) == []
    assert sorted(notes.done([*range(many), "late"])) == [1, *range(1000, 1000 + many)]


def test_an_index_of_what_is_out_forgets_what_is_not() -> None:
    notes = Notes()
    notes.handed_out(delivery("first"), redelivered=True)
    assert notes.arrived(1, Note("other", 1, 1, "nobody's").headers) == []
    for number in range(2 * notes_module.FEW):
        notes.handed_out(delivery(number, replace(MESSAGE, id=str(number))), redelivered=False)
        notes.done([number])
    assert notes._indexed <= notes_module.FEW + 10
    assert notes.arrived(2, Note("mine", 1, 4, identity(delivery())).headers) == []
    assert notes.done(["first"]) == [2]


def test_a_message_that_was_never_delivered_before_has_no_notes() -> None:
    notes = Notes()
    notes.arrived(1, Note("s", 1, 3, identity(delivery())).headers)
    assert notes.handed_out(delivery(1), redelivered=False).spent == 0
    assert notes.handed_out(delivery(2), redelivered=True).spent == 3


def test_of_several_notes_the_newest_counts_in_whatever_order_they_lie() -> None:
    of = identity(delivery())
    for order in ((1, 2, 3), (3, 2, 1), (2, 3, 1)):
        notes = Notes()
        away = [tag for tag in order for tag in notes.arrived(tag, Note("s", tag, 10 * tag, of).headers)]
        assert sorted(away) == [1, 2]
        assert notes.handed_out(delivery(), redelivered=True).spent == 30
        assert notes.done([1]) == [3]


def test_of_two_messages_that_are_alike_each_has_its_own_notes() -> None:
    notes = Notes()
    notes.handed_out(delivery("a"), redelivered=False)
    notes.handed_out(delivery("b"), redelivered=False)
    first = notes.write("a", 2)
    assert notes.arrived(1, first.headers) == []
    assert notes.done(["b"]) == []
    notes.given_back()
    assert notes.handed_out(delivery("c"), redelivered=True).spent == 2
    assert notes.handed_out(delivery("d"), redelivered=True).spent == 0
    assert notes.done(["d", "c"]) == [1]


def test_a_predecessors_last_words_may_come_late() -> None:
    notes = Notes()
    notes.handed_out(delivery("a"), redelivered=True)
    assert notes.arrived(1, Note("s", 4, 4, identity(delivery())).headers) == []
    assert notes.write("a", 5) == Note("s", 5, 5, identity(delivery()))
    assert notes.done(["a"]) == [1]


def test_a_note_that_arrives_after_its_message_is_done_goes_too() -> None:
    notes = Notes()
    notes.handed_out(delivery("a"), redelivered=False)
    first, second = notes.write("a", 1), notes.write("a", 2)
    assert notes.arrived(1, first.headers) == []
    assert notes.done(["a"]) == [1]
    assert notes.owed
    assert notes.arrived(2, second.headers) == [2]
    assert not notes.owed


def test_a_note_that_was_refused_is_not_waited_for() -> None:
    notes = Notes()
    notes.handed_out(delivery("a"), redelivered=False)
    note = notes.write("a", 1)
    assert notes.done(["a"]) == []
    assert notes.owed
    notes.refused(note)
    assert not notes.owed


@dataclass
class Lying:
    """A message in the broker's queue."""

    number: int
    message: WireMessage
    redelivered: bool = False
    spent: int = 0
    """What a note that is safe says."""


@dataclass
class Box:
    """The notes at the broker, and those that are published and not yet with the session."""

    lying: dict[int, Note] = field(default_factory=dict)
    coming: list[Note] = field(default_factory=list)
    tag: int = 0


class Group(RuleBasedStateMachine):
    """Sessions of a group that receive, note, settle, give back and die, at any moment, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Lying] = []
        self.out: dict[object, Lying] = {}
        self.box = Box()
        self.notes = Notes()
        self.published = 0

    @rule(body=st.binary(max_size=4))
    def publish(self, body: bytes) -> None:
        self.published += 1
        self.queue.append(Lying(self.published, replace(MESSAGE, body=body, id=str(self.published))))

    @precondition(lambda self: self.queue)
    @rule()
    def receive(self) -> None:
        one = self.queue.pop(0)
        token = object()
        self.out[token] = one
        handed = self.notes.handed_out(delivery(token, one.message), redelivered=one.redelivered)
        assert handed.spent == one.spent
        one.redelivered = True

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def note(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(list(self.out)))
        self.out[token].spent += 1
        self.box.coming.append(self.notes.write(token, self.out[token].spent))

    @precondition(lambda self: self.box.coming)
    @rule()
    def arrive(self) -> None:
        self._lie(self.box.coming.pop(0))

    def _lie(self, note: Note) -> None:
        self.box.tag += 1
        self.box.lying[self.box.tag] = note
        self._acknowledge(self.notes.arrived(self.box.tag, note.headers))

    def _acknowledge(self, tags: list[int]) -> None:
        for tag in tags:
            del self.box.lying[tag]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(list(self.out)))
        del self.out[token]
        self._acknowledge(self.notes.done([token]))

    @rule()
    def give_back(self) -> None:
        self.queue = sorted([*self.queue, *self.out.values()], key=lambda one: one.number)
        self.out.clear()
        self.notes.given_back()

    @rule()
    def die(self) -> None:
        """Confirmed notes are in the queue, and the successor reads them in whatever order."""
        self.give_back()
        lying = [*self.box.coming, *self.box.lying.values()]
        self.box, self.notes = Box(), Notes()
        for note in lying:
            self._lie(note)

    @invariant()
    def at_most_one_note_lies_for_a_message(self) -> None:
        series = [note.series for note in self.box.lying.values()]
        assert len(series) == len(set(series))

    def teardown(self) -> None:
        while self.box.coming:
            self.arrive()
        self.give_back()
        while self.queue:
            self.receive()
        self._acknowledge(self.notes.done(list(self.out)))
        known = {identity(delivery(message=one.message)) for one in self.out.values()}
        assert not [note for note in self.box.lying.values() if note.of in known]


TestGroup = Group.TestCase
