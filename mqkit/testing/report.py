"""A pytest plugin: what the conformance suite proved, as a table: promises down; backends, in both colours, across.

`-p mqkit.testing.report` prints it after a run. `--promises-table FILE` also compares it with the table between the
markers in that Markdown file, and fails the run if they differ; with `--promises-write` it writes the table there.
`--promises-short` runs one test of each promise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from mqkit.testing.promises import MARK, PROMISES, Column, Promise, markdown
from mqkit.testing.short import split

BEGIN: Final = "<!-- promises -->"
END: Final = "<!-- /promises -->"
STASH: Final = pytest.StashKey["Table"]()
TOLD: Final = pytest.StashKey[str]()


@dataclass(slots=True)
class Cell:
    """What is known about one promise in one column."""

    passed: int = 0
    failed: int = 0
    open: int = 0
    """Tests that are known to fail: xfail."""
    missing: set[str] = field(default_factory=set)

    def shown(self) -> str:
        """In a few characters."""
        if self.failed:
            return "FAIL"
        if self.passed or self.open:
            return f"{self.passed}{'*' * bool(self.open)}"
        return "-" if self.missing else ""


@dataclass(slots=True)
class Table:
    """What was seen so far."""

    cells: dict[tuple[str, Column], Cell] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)

    def note(self, numbers: Sequence[str], column: Column, outcome: str, missing: Sequence[str]) -> None:
        """One test ended."""
        if column not in self.columns:
            self.columns = sorted((*self.columns, column))
        for number in numbers:
            cell = self.cells.setdefault((number, column), Cell())
            match outcome:
                case "passed":
                    cell.passed += 1
                case "failed":
                    cell.failed += 1
                case "open":
                    cell.open += 1
                case "skipped":
                    cell.missing.update(missing)

    def cell(self, number: str, column: Column) -> Cell:
        """Of one promise in one column."""
        return self.cells.get((number, column), Cell())

    def legend(self) -> list[str]:
        """For each column what of the suite could not run there, and for want of what."""
        lines = []
        for column in self.columns:
            name = " ".join(column)
            wants = {n: sorted(c.missing) for (n, where), c in self.cells.items() if where == column and c.missing}
            if wants:
                told = "; ".join(f"{number}: {', '.join(missing)}" for number, missing in wants.items())
                lines.append(f"{name} has not: {told}")
            if half := [n for (n, where), c in self.cells.items() if where == column and c.open]:
                lines.append(f"{name} keeps in part only (*): {', '.join(half)}")
        return lines

    def rows(self) -> list[tuple[str, str, list[str]]]:
        """Number, text, and a cell for each column; of all promises that are covered."""
        return [
            (promise.number, promise.text, [self.cell(promise.number, column).shown() for column in self.columns])
            for promise in PROMISES
            if promise.covered
        ]

    def markdown(self) -> str:
        """The table for a README: what holds where, without counts, so that a new test does not change it."""

        def cell(promise: Promise, column: Column) -> str:
            found = self.cell(promise.number, column)
            if found.failed or not found.passed:
                return found.shown()
            return "in part" if found.open else "yes"

        return markdown(self.columns, cell)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("mqkit")
    group.addoption("--promises-table", metavar="FILE", help="compare the table of promises with the one in FILE")
    group.addoption("--promises-write", action="store_true", help="write the table into that file instead")
    group.addoption("--promises-short", action="store_true", help="run one test of each promise, not all")


def pytest_configure(config: pytest.Config) -> None:
    """The mark, and an empty table."""
    config.addinivalue_line("markers", f"{MARK}(*numbers, needs): the test proves these promises of the contract")
    config.stash[STASH] = Table()
    config.pluginmanager.register(Listener(config.stash[STASH]), "mqkit-promises")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the short form does not run."""
    if config.getoption("--promises-short"):
        items[:], left_out = split(items)
        config.hook.pytest_deselected(items=left_out)


class Listener:
    """Notes each test that was played on a backend, in this process or in one of pytest-xdist's."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test ended."""
        facts: dict[str, Any] = dict(report.user_properties)
        if "promises" in facts and (report.when == "call" or report.outcome != "passed"):
            missing = facts.get("missing", ())
            outcome = "open" if hasattr(report, "wasxfail") else report.outcome
            if outcome != "skipped" or missing:
                backend, colour = facts["column"]
                self._table.note(facts["promises"], (backend, colour), outcome, missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    table = config.stash[STASH]
    if not table.columns:
        return
    terminalreporter.section("promises")
    width = max(len(promise.text) for promise in PROMISES)
    widths = [max(map(len, column)) for column in table.columns]
    for heads in zip(*table.columns, strict=True):
        shown = "  ".join(head.rjust(each) for head, each in zip(heads, widths, strict=True))
        terminalreporter.write_line(f"{'':4}{'':{width}}  {shown}")
    for number, text, cells in table.rows():
        shown = "  ".join(cell.rjust(each) for cell, each in zip(cells, widths, strict=True))
        terminalreporter.write_line(f"{number:4}{text:{width}}  {shown}")
    for line in table.legend():
        terminalreporter.write_line(f"- {line}")
    if told := config.stash.get(TOLD, ""):
        terminalreporter.write_line(told)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Compare the table with the file's, or write it there."""
    config = session.config
    path = config.getoption("--promises-table")
    table = config.stash[STASH]
    if not path or not table.columns or config.option.collectonly:
        return
    wrong, config.stash[TOLD] = compare(table, Path(path), write=bool(config.getoption("--promises-write")))
    if wrong:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def compare(table: Table, file: Path, *, write: bool) -> tuple[bool, str]:
    """Whether `file` tells something else than the table, after it was written if it shall be; and what to say."""
    before, begin, rest = file.read_text().partition(BEGIN)
    found, end, after = rest.partition(END)
    if not (begin and end):
        return True, f"{file} has no place for the table: put {BEGIN} and {END} into it"
    if found.strip() == table.markdown():
        return False, ""
    if not write:
        return True, f"{file}: its table of promises is not what passed; --promises-write writes it"
    file.write_text(f"{before}{BEGIN}\n{table.markdown()}\n{END}{after}")
    return False, f"{file}: the table of promises was written"
