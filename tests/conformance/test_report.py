"""What the table of promises says about what ran."""

from pathlib import Path

import pytest

from mqkit.testing.promises import BY_NUMBER, ROOMS
from mqkit.testing.report import BEGIN, END, Table, compare


def table() -> Table:
    found = Table()
    kafka, memory = ("kafka", "App"), ("memory", "AsyncApp")
    found.note(["A1", "B8"], memory, "passed", [])
    found.note(["A1"], memory, "passed", [])
    found.note(["A1"], kafka, "failed", [])
    found.note(["A1"], kafka, "passed", [])
    found.note(["A2"], kafka, "skipped", ["routing_checked"])
    found.note(["A4"], kafka, "passed", [])
    found.note(["A4"], kafka, "open", [])
    return found


def test_a_cell_counts_what_passed_and_hides_no_failure() -> None:
    rows = {number: cells for number, _, cells in table().rows()}
    assert rows["A1"] == ["FAIL", "2"]
    assert rows["A2"] == ["-", ""]
    assert rows["A4"] == ["1*", ""]
    assert rows["B8"] == ["", "1"]
    assert "A3" not in rows or BY_NUMBER["A3"].covered


def test_the_legend_names_what_is_missing() -> None:
    assert table().legend() == ["kafka App has not: A2: routing_checked", "kafka App keeps in part only (*): A4"]


def test_markdown_tells_whether_and_not_how_often() -> None:
    lines = table().markdown().splitlines()
    assert lines[0] == "| | Promise | kafka App | memory AsyncApp |"
    assert f"| **A** | **{ROOMS['A']}** |  |  |" in lines
    assert f"| A1 | {BY_NUMBER['A1'].text} | FAIL | yes |" in lines
    assert f"| A4 | {BY_NUMBER['A4'].text} | in part |  |" in lines


def test_a_file_is_compared_and_written(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    wrong, told = compare(table(), file, write=False)
    assert wrong
    assert "--promises-write" in told
    assert "old" in file.read_text()
    wrong, told = compare(table(), file, write=True)
    assert not wrong
    assert file.read_text() == f"before\n{BEGIN}\n{table().markdown()}\n{END}\nafter\n"
    assert compare(table(), file, write=False) == (False, "")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_file_without_a_place_for_the_table_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "README.md"
    file.write_text(text)
    wrong, told = compare(table(), file, write=True)
    assert wrong
    assert BEGIN in told
    assert file.read_text() == text
