"""Plugins, as real distributions on a path of their own, each found by a fresh process."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mqkit.errors import ConfigurationError
from mqkit.hookspecs import hookimpl
from mqkit.plugins import Plugins

SOUND = """
from mqkit import hookimpl
@hookimpl
def mqkit_listeners():
    return [print]
"""
BACKEND = """
from mqkit import hookimpl
from mqkit.backend import BackendSpec, Capabilities
@hookimpl
def mqkit_backends():
    return [BackendSpec(name={name!r}, summary="", schemes=({scheme!r},), example_url="", capabilities=Capabilities(), blocking="x:Y")]
"""


class Shelf:
    """Small distributions in a folder: a module, and the metadata that an installer would write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, distribution: str, source: str, *, name: str = "", module: str = "", shelf: str = "") -> None:
        folder = self.folder / shelf
        module = module or f"plugin_{distribution.replace('-', '_')}"
        info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[mqkit]\n{name or distribution} = {module}\n")
        (folder / f"{module}.py").write_text(source)

    def run(self, code: str, *shelves: str) -> str:
        """What a fresh process prints; a ConfigurationError is printed as its text."""
        paths = [str(self.folder / shelf) for shelf in (shelves or ("",))]
        script = f"import sys\nsys.path[:0] = {paths}\nfrom mqkit import ConfigurationError\n"
        script += "from mqkit.plugins import Plugins\ntry:\n" + "".join(f"    {line}\n" for line in code.splitlines())
        script += "except ConfigurationError as error:\n    print('ConfigurationError:', error)\n"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_plugin_is_found_by_its_entry_point_and_listed_with_its_distribution(shelf: Shelf) -> None:
    shelf.put("loud", SOUND)
    told = shelf.run(
        "print([p for p in Plugins().listing() if p.name == 'loud'], Plugins().collect('mqkit_listeners') == [print])"
    )
    assert told == "[PluginInfo(name='loud', distribution='loud', version='1.2', hooks=('mqkit_listeners',))] True"


def test_built_in_backends_come_through_the_same_door(shelf: Shelf) -> None:
    assert shelf.run("print(*sorted(Plugins().backends.specs))") == "amqp amqps kafka memory sqlite"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('out of paper')", "RuntimeError: out of paper"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def oops(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_distribution_and_what_to_do(
    source: str, said: str, shelf: Shelf
) -> None:
    shelf.put("broken-one", source)
    told = shelf.run("Plugins()")
    assert told.startswith(
        "ConfigurationError: plugin 'broken-one' of broken-one (plugin_broken_one) cannot be loaded: "
    )
    assert said in told
    assert "disable it by MQKIT_DISABLED_PLUGINS" in told
    assert shelf.run("print(len(Plugins(disabled=['broken-one']).listing()) > 0)") == "True"


def test_an_unknown_hook_is_named(shelf: Shelf) -> None:
    shelf.put("eager", SOUND.replace("mqkit_listeners", "mqkit_listenres"))
    told = shelf.run("Plugins()")
    assert told.startswith("ConfigurationError: plugin 'eager' cannot be registered: ")
    assert "mqkit_listenres" in told


def test_a_hook_with_arguments_that_it_does_not_get_is_named(shelf: Shelf) -> None:
    shelf.put("greedy", SOUND.replace("mqkit_listeners()", "mqkit_listeners(app)"))
    told = shelf.run("Plugins()")
    assert told.startswith("ConfigurationError: plugin 'greedy' cannot be registered: ")
    assert "app" in told


def test_one_name_for_two_plugins_names_both(shelf: Shelf) -> None:
    shelf.put("first", SOUND, name="same")
    shelf.put("second", SOUND, name="same")
    told = shelf.run("Plugins()")
    assert told.startswith("ConfigurationError: plugin 'same' is registered twice: ")
    assert "plugin_first" in told
    assert "plugin_second" in told


def test_one_distribution_seen_through_two_folders_is_one_plugin(shelf: Shelf) -> None:
    shelf.put("loud", SOUND, shelf="a")
    shelf.put("loud", SOUND, shelf="b")
    assert shelf.run("print([p.name for p in Plugins().listing()].count('loud'))", "a", "b") == "1"


def test_two_backends_of_one_name_or_scheme_are_named(shelf: Shelf) -> None:
    shelf.put("one", BACKEND.format(name="nats", scheme="nats"))
    shelf.put("two", BACKEND.format(name="nats", scheme="nats2"))
    assert shelf.run("Plugins()") == "ConfigurationError: plugin 'one' registers backend 'nats' a second time" or (
        shelf.run("Plugins()") == "ConfigurationError: plugin 'two' registers backend 'nats' a second time"
    )
    assert "claimed by two backends: 'memory' and 'other'" in shelf_with_other(shelf).run(
        "Plugins(disabled=['one', 'two'])"
    ).replace("'other' and 'memory'", "'memory' and 'other'")


def shelf_with_other(shelf: Shelf) -> Shelf:
    shelf.put("three", BACKEND.format(name="other", scheme="memory"))
    return shelf


def test_what_is_disabled_must_be_installed() -> None:
    with pytest.raises(ConfigurationError, match="plugin 'no-such-plugin' is disabled but not installed"):
        Plugins(disabled=["no-such-plugin", "sqlite"])


def test_a_url_that_nobody_answers_to_lists_the_schemes() -> None:
    with pytest.raises(ConfigurationError, match=r"'nats'.*there is amqp://, amqps://, kafka://, memory://, sqlite://"):
        Plugins().backends.open("nats://h", "asynchronous")


def test_a_disabled_backend_does_not_answer() -> None:
    with pytest.raises(ConfigurationError, match="'sqlite'"):
        Plugins(disabled=["sqlite"]).backends.spec("sqlite:///x")


class Fails:
    @hookimpl
    def mqkit_codecs(self) -> object:
        raise ZeroDivisionError("oops")


class AnswersNothing:
    @hookimpl
    def mqkit_codecs(self) -> object:
        return None


class AnswersOneThing:
    @hookimpl
    def mqkit_codecs(self) -> object:
        return "json"


class AnswersTheWrongThing:
    @hookimpl
    def mqkit_backends(self) -> object:
        return ["rabbitmq"]


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Fails(), "plugin 'Fails' failed in mqkit_codecs: ZeroDivisionError: oops"),
        (AnswersOneThing(), "plugin 'AnswersOneThing' must return a list, not str"),
        (AnswersTheWrongThing(), "plugin 'AnswersTheWrongThing' registers 'rabbitmq', which has no 'schemes'"),
    ],
)
def test_a_hook_that_fails_or_answers_nonsense_is_named(plugin: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Plugins([plugin])


def test_a_hook_may_answer_nothing() -> None:
    assert Plugins([AnswersNothing()]).codecs.by_type


def test_the_same_plugin_object_twice_is_named() -> None:
    plugin = AnswersNothing()
    with pytest.raises(ConfigurationError, match="AnswersNothing"):
        Plugins([plugin, plugin])


class StartsNothing:
    @hookimpl
    def mqkit_startup(self, app: object) -> Generator[None]:
        yield


def test_a_hook_that_would_run_nothing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="plugin 'StartsNothing': its mqkit_startup contains `yield`"):
        Plugins([StartsNothing()])
