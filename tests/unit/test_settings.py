"""Configuration: who decides, and what is refused."""

import traceback
from pathlib import Path
from typing import Any

import pytest

from mqkit import AsyncApp, Retry, Topic
from mqkit.errors import ConfigurationError
from mqkit.handler import HandlerOptions
from mqkit.settings import DEFAULT_URL, GroupPolicy, load, provenance


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MQKIT_URL", "MQKIT_SERVICE", "MQKIT_DISABLED_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_arguments_go_before_the_environment_before_the_file_before_defaults(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load({}).url == DEFAULT_URL
    (elsewhere / "mqkit.toml").write_text('url = "memory://file"\nservice = "file"\nversion = "file"\n')
    monkeypatch.setenv("MQKIT_URL", "memory://environment")
    monkeypatch.setenv("MQKIT_SERVICE", "environment")
    arguments = {"url": "memory://argument", "service": None}
    settings = load(arguments)
    assert (settings.url, settings.service, settings.version) == ("memory://argument", "environment", "file")
    told = provenance(settings, arguments)
    assert (told["url"], told["service"], told["version"], told["grace"]) == (
        "argument",
        "environment",
        "mqkit.toml",
        "default",
    )


def test_nested_settings_of_the_environment_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQKIT_GROUPS", '{"a.b": {"concurrency": 3}}')
    settings = load({})
    assert settings.groups["a.b"].concurrency == 3
    assert provenance(settings, {})["groups"] == "environment"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("urll = 'x'", "urll"),
        ("publish_timeout = 0", "publish_timeout"),
        ("grace = -1", "grace"),
        ("max_body_bytes = 'many'", "max_body_bytes"),
        ("url =", "mqkit.toml"),
        ('[groups."a.b"]\nconcurency = 1', "groups.a.b.concurency"),
        ('[groups."a.b"]\nretry = { attempts = 0 }', "groups.a.b.retry.attempts"),
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_named(text: str, named: str, elsewhere: Path) -> None:
    (elsewhere / "mqkit.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=named):
        load({})


def test_what_the_environment_says_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQKIT_GROUPS", "{")
    with pytest.raises(ConfigurationError, match="groups"):
        load({})


def test_disabled_plugins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    monkeypatch.setenv("MQKIT_DISABLED_PLUGINS", "kafka, rabbitmq,,")
    assert load({}).disabled_plugins == ("kafka", "rabbitmq")
    monkeypatch.delenv("MQKIT_DISABLED_PLUGINS")
    (elsewhere / "mqkit.toml").write_text('disabled_plugins = ["sqlite"]')
    assert load({}).disabled_plugins == ("sqlite",)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load({}).url = "memory://"  # type: ignore[misc] # that is the point


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, HandlerOptions()),
        ({"concurrency": 3, "timeout": 5}, HandlerOptions(concurrency=3, timeout=5)),
        ({"retry": {"attempts": 9}}, HandlerOptions(retry=Retry(attempts=9))),
        (
            {"retry": {"wait_max": 5, "inline": 1}, "ordering": "key"},
            HandlerOptions(retry=Retry(wait_max=5, inline=1), ordering="key"),
        ),
        ({"prefetch": 0, "grace": 0}, HandlerOptions(prefetch=0, grace=0)),
    ],
)
def test_a_policy_changes_what_it_names_and_nothing_else(policy: dict[str, Any], expected: HandlerOptions) -> None:
    assert GroupPolicy(**policy).apply(HandlerOptions()) == expected


def test_operators_tune_a_group_without_a_release(elsewhere: Path) -> None:
    (elsewhere / "mqkit.toml").write_text('[groups."orders.billing"]\nconcurrency = 64\nretry = { attempts = 10 }\n')
    app = AsyncApp("memory://")
    orders = Topic("orders", dict)
    app.subscribe(orders, group="billing", concurrency=2, prefetch=7, retry=Retry(wait_max=9))(lambda order: None)
    app.subscribe(orders, group="other")(lambda order: None)
    billing, other = app.registrations
    assert (billing.options.concurrency, billing.options.prefetch) == (64, 7)
    assert billing.options.retry == Retry(attempts=10, wait_max=9)
    assert other.options == HandlerOptions()


@pytest.mark.parametrize("url", ["amqp://u:hidden@h/", "kafka://u:hid/hidden@h"])
def test_settings_are_shown_without_their_password(url: str) -> None:
    settings = load({"url": url, "service": "till"})
    assert "hidden" not in f"{settings!r} {settings}"
    assert "till" in repr(settings)


def test_an_error_of_the_settings_shows_no_password_even_in_its_traceback() -> None:
    password = "hidden"
    with pytest.raises(ConfigurationError) as caught:
        load({"url": [f"amqp://u:{password}@h/"]})
    assert password not in "".join(traceback.format_exception(caught.value))
