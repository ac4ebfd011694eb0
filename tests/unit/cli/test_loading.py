"""From `module:attribute` to an app; what goes wrong in a process of its own stands in integration/test_cli_errors."""

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mqkit.cli.loading import load_app, topics_of
from mqkit.errors import ConfigurationError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current directory."""
    name = f"shop_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        "from types import SimpleNamespace\n"
        "from mqkit import AsyncApp, Topic\n"
        "purchases, bills, refunds = Topic('purchases'), Topic('bills'), Topic('refunds')\n"
        "services = SimpleNamespace(shop=AsyncApp('sqlite:///own.db'), topics=[purchases, bills])\n"
        "app = AsyncApp()\n"
        "@app.subscribe(purchases, group='billing', publish=services.topics[1])\n"
        "async def bill(purchase): ...\n"
        "del purchases, bills\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def test_the_attribute_is_app_if_none_is_named(module: str) -> None:
    assert load_app(module) is load_app(f"{module}:app")


def test_an_attribute_of_an_attribute_can_be_named(module: str) -> None:
    assert load_app(f"{module}:services.shop").settings.url == "sqlite:///own.db"


def test_a_url_goes_before_the_one_in_the_code(module: str) -> None:
    app = load_app(f"{module}:services.shop", "memory://")
    assert app.settings.url == "memory://"
    assert app.engine.arguments["url"] == "memory://"


def test_the_topics_of_an_app_are_those_of_its_module_and_of_its_handlers(module: str) -> None:
    assert sorted(topics_of(module, load_app(module))) == ["bills", "purchases", "refunds"]


def test_an_error_names_the_innermost_line_of_the_users_own(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("import json\n\ndef read():\n    return json.loads('{')\n\nread()\n")
    with pytest.raises(ConfigurationError, match=rf"{module}\.py, line 4"):
        load_app(module)
