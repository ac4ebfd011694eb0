"""The memory backend: the contract's reference, for tests and for work inside of one process.

`memory://` and `memory://name` name brokers that live as long as the process; the same name is the same broker.
"""

from collections.abc import Sequence

from mqkit.backend import BackendSpec
from mqkit.backends.memory.backend import CAPABILITIES, MemoryBackend
from mqkit.backends.memory.broker import MemoryBroker
from mqkit.hookspecs import hookimpl

__all__ = ["MemoryBackend", "MemoryBroker", "mqkit_backends"]


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """The memory backend."""
    return (
        BackendSpec(
            name="memory",
            summary="Inside of one process, gone with it: for tests and first steps.",
            schemes=("memory",),
            example_url="memory://",
            capabilities=CAPABILITIES,
            blocking="mqkit.backends.memory:MemoryBackend",
        ),
    )
