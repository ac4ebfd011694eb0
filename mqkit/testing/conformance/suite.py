"""The fixtures of all tests of the suite: the colour, the scene, and the skip that names what is missing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqkit.testing.harness import Harness
from mqkit.testing.promises import COLOURS, MARK
from mqkit.testing.scene import Scene


class Suite:
    """One part of the suite."""

    @pytest.fixture
    def harness(self) -> Harness:
        """The backend under test: the subclass says which."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `harness` that returns a Harness")

    @pytest.fixture(params=COLOURS)
    def colour(self, request: pytest.FixtureRequest) -> str:
        """Which app the services are: every test is played in each.

        `@pytest.mark.parametrize("colour", ["App"])` on the subclass plays one alone.
        """
        colour: str = request.param
        return colour

    @pytest.fixture
    def scene(self, harness: Harness, colour: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
        """What the test plays on, cleared up after it. Skips where the backend cannot do what the test needs."""
        mark = request.node.get_closest_marker(MARK)
        assert mark is not None, f"{request.node.name} is not marked with its promise"
        missing = sorted(harness.lacking(mark.kwargs["needs"] - COLOURS[colour]))
        if harness.listed:
            column = (harness.name, colour)
            request.node.user_properties += [("column", column), ("promises", mark.args), ("missing", missing)]
        if missing:
            harness.close()
            pytest.skip(f"{', '.join(mark.args)}: {harness.name} {colour} has not: {', '.join(missing)}")
        scene = Scene(harness, colour, request.node.originalname, tmp_path)
        try:
            yield scene
        finally:
            scene.close()
