"""The fixtures of all tests of the suite: the scene, and the skip that names what is missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqkit.testing.harness import Harness
from mqkit.testing.promises import MARK
from mqkit.testing.scene import Scene


class Suite:
    """One part of the suite."""

    @pytest.fixture
    def harness(self) -> Harness:
        """The backend under test: the subclass says which."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness` that returns a Harness")

    @pytest.fixture
    def scene(self, harness: Harness, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
        """What the test plays on, cleared up after it. Skips where the backend cannot do what the test needs."""
        mark = request.node.get_closest_marker(MARK)
        assert mark is not None, f"{request.node.name} is not marked with its promise"
        missing = sorted(harness.lacking(mark.kwargs["needs"]))
        request.node.user_properties += [("backend", harness.name), ("promises", mark.args), ("missing", missing)]
        if missing:
            harness.close()
            pytest.skip(f"{', '.join(mark.args)}: {harness.name} has not: {', '.join(missing)}")
        scene = Scene(harness, request.node.originalname, tmp_path)
        try:
            yield scene
        finally:
            scene.close()
