"""Which backend answers to a URL."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mqkit.backend import BackendSpec, Capabilities
from mqkit.backends.kafka import options as kafka_options
from mqkit.backends.memory.backend import MemoryBackend
from mqkit.backends.rabbitmq import options as rabbitmq_options
from mqkit.backends.sqlite import url as sqlite_url
from mqkit.errors import ConfigurationError
from mqkit.registry import Backends, masked, scheme_of, split_url


class Both:
    capabilities = Capabilities()

    def __init__(self, url: str) -> None:
        self.url = url


def spec(name: str = "x", **changes: Any) -> BackendSpec:
    here = f"{__name__}:Both"
    given: dict[str, Any] = {
        "summary": "",
        "schemes": (name,),
        "example_url": f"{name}://",
        "capabilities": Capabilities(),
        "blocking": here,
    }
    return BackendSpec(name=name, **given | changes)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.parametrize(
    ("url", "scheme"), [("memory://", "memory"), ("AMQP://h", "amqp"), ("sqlite:///a:b", "sqlite")]
)
def test_the_scheme_of_a_url(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize("url", ["", "localhost", "://x", "/path"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="scheme"):
        scheme_of(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:secret@host:5672/v", "amqp://user:***@host:5672/v"),
        ("amqp://user@host", "amqp://user@host"),
        ("kafka://u:secret@a:1,b:2", "kafka://u:***@a:1,b:2"),
        ("amqp://u:se%40cret@h", "amqp://u:***@h"),
        ("sqlite:///mqkit.db", "sqlite:///mqkit.db"),
        ("memory://", "memory://"),
        ("sqlite:///mqkit.db?lease=5", "sqlite:///mqkit.db?lease=5"),
        ("kafka://h?ssl=yes", "kafka://h?ssl=yes"),
        ("sqlite:///a@b:c.db", "sqlite:///a@b:c.db"),
        ("amqp://h?heartbeat=5&management=http://u:secret@h:1", "amqp://h?heartbeat=5&management=***"),
        ("amqp://u:sec@ret@h", "amqp://u:***@h"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "kafka://h?sasl.password=secret",
        "kafka://h?x=1&ssl_key_password=secret",
        "amqp://u:secret@[::1",
        "amqp://h?u=a:secret@b",
        "amqp://h?management=http%3A%2F%2Fa%3Asecret%40h%3A1",
        "amqp://h?management=http%3A%2F%2Fa:secret@h:1",
        "kafka://h?rdkafka.ssl%2Epassword=secret",
        "kafka://h?rdkafka.ssl.key.pem=secret",
        "kafka://h?rdkafka.sasl.jaas.config=secret",
        "kafka://h?sasl.oauthbearer.config=secret",
        "amqp:u:secret@h",
        "amqp:/u:secret@h/",
        "kafka:/h?sasl.password=secret",
        "amqp://u:secret",
    ],
)
def test_a_password_is_masked_wherever_it_stands(url: str) -> None:
    assert "secret" not in masked(url)


PARTS = ("Tr0ub4", "dorX9")
"""Of a password, before and behind the character that does not belong into a URL as it is."""


def put_into(url: str, character: str) -> str:
    return url.replace("SECRET", character.join(PARTS))


def said_by(call: Callable[[str], object], url: str) -> str:
    """All that is written about `url`: what comes of it, or the error with its traceback and causes."""
    try:
        found = call(url)
    except ConfigurationError:
        return traceback.format_exc().replace(url, "")
    return f"{found!r} {found}"


@pytest.mark.parametrize(
    "character", ["/", "?", "#", "[", "]", "@", "%", ":", "&", "=", " ", "//", "\u2100", "?a=", "#@"]
)
@pytest.mark.parametrize(
    "read",
    [masked, split_url, rabbitmq_options.parse_url, kafka_options.parse_url, sqlite_url.parse, MemoryBackend],
    ids=lambda read: f"{read.__module__}.{read.__qualname__}",
)
@pytest.mark.parametrize(
    "url",
    [
        "SCHEME://till:SECRET@host/",
        "SCHEME://till:SECRET@host:5672/shop?heartbeat=x&client_id=",
        "SCHEME://till:SECRET:host",
        "SCHEME://till:12SECRET@host",
        "SCHEME://host/?management=http://till:SECRET@host:15672",
    ],
)
def test_what_is_said_of_a_url_shows_nothing_of_its_password(
    url: str, read: Callable[[str], object], character: str
) -> None:
    schemes: dict[object, str] = {
        rabbitmq_options.parse_url: "amqp",
        sqlite_url.parse: "sqlite",
        MemoryBackend: "memory",
    }
    url = put_into(url, character).replace("SCHEME", schemes.get(read, "kafka"))
    text = said_by(read, url) if read is not split_url else said_by(lambda url: split_url(url).scheme, url)
    assert not [part for part in PARTS if part in text and f"@{part}:host" not in url]  # that one is a host


@pytest.mark.parametrize("character", ["/", "?", "#", "[", "]"])
@pytest.mark.parametrize("read", [rabbitmq_options.parse_url, kafka_options.parse_url])
def test_a_character_of_the_password_that_ends_it_is_an_error_that_says_how_to_write_it(
    character: str, read: Callable[[str], object]
) -> None:
    with pytest.raises(ConfigurationError, match=r"password .* as %2F %3F %23 %5B %5D"):
        read(put_into("kafka://till:SECRET@host/", character))


def test_a_url_in_quotation_marks_is_refused_by_that_name() -> None:
    with pytest.raises(ConfigurationError, match="quotation mark") as caught:
        Backends([spec()]).spec('"x://till:secret@h/"')
    assert "secret" not in str(caught.value)


def test_a_backend_comes_in_the_colour_preferred_if_it_has_that() -> None:
    here = f"{__name__}:Both"
    backends = Backends([spec("one"), spec("two", asynchronous=here), spec("three", asynchronous=here, blocking=None)])
    assert backends.open("one://h", "asynchronous")[0] == "blocking"
    assert backends.open("two://h", "asynchronous")[0] == "asynchronous"
    assert backends.open("two://h", "blocking")[0] == "blocking"
    colour, backend = backends.open("three://h?x=1", "blocking")
    assert colour == "asynchronous"
    assert isinstance(backend, Both)
    assert backend.url == "three://h?x=1"


def test_a_scheme_that_nobody_answers_to_lists_those_that_are_there() -> None:
    with pytest.raises(ConfigurationError, match=r"no backend answers to 'nats' URLs; there is one://, two://"):
        Backends([spec("two"), spec("one")]).spec("nats://h")


def test_a_scheme_is_claimed_once() -> None:
    with pytest.raises(ConfigurationError, match="'x' is claimed by two backends: 'x' and 'y'"):
        Backends([spec("x"), spec("y", schemes=("x",))])


def test_a_backend_without_a_colour_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither"):
        Backends([spec(blocking=None)])


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        ("import no_such_driver", {"extra": "mqkit[x]"}, r"needs its driver, no_such_driver: pip install 'mqkit\[x\]'"),
        ("import no_such_driver", {}, "cannot be imported"),
        ("raise RuntimeError('broken')", {}, "RuntimeError: broken"),
        ("", {}, "there is no broken_backend:Backend"),
    ],
)
def test_a_backend_that_cannot_be_imported_is_named(
    source: str, changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_backend.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_backend", raising=False)
    with pytest.raises(ConfigurationError, match=said):
        Backends([spec(blocking="broken_backend:Backend", **changes)]).open("x://", "blocking")
