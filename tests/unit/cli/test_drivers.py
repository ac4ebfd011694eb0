"""Which distributions an extra brings."""

from importlib.metadata import version

import pytest

from mqkit.cli.drivers import Driver, driver, drivers


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (None, set()),
        ("mqkit[kafka]", {"confluent-kafka"}),
        ("mqkit[rabbitmq]", {"aio-pika", "aiormq", "pika"}),
        ("mqkit[nothing]", set()),
        ("no-such-distribution[x]", {"no-such-distribution"}),
    ],
)
def test_an_extra_names_its_distributions(extra: str | None, names: set[str]) -> None:
    assert {found.name for found in drivers(extra)} == names


@pytest.mark.parametrize("requirement", ["rich", "rich>=13.9", "rich (>=13)", "rich ; extra == 'cli'", "rich[x]~=1"])
def test_a_requirement_names_one_distribution(requirement: str) -> None:
    assert driver(requirement) == Driver("rich", version("rich"))


def test_what_is_not_installed_has_no_version() -> None:
    assert driver("no-such-distribution>=1") == Driver("no-such-distribution", None)
