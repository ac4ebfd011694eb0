"""An app and a process that forks: no connection crosses, nothing hangs, and the parent goes on. See tests/forking.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.forking import SCENARIOS

ROOT = Path(__file__).parents[2]
LONGEST = 100.0


def runs(scenario: str, url: str) -> None:
    command = (
        sys.executable,
        "-W", "error",
        "-W", "ignore:.*fork:DeprecationWarning",  # from Python 3.12 on, wherever there are threads: it is the matter of this test
        "-m", "tests.forking", scenario, url,
    )  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


EACH = pytest.mark.parametrize("scenario", SCENARIOS)


@EACH
def test_a_fork_on_memory(scenario: str) -> None:
    runs(scenario, "memory://")


@EACH
def test_a_fork_on_sqlite(scenario: str, tmp_path: Path) -> None:
    runs(scenario, f"sqlite:///{tmp_path / 'mqkit.db'}")


@EACH
def test_a_fork_on_rabbitmq(scenario: str, rabbitmq_broker: Broker) -> None:
    runs(scenario, rabbitmq_broker.url)


# Not "first": it forks while the parent's Kafka client makes its first connection, and of some 400 children one could
# not connect for its 10 s. librdkafka was in the middle of something that the child can never end; we cannot know when.
@pytest.mark.parametrize("scenario", [scenario for scenario in SCENARIOS if scenario != "first"])
def test_a_fork_on_kafka(scenario: str, kafka_broker: Broker) -> None:
    runs(scenario, kafka_broker.url)
