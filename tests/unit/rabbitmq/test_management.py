"""Where the management API is asked, and with what: a password goes nowhere that it was not meant to go."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

import pytest

from mqkit.backends.rabbitmq.management import Management
from mqkit.backends.rabbitmq.options import parse_url
from mqkit.errors import ConfigurationError


class Heard(HTTPServer):
    """A server for requests, and whom each came from."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.logins: list[str] = []
        self.elsewhere = ""
        """Where to send whoever asks."""
        self.status = 200


class Answer(BaseHTTPRequestHandler):
    """As a broker without queues."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Heard)
        login = self.headers.get("Authorization", "").removeprefix("Basic ")
        self.server.logins.append(base64.b64decode(login).decode())
        self.send_response(302 if self.server.elsewhere else self.server.status)
        if self.server.elsewhere:
            self.send_header("Location", self.server.elsewhere)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *args: object) -> None:
        """Not to the screen."""


@pytest.fixture
def server() -> Iterator[Heard]:
    yield from serve()


@pytest.fixture
def other() -> Iterator[Heard]:
    yield from serve()


def serve() -> Iterator[Heard]:
    with Heard() as heard:
        thread = threading.Thread(target=heard.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield heard
        heard.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("amqp://u:p@h/", "http://h:15672/api/"),
        ("amqps://u:p@h/", "https://h:15671/api/"),
        ("amqps://u:p@[::1]:5/", "https://[::1]:15671/api/"),
        ("amqps://u:p@h/?management=https://x:1/path", "https://x:1/path/api/"),
        ("amqps://u:p@h/?management=http://a:b@x:1", "http://x:1/api/"),
    ],
)
def test_an_encrypted_url_is_asked_about_over_an_encrypted_way_unless_it_says_otherwise(url: str, asked: str) -> None:
    assert Management(parse_url(url))._base == asked


def test_a_management_url_that_would_send_the_password_of_an_encrypted_one_in_clear_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"would send the password of amqps:// in clear: write https://"
    ) as told:
        parse_url("amqps://u:secret@h/?management=http://x:15672")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("password", ["p/w", "p%2Fw", "p#?@:[] %", "пароль"])
def test_a_percent_encoded_password_arrives_as_it_is(server: Heard, password: str) -> None:
    management = quote(f"http://ops:{quote(password, safe='')}@127.0.0.1:{server.server_port}", safe="")
    found = asyncio.run(Management(parse_url(f"amqp://u:p@h/?management={management}")).queues())
    assert (found, server.logins) == ({}, [f"ops:{password}"])


def test_a_password_follows_no_redirect_and_goes_through_no_proxy(
    server: Heard, other: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.elsewhere = f"http://127.0.0.1:{other.server_port}/"
    monkeypatch.setenv("http_proxy", server.elsewhere)
    url = parse_url(f"amqp://u:secret@h/?management=http://127.0.0.1:{server.server_port}")
    assert asyncio.run(Management(url).queues()) is None
    assert (server.logins, other.logins) == (["u:secret"], [])


def test_no_password_is_shown_by_what_is_made_of_a_url() -> None:
    url = parse_url("amqps://u:secret@h/?management=https://a:secret@h&keyfile=secret")
    assert "secret" not in f"{url!r} {url} {Management(url)!r}"


def test_what_could_not_be_asked_is_told_with_the_reason_and_without_a_password(server: Heard) -> None:
    server.status = 401
    management = quote(f"http://ops:secret@127.0.0.1:{server.server_port}", safe="")
    asked = Management(parse_url(f"amqp://u:hidden@h:7/?management={management}"))
    assert asyncio.run(asked.policies()) is None
    said = asked.unseen("policies", "policies")
    assert said.startswith(
        "RabbitMQ at h:7: could not look at policies, as its management API at "
        f"http://127.0.0.1:{server.server_port}/api/policies gave no answer (HTTP Error 401: Unauthorized): "
    )
    assert "?management=http://host:port" in said
    assert "secret" not in said
    assert "hidden" not in said


def test_a_management_api_that_nobody_listens_at_is_told_as_such() -> None:
    asked = Management(parse_url("amqp://u:p@h/?management=http://127.0.0.1:1"))
    assert asyncio.run(asked.queues()) is None
    assert "refused" in asked.unseen("which groups there are", "queues")
