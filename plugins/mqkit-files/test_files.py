"""mqkit's contract on this backend: `pytest test_files.py`, with mqkit and mqkit-files installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mqkit.testing.conformance import Conformance, Harness

from mqkit_files import Name


class FilesHarness(Harness):
    name = "files"
    abilities = frozenset({"interrupt"})

    def __init__(self, root: Path) -> None:
        self._root = root
        super().__init__(f"files://{root}")

    @contextmanager
    def interrupt(self) -> Iterator[None]:
        """The folder is not where it was."""
        away = self._root.with_name(f"{self._root.name}-away")
        self._root.rename(away)
        self._root.write_text("in the way")
        try:
            yield
        finally:
            self._root.unlink()
            away.rename(self._root)


def test_files_of_the_first_version_are_read_as_never_noted() -> None:
    assert Name.read("7.0.1.c0ffee") == Name(7, 0, 1, "c0ffee", spent=0)
    assert Name.read(str(Name(7, 0, 1, "c0ffee", spent=3))).spent == 3


class TestFiles(Conformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        root = tmp_path / "spool"
        root.mkdir()
        return FilesHarness(root)
