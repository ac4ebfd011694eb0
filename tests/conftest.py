"""The broker fixtures. Each broker is started when a test first asks for it, and serves the rest of the run.

MQKIT_TEST_AMQP_URL and MQKIT_TEST_KAFKA_URL name brokers to use instead of starting some.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from mqkit.testing.promises import MARK as PROMISE
from mqkit.testing.short import split
from tests.brokers import Broker, given, streaming, without
from tests.sharing import Sharing

if TYPE_CHECKING:
    from broker_images import BrokerName


# CI plays the same examples each time, so that a landing depends on the change alone; everybody else looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("developer", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


OWN = "own_broker"
"""The mark of a test that stops its broker, or does to it what others would feel, or looks at all that it holds: it gets
one that is shared with nobody but tests of the same kind, in one process."""
DISTURBING = frozenset({"interrupt", "disconnect"})
"""The abilities of a harness that are of that kind."""
SHARING = pytest.StashKey["Sharing"]()


@pytest.fixture
def rabbitmq_broker(request: pytest.FixtureRequest) -> Broker:
    """RabbitMQ, the newest release line."""
    return given("MQKIT_TEST_AMQP_URL") or one(request, "rabbitmq")


@pytest.fixture
def rabbitmq_old_broker(request: pytest.FixtureRequest) -> Broker:
    """RabbitMQ, the oldest release line that mqkit supports."""
    return one(request, "rabbitmq-old")


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest) -> Broker:
    """One node of Kafka."""
    return given("MQKIT_TEST_KAFKA_URL") or one(request, "kafka")


def one(request: pytest.FixtureRequest, name: "BrokerName") -> Broker:
    """The broker for this test: the run's, or its process's own."""
    from broker_images import BrokersUnavailable

    try:
        if needs_its_own(request.node):
            own: Callable[[BrokerName], Broker] = request.getfixturevalue("own_brokers")
            return own(name)
        with streaming(request.config):
            return request.config.stash[SHARING].broker(name)
    except BrokersUnavailable as error:
        without(str(error))


def needs_its_own(item: pytest.Item) -> bool:
    """Whether the test must not share its broker."""
    needs = {need for mark in item.iter_markers(PROMISE) for need in mark.kwargs["needs"]}
    at_a_broker = any(name.endswith("_broker") for name in getattr(item, "fixturenames", ()))
    return item.get_closest_marker(OWN) is not None or (at_a_broker and not needs.isdisjoint(DISTURBING))


@pytest.fixture(scope="session")
def own_brokers(request: pytest.FixtureRequest) -> "Iterator[Callable[[BrokerName], Broker]]":
    """Starts a broker of this process's own, or finds the one that it has."""
    from broker_containers import kafka, rabbitmq

    found: dict[str, Broker] = {}
    with ExitStack() as stack:

        def own(name: "BrokerName") -> Broker:
            if name not in found:
                with streaming(request.config):
                    starting = kafka() if name == "kafka" else rabbitmq("4.0" if name == "rabbitmq-old" else "4.3")
                    found[name] = stack.enter_context(starting)
            return found[name]

        yield own


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells each process that pytest-xdist starts which brokers are the run's."""
    sharing: Sharing = node.config.stash[SHARING]
    node.workerinput["brokers"] = (sharing.folder, sharing.owner)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the brokers, when this is the run's main process."""
    if not hasattr(config, "workerinput"):
        config.stash[SHARING].remove()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which tests are run."""
    parser.addoption("--all", action="store_true", help="run in full what else runs in a short form: see SHORT")


def pytest_configure(config: pytest.Config) -> None:
    """Lets SIGINT through again: a run in the background has it ignored, and so would all processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", f"{OWN}: its broker is shared with no other process")
    told: Any = getattr(config, "workerinput", None)
    config.stash[SHARING] = Sharing(*told["brokers"]) if told else Sharing.of_this_process()


IN_ONE_PROCESS = frozenset({"test_extension"})
"""Files whose tests share what took long to make."""
BY_ITSELF = ("conformance", "integration", "journeys")
"""Folders whose tests mostly wait for a broker: each goes to whatever process is free."""


SHORT = {"test_rabbitmq_old": ("AsyncApp",), "test_kafka": ("App",), "test_rabbitmq": ("App",)}
"""Conformance suites, and their apps, of which one test for each promise is run: what an old broker may do otherwise, they
all meet; and what stands between the apps and a broker is the same code, which the other app tests in full."""


def runs_in_short(item: pytest.Item) -> bool:
    """Whether the test is of a suite that runs in a short form."""
    colours = SHORT.get(item.path.stem, ()) if item.path.parent.name == "conformance" else ()
    return isinstance(item, pytest.Function) and bool(colours) and item.callspec.params.get("colour") in colours


def pytest_itemcollected(item: pytest.Item) -> None:
    """What pytest-xdist keeps in one process, with --dist loadgroup: a file; elsewhere what needs brokers of its own.

    It is said here, since pytest-xdist reads it before `pytest_collection_modifyitems` comes to us.
    """
    if needs_its_own(item):
        group = "kafka" if "kafka" in item.nodeid else "rabbitmq"
        item.add_marker(pytest.mark.xdist_group(f"own {group}"))
    elif item.path.parent.name not in BY_ITSELF or item.path.stem in IN_ONE_PROCESS:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begins with what needs brokers of its own, for it takes long, and leaves out what a short form does."""
    if not config.getoption("--all"):
        _, left_out = split(filter(runs_in_short, items))
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: not needs_its_own(item))


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
