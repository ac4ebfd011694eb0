"""The contract on the memory backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

import pytest

from mqkit.backends.memory import MemoryBroker
from mqkit.testing.conformance import Conformance, Harness


class MemoryHarness(Harness):
    name = "memory"
    abilities = frozenset({"interrupt", "disconnect"})

    def __init__(self) -> None:
        self._broker = f"conformance-{token_hex(4)}"
        super().__init__(f"memory://{self._broker}?max_message_bytes={2**25}")

    @contextmanager
    def interrupt(self) -> Iterator[None]:
        broker = MemoryBroker.named(self._broker)
        broker.interrupt()
        try:
            yield
        finally:
            broker.restore()

    def disconnect(self) -> None:
        with self.interrupt():
            pass


class TestMemory(Conformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()
