"""The broker fixtures. Each broker is started when a test first asks for it, and serves the rest of the run.

MQKIT_TEST_AMQP_URL and MQKIT_TEST_KAFKA_URL name brokers to use instead of starting some.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.brokers import Broker, given, streaming, without

if TYPE_CHECKING:
    import broker_containers


# CI plays the same examples each time, so that a landing depends on the change alone; everybody else looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.fixture(scope="session")
def rabbitmq_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """RabbitMQ, the newest release line."""
    if broker := given("MQKIT_TEST_AMQP_URL"):
        yield broker
    else:
        from broker_containers import rabbitmq

        yield from started(request, rabbitmq())


@pytest.fixture(scope="session")
def rabbitmq_old_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """RabbitMQ, the oldest release line that mqkit supports."""
    from broker_containers import rabbitmq

    yield from started(request, rabbitmq("4.0"))


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One node of Kafka."""
    if broker := given("MQKIT_TEST_KAFKA_URL"):
        yield broker
    else:
        from broker_containers import kafka

        yield from started(request, kafka())


def started(
    request: pytest.FixtureRequest, broker: "AbstractContextManager[broker_containers.Broker]"
) -> Iterator[Broker]:
    from broker_images import BrokersUnavailable

    with ExitStack() as stack:
        try:
            with streaming(request.config):
                running = stack.enter_context(broker)
        except BrokersUnavailable as error:
            without(str(error))
        yield running


def pytest_configure() -> None:
    """Lets SIGINT through again: a run in the background has it ignored, and so would all processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


SECOND_HALF = frozenset({"consuming", "poison", "pulling", "notes", "stopping"})
"""Parts of the conformance suite that take about as long together as all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What pytest-xdist keeps in one process, with --dist loadgroup: a file, or of the conformance suite one colour.

    On the brokers that colour is cut in two, since its tests mostly wait, and the longest group decides how long all take.
    """
    for item in items:
        group = item.path.stem
        if hasattr(item, "callspec") and (colour := item.callspec.params.get("colour")):
            part = item.function.__module__.rpartition(".")[2] if isinstance(item, pytest.Function) else ""
            half = " second half" if part in SECOND_HALF and group in ("test_kafka", "test_rabbitmq") else ""
            group = f"{group} {colour}{half}"
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were skipped, a line for each reason. What a backend does not claim stands below the promises' table."""
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if not missing(report)]
    for reason, times in Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped).items():
        terminalreporter.write_line(f"skipped: {times} x {reason}")


def missing(report: pytest.TestReport) -> object:
    """What its backend lacks for it, if it is of the conformance suite."""
    return dict(report.user_properties).get("missing")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Gets missing images before the first test: minutes of building would count as that test's time."""
    if session.config.option.collectonly:
        return
    from broker_images import BrokerName, BrokersUnavailable, provide

    wanted: dict[str, BrokerName] = {}
    fixtures = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "rabbitmq_broker" in fixtures and not given("MQKIT_TEST_AMQP_URL"):
        wanted["rabbitmq_broker"] = "rabbitmq"
    if "rabbitmq_old_broker" in fixtures:
        wanted["rabbitmq_old_broker"] = "rabbitmq-old"
    if "kafka_broker" in fixtures and not given("MQKIT_TEST_KAFKA_URL"):
        wanted["kafka_broker"] = "kafka"
    if wanted:
        try:
            with streaming(session.config):
                provide(*wanted.values())
        except BrokersUnavailable:
            return  # the fixtures meet it again, and say so for each test
