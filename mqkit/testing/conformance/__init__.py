"""The contract as tests: subclass `Conformance` in a test file, give it a `harness` fixture, and run pytest.

    class TestMyBroker(Conformance):
        @pytest.fixture
        def harness(self) -> Harness:
            return MyHarness("mybroker://localhost/")

One file for each letter of the contract. Each test is plain blocking code, played with App and with AsyncApp, and knows
no backend by name: what a backend cannot do it says by its capabilities, and the tests that need those are skipped and
name them.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{room}"
        for room in (
            "publishing",
            "consuming",
            "stopping",
            "outcomes",
            "retries",
            "counting",
            "notes",
            "dead_letters",
            "envelope",
            "operations",
            "poison",
            "pulling",
        )
    )
)

# the rooms come after the call above, which makes their asserts tell what they saw
from mqkit.testing.conformance.consuming import Consuming  # noqa: E402
from mqkit.testing.conformance.counting import Counting  # noqa: E402
from mqkit.testing.conformance.dead_letters import DeadLettering  # noqa: E402
from mqkit.testing.conformance.envelope import Enveloping  # noqa: E402
from mqkit.testing.conformance.notes import Noting  # noqa: E402
from mqkit.testing.conformance.operations import Operating  # noqa: E402
from mqkit.testing.conformance.outcomes import Outcomes  # noqa: E402
from mqkit.testing.conformance.poison import Poisoning  # noqa: E402
from mqkit.testing.conformance.publishing import Publishing  # noqa: E402
from mqkit.testing.conformance.pulling import Pulling  # noqa: E402
from mqkit.testing.conformance.retries import Retrying  # noqa: E402
from mqkit.testing.conformance.stopping import Stopping  # noqa: E402
from mqkit.testing.harness import Harness  # noqa: E402

__all__ = ["Conformance", "Harness"]


class Conformance(  # pytest runs the tests of the last base first: so they go by the letters
    Pulling,
    Operating,
    Enveloping,
    Poisoning,
    DeadLettering,
    Noting,
    Counting,
    Retrying,
    Outcomes,
    Stopping,
    Consuming,
    Publishing,
):
    """All promises. Its subclass supplies the fixture `harness`."""
