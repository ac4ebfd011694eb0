"""What a sqlite URL says."""

import math
import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from mqkit.backends.sqlite import MAX_MESSAGE_BYTES
from mqkit.errors import ConfigurationError
from mqkit.registry import masked, split_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The file, and the options behind the question mark."""

    path: str
    """Absolute."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    busy_timeout: float = 5.0
    """Seconds to wait while another process holds the file's lock, before the session counts as lost."""
    lease: float = 30.0
    """Seconds after which a member that shows no sign of life loses its messages, although its process is there."""


KNOWN: Final = ("busy_timeout", "lease", "max_message_bytes")


def parse(url: str) -> Options:
    """Read `sqlite:///relative.db?lease=30`.

    Raises:
        ConfigurationError: it makes no sense; the text says what is wrong.
    """
    parts = split_url(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.netloc:
        raise ConfigurationError(f"{masked(url)!r}: three slashes before a relative path, four before an absolute one")
    if parts.fragment or not path or path.endswith("/"):
        raise ConfigurationError(f"{masked(url)!r} names no file: write sqlite:///mqkit.db")
    if path == ":memory:":
        raise ConfigurationError(f"{masked(url)!r}: for work in memory there is memory://")
    numbers: dict[str, float] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in KNOWN:
            raise ConfigurationError(f"{masked(url)!r}: no option {name!r}; there is {', '.join(KNOWN)}")
        try:
            numbers[name] = float(text)
        except ValueError:
            numbers[name] = 0
        if not (math.isfinite(numbers[name]) and numbers[name] > 0):
            raise ConfigurationError(f"{masked(url)!r}: {name} is a number above zero, not {text!r}")
    limit = int(numbers.pop("max_message_bytes", MAX_MESSAGE_BYTES))
    return Options(path=os.path.abspath(path), max_message_bytes=limit, **numbers)  # noqa: PTH100 - the path stays text
