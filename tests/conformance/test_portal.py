"""The contract for App on a driver that is asynchronous alone: its backend lives on an event loop in a thread."""

from collections.abc import Sequence

import pytest

from mqkit.backend import BackendSpec
from mqkit.backends import memory
from mqkit.bridge import ThreadedBackend
from mqkit.hookspecs import hookimpl
from mqkit.plugins import Plugins
from mqkit.testing.conformance import Conformance, Harness
from tests.conformance.test_memory import MemoryHarness


def asynchronous_memory(url: str) -> ThreadedBackend:
    """The memory backend, for an event loop."""
    return ThreadedBackend(memory.MemoryBackend(url))


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """The memory backend, as if it were written for an event loop."""
    return (
        BackendSpec(
            name="memory",
            summary="Asynchronous alone.",
            schemes=("memory",),
            example_url="memory://",
            capabilities=memory.backend.CAPABILITIES,
            asynchronous=f"{__name__}:asynchronous_memory",
        ),
    )


class PortalHarness(MemoryHarness):
    name = "memory, by an async driver"
    listed = False


@pytest.mark.parametrize("colour", ["App"])
class TestPortal(Conformance):
    @pytest.fixture
    def harness(self, monkeypatch: pytest.MonkeyPatch) -> Harness:
        monkeypatch.setattr(memory, "mqkit_backends", mqkit_backends)
        return PortalHarness()

    def test_there_is_no_other_class(self, harness: Harness, colour: str) -> None:
        assert Plugins().backends.open(harness.url, "blocking")[0] == "asynchronous"
