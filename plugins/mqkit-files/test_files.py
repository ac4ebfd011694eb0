"""mqkit's contract on this backend: `pytest test_files.py`, with mqkit and mqkit-files installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mqkit.testing.conformance import Conformance, Harness


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


class TestFiles(Conformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        root = tmp_path / "spool"
        root.mkdir()
        return FilesHarness(root)
