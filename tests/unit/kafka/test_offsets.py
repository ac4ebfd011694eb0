"""What is unfinished in a partition, and how a commit's metadata keeps it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backends.kafka.offsets import (
    IDENTIFIED,
    LONGEST,
    MOST_MARKS,
    NOTED,
    PREFIX,
    Progress,
    Tracker,
    decode,
    encode,
    in_log,
    lost,
    merged,
    runs,
)

OFFSETS = st.integers(0, 2**62)


@st.composite
def progresses(draw: st.DrawFn, most: int = 300, least_noted: int = 0) -> Progress:
    low = draw(OFFSETS)
    gaps = draw(st.lists(st.integers(1, 50), min_size=least_noted, max_size=most))
    unfinished = [low] if gaps else []
    for gap in gaps[1:]:
        unfinished.append(unfinished[-1] + gap)
    position = (unfinished[-1] + draw(st.integers(1, 1000))) if unfinished else low
    marks, limit = [], low
    for count in sorted(draw(st.sets(st.integers(1, 100), max_size=4)), reverse=True):
        limit += draw(st.integers(1, 1000))
        marks.append((limit, count))
    reserved = draw(st.one_of(st.just(0), st.integers(low + 1, low + 100_000)))
    noted = draw(st.sets(st.sampled_from(unfinished), min_size=least_noted)) if unfinished else set[int]()
    notes = tuple((offset, draw(st.integers(0, 2**40))) for offset in sorted(noted))
    out, log = draw(st.integers(0, 1000)), draw(st.sampled_from(["", "yDD0zj7/R5+GSeZNtF0mVA"]))
    return Progress(position, tuple(unfinished), out, reserved, tuple(marks), notes, log)


@given(progresses())
def test_what_was_committed_is_read_back(progress: Progress) -> None:
    assert decode(progress.low, encode(progress)) == progress
    assert decode(progress.low, encode(progress) + "\0") == progress, "the driver ends it with a NUL"


@pytest.mark.parametrize(
    ("notes", "metadata"),
    [((), "mqkit1:AoABAgMCBgEKAAIDAQ"), (((1001, 3), (1005, 1)), "mqkit2:AoABAgMCBgECAQMEAQoAAgMB")],
)
def test_what_earlier_versions_wrote_is_read_and_still_written_where_it_says_all(
    notes: tuple[tuple[int, int], ...], metadata: str
) -> None:
    progress = Progress(1010, (1000, 1001, 1005), 2, 1128, ((1003, 2), (1006, 1)), notes)
    assert encode(progress) == metadata
    assert decode(1000, metadata) == progress


@given(progresses(most=60, least_noted=20), st.integers(150, 400))
def test_notes_are_the_last_to_be_given_up(progress: Progress, longest: int) -> None:
    read = decode(progress.low, encode(progress, longest))
    assert read.notes == progress.notes[: len(read.notes)]
    if read.notes != progress.notes:
        assert len(encode(progress, longest)) > longest - 60, "there was no room"
        assert len(list(runs(read.unfinished))) < 20, "what is finished was given up before"


@pytest.mark.parametrize(("messages", "kept"), [(900, 900), (2000, 1000)])
def test_so_many_notes_fit_in(messages: int, kept: int) -> None:
    unfinished = tuple(range(5000, 5000 + messages * 90, 90))
    progress = Progress(unfinished[-1] + 1, unfinished, notes=tuple((offset, 7) for offset in unfinished))
    metadata = encode(progress)
    read = decode(5000, metadata)
    assert len(metadata) <= LONGEST
    assert len(read.notes) >= kept
    assert read.notes == progress.notes[: len(read.notes)]
    assert read.position > 5000, "and something is left to tell what is finished"


@given(progresses(most=3000), st.integers(0, LONGEST))
def test_metadata_fits_in_and_forgets_only_what_is_finished(progress: Progress, longest: int) -> None:
    metadata = encode(progress, longest)
    assert len(metadata) <= longest
    read = decode(progress.low, metadata)
    assert read.low == progress.low
    assert read.position <= progress.position
    assert set(progress.unfinished) == set(read.unfinished) | {o for o in progress.unfinished if o >= read.position}


@given(progresses(most=3000), st.integers(29, LONGEST))
def test_of_which_log_it_is_is_never_forgotten(progress: Progress, longest: int) -> None:
    assert decode(progress.low, encode(progress, longest)).log == progress.log


@pytest.mark.parametrize(
    ("said", "now", "counts"), [("A", "A", True), ("A", "B", False), ("", "B", True), ("A", "", True)]
)
def test_a_position_counts_for_the_log_that_it_was_reached_in(said: str, now: str, counts: bool) -> None:
    progress = Progress(7, log=said)
    assert in_log(progress, now) == (progress if counts else None)
    assert in_log(None, now) is None
    assert Tracker(progress, now).progress().log == now


def test_thousands_of_scattered_messages_overflow_the_metadata_and_are_cut() -> None:
    progress = Progress(40_000, tuple(range(0, 40_000, 3)))
    read = decode(0, encode(progress))
    assert len(encode(progress)) <= LONGEST
    assert 0 < read.position < 40_000
    assert read.unfinished == tuple(range(0, read.position, 3))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "",
        "\0",
        "kafka-streams:1",
        "mqkit1:",
        "mqkit1:!!!",
        "mqkit1:AAAA",
        "mqkit1:" + "_" * 400,
        "mqkit1:é",
        "mqkit2:AAAA_w",
        "mqkit3:AAAA",
        "mqkit3:AAAAAAAAAAA*AAAAAAAAAAAAAAAAAA",
        "mqkit4:AAAA",
    ],
)
def test_metadata_of_others_says_nothing(metadata: str | None) -> None:
    assert decode(17, metadata) == Progress(17)


@given(st.sampled_from([PREFIX, NOTED, f"{IDENTIFIED}yDD0zj7/R5+GSeZNtF0mVA"]), st.text(max_size=60), OFFSETS)
def test_no_metadata_can_do_harm(prefix: str, text: str, low: int) -> None:
    read = decode(low, prefix + text)
    assert read.low == low
    assert list(read.unfinished) == sorted(set(read.unfinished))
    assert len(read.unfinished) <= 1_000_000


@given(st.lists(st.integers(1, 3), max_size=60), st.data())
def test_a_commit_never_passes_what_is_unfinished_and_a_restart_repeats_nothing_else(
    gaps: list[int], data: st.DataObject
) -> None:
    """The log has holes; records finish in any order; the owner changes at any moment, any number of times."""
    log, offset = [], 5
    for gap in gaps:
        offset += gap
        log.append(offset)
    tracker, finished, at = Tracker(None), set[int](), 0
    out: list[int] = []
    for _ in range(data.draw(st.integers(0, 150))):
        step = data.draw(st.sampled_from(["take", "take", "finish", "restart"]))
        if step == "take" and at < len(log):
            fresh = tracker.take(log[at])
            assert fresh is (log[at] not in finished)
            if fresh:
                out.append(log[at])
            at += 1
        elif step == "finish" and out:
            done = out.pop(data.draw(st.integers(0, len(out) - 1)))
            tracker.finish(done)
            finished.add(done)
        elif step == "restart" and tracker.position >= 0:
            progress = tracker.progress()
            tracker = Tracker(decode(progress.low, encode(progress)))
            out = []
            at = next((index for index, known in enumerate(log) if known >= progress.low), len(log))
        if tracker.position >= 0:
            low = tracker.progress().low
            assert finished >= {known for known in log if known < low}
            assert not set(tracker.progress().unfinished) & finished


def test_a_note_stays_until_its_record_is_finished_whoever_owns_the_partition() -> None:
    tracker = Tracker(None)
    for offset in (10, 11, 12):
        tracker.take(offset)
    assert tracker.note(12, 1)
    assert tracker.note(11, 2)
    assert tracker.note(12, 3)
    assert not tracker.note(13, 1), "it was not taken"
    assert tracker.progress().notes == ((11, 2), (12, 3))
    progress = tracker.progress()
    again = Tracker(decode(progress.low, encode(progress)))
    assert all(again.take(offset) for offset in (10, 11, 12))
    assert again.notes == {11: 2, 12: 3}
    again.finish(11)
    assert not again.note(11, 4)
    assert again.progress().notes == ((12, 3),)
    again.finish(12)
    assert again.progress() == Progress(13, (10,))


def test_a_note_above_what_is_told_is_kept_and_one_on_a_record_that_is_gone_is_not() -> None:
    tracker = Tracker(Progress(20, (10, 15), notes=((10, 1), (15, 2), (30, 3))))
    assert tracker.take(15), "10 does not exist any more"
    assert tracker.progress().notes == ((15, 2), (30, 3))
    for offset in (20, 31):
        tracker.take(offset)
    assert tracker.progress().notes == ((15, 2),), "nor does 30"


def test_what_was_read_without_a_record_is_passed_and_nothing_that_is_open() -> None:
    tracker = Tracker(Progress(20, (10, 15, 18)))
    for offset in (10, 15):
        assert tracker.take(offset)
    tracker.finish(15)
    assert not tracker.reach(18), "18 may still come"
    assert tracker.reach(25), "it does not come any more: there are only marks of transactions"
    assert tracker.progress() == Progress(25, (10,))
    assert not tracker.reach(25)
    assert not tracker.reach(-1001), "the driver does not know yet"
    tracker.finish(10)
    assert tracker.progress() == Progress(25)
    assert tracker.take(25)
    assert Tracker().reach(3), "nothing but marks since the beginning"


def test_what_retention_took_is_counted() -> None:
    tracker = Tracker(Progress(20, (10, 15, 18)))
    assert [tracker.unfinished_before(offset) for offset in (10, 16, 20, 25)] == [0, 2, 3, 8]
    assert Tracker(None).unfinished_before(5) == 5


def test_finishing_twice_changes_nothing() -> None:
    tracker = Tracker(None)
    for offset in (10, 11, 12):
        assert tracker.take(offset)
    for _ in range(2):
        tracker.finish(11)
        assert tracker.progress() == Progress(13, (10, 12))
    tracker.finish(9)
    assert len(tracker) == 2


def test_awaited_records_that_are_gone_from_the_log_do_not_hold_the_commit_back() -> None:
    tracker = Tracker(Progress(20, (10, 15, 18)))
    assert tracker.take(15)
    tracker.finish(15)
    assert not tracker.take(16)
    assert not tracker.take(19)
    assert tracker.progress() == Progress(20)


def test_a_blocked_message_costs_no_memory_for_those_that_finish_after_it() -> None:
    tracker = Tracker(None)
    tracker.take(0)
    for offset in range(1, 100_000):
        tracker.take(offset)
        tracker.finish(offset)
    assert len(tracker) == 1
    assert len(encode(tracker.progress())) < 30


@pytest.mark.parametrize(
    ("progress", "marks"),
    [
        (Progress(10), ()),
        (Progress(10, reserved=10), ()),
        (Progress(10, reserved=20), ((20, 1),)),
        (Progress(10, reserved=20, marks=((20, 1),)), ((20, 2),)),
        (Progress(10, reserved=30, marks=((20, 1),)), ((20, 2), (30, 1))),
        (Progress(10, reserved=15, marks=((20, 1),)), ((15, 2), (20, 1))),
        (Progress(25, reserved=30, marks=((20, 3),)), ((30, 1),)),
        (Progress(10, marks=((20, 3),)), ((20, 3),)),
    ],
)
def test_what_was_handed_out_when_a_process_ended_is_counted_once_more(progress: Progress, marks: object) -> None:
    assert lost(progress) == marks


def test_a_message_that_kills_its_process_each_time_is_counted_each_time() -> None:
    tracker = Tracker(Progress(100))
    for crash in range(7):
        assert tracker.take(100)
        assert tracker.lost(100) == crash
        progress = tracker.progress(1, reserved=101)
        tracker = Tracker(decode(progress.low, encode(progress)))
    assert tracker.lost(101) == 0


def test_marks_stay_few_and_never_overstate() -> None:
    progress = Progress(0)
    for crash in range(100):
        progress = Progress(0, reserved=100 - crash, marks=lost(progress))
    marks = lost(progress)
    assert len(marks) <= MOST_MARKS
    assert all(count <= 100 for _, count in marks)
    tracker = Tracker(progress)
    assert all(tracker.lost(offset) <= 100 - offset for offset in range(100))


@given(st.data())
def test_merging_two_progresses_finishes_what_either_finished(data: st.DataObject) -> None:
    def one() -> tuple[Progress, set[int]]:
        position = data.draw(st.integers(0, 30))
        unfinished = sorted(data.draw(st.sets(st.integers(0, 29))) & set(range(position)))
        spent = data.draw(st.dictionaries(st.sampled_from(unfinished), st.integers(1, 9))) if unfinished else {}
        notes = tuple(sorted(spent.items()))
        return Progress(position, tuple(unfinished), notes=notes), set(range(position)) - set(unfinished)

    (first, done_first), (second, done_second) = one(), one()
    both = merged(first, second)
    assert both == merged(second, first)
    assert set(range(both.position)) - set(both.unfinished) == done_first | done_second
    every = [note for note in (*first.notes, *second.notes) if note[0] in both.unfinished]
    assert dict(both.notes) == {offset: max(n for o, n in every if o == offset) for offset, _ in every}
    assert list(both.notes) == sorted(both.notes)


@given(st.sets(st.integers(0, 60)))
def test_runs_are_the_offsets(offsets: set[int]) -> None:
    found = list(runs(sorted(offsets)))
    assert {offset for start, stop in found for offset in range(start, stop)} == offsets
    assert all(before[1] < after[0] for before, after in pairwise(found))
