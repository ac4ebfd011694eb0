"""The brokers that the tests run against, as pytest sees them: ours in a container, one the user gave, or none.

How one is started is not told here: see testcontainers/broker_containers.py.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qs, urlsplit

import pytest


class Broker(Protocol):
    """What a test may ask of its broker. Faults are healed when the block ends: the broker serves the whole run."""

    @property
    def url(self) -> str: ...
    @property
    def management_url(self) -> str: ...
    def run(self, *command: str) -> str: ...
    def evaluate(self, expression: str) -> str: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...
    def restart(self) -> None: ...
    def pause(self) -> None: ...
    def unpause(self) -> None: ...
    def stopped(self) -> AbstractContextManager[None]: ...
    def paused(self) -> AbstractContextManager[None]: ...
    def application_stopped(self) -> AbstractContextManager[None]: ...
    def memory_alarm(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class GivenBroker:
    """A broker that the user named. It is not ours to harm: a test that wants to is skipped."""

    url: str
    setting: str

    @property
    def management_url(self) -> str:
        return parse_qs(urlsplit(self.url).query).get("management", [""])[0]

    def run(self, *command: str) -> str:
        self._refuse(command[0])

    def evaluate(self, expression: str) -> str:
        self._refuse(f"ask for {expression}")

    def stop(self) -> None:
        self._refuse("stop")

    def kill(self) -> None:
        self._refuse("kill")

    def start(self) -> None:
        self._refuse("start")

    def restart(self) -> None:
        self._refuse("restart")

    def pause(self) -> None:
        self._refuse("pause")

    def unpause(self) -> None:
        self._refuse("unpause")

    def stopped(self) -> AbstractContextManager[None]:
        self._refuse("stop")

    def paused(self) -> AbstractContextManager[None]:
        self._refuse("pause")

    def application_stopped(self) -> AbstractContextManager[None]:
        self._refuse("stop")

    def memory_alarm(self) -> AbstractContextManager[None]:
        self._refuse("block")

    def _refuse(self, fault: str) -> NoReturn:
        pytest.skip(f"needs a broker that it may {fault}: unset {self.setting} to have one started")


def given(setting: str) -> GivenBroker | None:
    """The broker that an environment variable names."""
    url = os.environ.get(setting)
    return GivenBroker(url, setting) if url else None


def without(why: str) -> NoReturn:
    """Skips for want of a broker; in CI, where nobody would notice a skip, it fails."""
    what_to_do = f"{why}; or name brokers of yours in MQKIT_TEST_AMQP_URL and MQKIT_TEST_KAFKA_URL"
    if os.environ.get("CI"):
        raise pytest.fail.Exception(f"CI is set, and a broker is missing: {what_to_do}", pytrace=False) from None
    raise pytest.skip.Exception(what_to_do) from None


@contextmanager
def streaming(config: pytest.Config) -> Iterator[None]:
    """Within the block output goes to the terminal: an image can take minutes to come."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
    else:
        with capture.global_and_fixture_disabled():
            yield
