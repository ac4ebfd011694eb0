"""Which distributions a backend's extra brings, and which of them are installed."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Driver:
    """One distribution; `version` is None if it is not installed."""

    name: str
    version: str | None


def drivers(extra: str | None) -> tuple[Driver, ...]:
    """What `mqkit[kafka]` brings; nothing for None."""
    distribution, _, name = (extra or "").rstrip("]").partition("[")
    if not name:
        return ()
    try:
        needed = requires(distribution) or []
    except PackageNotFoundError:
        return (Driver(distribution, None),)
    return tuple(driver(found) for found in needed if (match := EXTRA.search(found)) and match[1] == name)


def driver(requirement: str) -> Driver:
    """The distribution that `aio-pika>=9.5` names."""
    match = NAME.match(requirement)
    assert match is not None, requirement
    try:
        return Driver(match[0], version(match[0]))
    except PackageNotFoundError:
        return Driver(match[0], None)
