"""A pytest plugin: what the conformance suite proved, as a table of promises and backends.

`-p mqkit.testing.report` prints it after a run. `--promises-table FILE` also compares it with the table between the
markers in that Markdown file, and fails the run if they differ; with `--promises-write` it writes the table there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from mqkit.testing.promises import MARK, PROMISES, Promise, markdown

BEGIN: Final = "<!-- promises -->"
END: Final = "<!-- /promises -->"
STASH: Final = pytest.StashKey["Table"]()
TOLD: Final = pytest.StashKey[str]()


@dataclass(slots=True)
class Cell:
    """What is known about one promise on one backend."""

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

    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    backends: list[str] = field(default_factory=list)

    def note(self, numbers: Sequence[str], backend: str, outcome: str, missing: Sequence[str]) -> None:
        """One test ended."""
        if backend not in self.backends:
            self.backends = sorted((*self.backends, backend))
        for number in numbers:
            cell = self.cells.setdefault((number, backend), Cell())
            match outcome:
                case "passed":
                    cell.passed += 1
                case "failed":
                    cell.failed += 1
                case "open":
                    cell.open += 1
                case "skipped":
                    cell.missing.update(missing)

    def cell(self, number: str, backend: str) -> Cell:
        """Of one promise on one backend."""
        return self.cells.get((number, backend), Cell())

    def legend(self) -> list[str]:
        """For each backend what of the suite it could not run, and for want of what."""
        lines = []
        for backend in self.backends:
            wants = {n: sorted(c.missing) for (n, b), c in self.cells.items() if b == backend and c.missing}
            if wants:
                told = "; ".join(f"{number}: {', '.join(missing)}" for number, missing in wants.items())
                lines.append(f"{backend} has not: {told}")
            if half := [n for (n, b), c in self.cells.items() if b == backend and c.open]:
                lines.append(f"{backend} keeps in part only (*): {', '.join(half)}")
        return lines

    def rows(self) -> list[tuple[str, str, list[str]]]:
        """Number, text, and a cell for each backend; of all promises that are covered."""
        return [
            (promise.number, promise.text, [self.cell(promise.number, b).shown() for b in self.backends])
            for promise in PROMISES
            if promise.covered
        ]

    def markdown(self) -> str:
        """The table for a README: what holds where, without counts, so that a new test does not change it."""

        def cell(promise: Promise, backend: str) -> str:
            found = self.cell(promise.number, backend)
            if found.failed or not found.passed:
                return found.shown()
            return "in part" if found.open else "yes"

        return markdown(self.backends, cell)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("mqkit")
    group.addoption("--promises-table", metavar="FILE", help="compare the table of promises with the one in FILE")
    group.addoption("--promises-write", action="store_true", help="write the table into that file instead")


def pytest_configure(config: pytest.Config) -> None:
    """The mark, and an empty table."""
    config.addinivalue_line("markers", f"{MARK}(*numbers, needs): the test proves these promises of the contract")
    config.stash[STASH] = Table()
    config.pluginmanager.register(Listener(config.stash[STASH]), "mqkit-promises")


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
                self._table.note(facts["promises"], facts["backend"], outcome, missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    table = config.stash[STASH]
    if not table.backends:
        return
    terminalreporter.section("promises")
    width = max(len(promise.text) for promise in PROMISES)
    columns = [max(4, len(backend)) for backend in table.backends]
    heads = "  ".join(name.rjust(column) for name, column in zip(table.backends, columns, strict=True))
    terminalreporter.write_line(f"{'':4}{'':{width}}  {heads}")
    for number, text, cells in table.rows():
        shown = "  ".join(cell.rjust(column) for cell, column in zip(cells, columns, strict=True))
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
    if not path or not table.backends or config.option.collectonly:
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
