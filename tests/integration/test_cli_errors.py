"""Every way to get the command line wrong: an exit code, one sentence, what to do; never a traceback unasked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import CommandLine, interrupt, until

MODULES = {
    "shop": "from mqkit import AsyncApp, Topic\npurchases = Topic('purchases', dict)\napp = AsyncApp()\n",
    "working": (
        "from mqkit import AsyncApp, Topic\napp = AsyncApp()\n\n"
        "@app.subscribe(Topic('t'), group='g')\nasync def work(payload: object) -> None: ...\n"
    ),
    "named": "from mqkit import AsyncApp\nservice = AsyncApp()\n",
    "empty": "x = 1\n",
    "raising": "import json\n\njson.loads('{')\n",
    "syntax": "x = 1\ndef f(:\n",
    "lacking": "import no_such_driver\n",
    "ending": "import sys\nsys.exit(3)\n",
    "wrong": "from mqkit import Topic\n\nTopic('a b')\n",
}


@pytest.fixture
def mqkit(tmp_path: Path) -> CommandLine:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return CommandLine(tmp_path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", ["no module 'nowhere'", "run mqkit where nowhere is"]),
        ("nowhere.deeper:app", ["no module 'nowhere'"]),
        ("shop.deeper", ["no module 'shop.deeper'"]),
        ("shop.py", ["'shop.py' is a file", "shop:app"]),
        ("sh op", ["not a module's name"]),
        ("named", ["has no 'app'", "write named:service"]),
        ("empty", ["no 'app'", "app = AsyncApp()"]),
        ("shop:purchases", ["is a Topic, neither an App nor an AsyncApp"]),
        ("shop:app", ["nothing to run", "@app.subscribe"]),
        ("raising", ["JSONDecodeError", "raising.py, line 3", "mend that line"]),
        ("syntax", ["SyntaxError", "syntax.py, line 2"]),
        ("lacking", ["no_such_driver", "lacking.py, line 1", "install it"]),
        ("ending", ["ends the process", "ending.py, line 2", "__main__"]),
        ("wrong", ["topic name 'a b'", "wrong.py, line 3"]),
    ],
)
def test_an_app_that_cannot_be_found_is_explained(mqkit: CommandLine, path: str, said: list[str]) -> None:
    sentence = mqkit.refused("run", path)
    assert [part for part in said if part not in sentence] == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", ["'nonsense' is not a URL", "sqlite:///mqkit.db"]),
        ("smoke://signals", ["no backend answers to 'smoke'", "amqp://", "install a plugin"]),
        ("amqp://me:secret@127.0.0.1:1/", ["127.0.0.1:1", "start the broker", "--url"]),
        ("kafka://127.0.0.1:1/", ["127.0.0.1:1", "start the broker", "--url"]),
        ("sqlite:///no/such/folder/x.db", ["no/such/folder", "make it"]),
        ("sqlite:///x.db?speed=11", ["no option 'speed'", "lease"]),
    ],
)
@pytest.mark.parametrize("command", [["inspect"], ["dlq", "list", "t", "g"], ["run", "working"]], ids=" ".join)
def test_a_broker_that_cannot_be_reached_is_explained(
    mqkit: CommandLine, command: list[str], url: str, said: list[str]
) -> None:
    sentence = mqkit.refused(*command, "--url", url, env={"MQKIT_CONNECT_TIMEOUT": "2"})
    assert [part for part in said if part not in sentence] == []
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "nope"], ["'nope'", "orders"]),
        (["inspect", "nope", "billing"], ["'nope'", "orders"]),
        (["inspect", "orders", "nope"], ["'nope'", "billing"]),
        (["tail", "nope"], ["'nope'", "orders"]),
        (["publish", "nope", "{}"], ["'nope'", "orders", "--group"]),
        (["publish", "nope", "{}", "--app", "shop"], ["'nope'", "purchases"]),
        (["dlq", "list", "nope", "billing"], ["'nope'", "orders"]),
        (["dlq", "replay", "orders", "nope", "--all"], ["'nope'", "billing"]),
        (["dlq", "show", "orders", "billing", "nope"], ["no dead letter 'nope'", "mqkit dlq list orders billing"]),
    ],
)
def test_what_is_not_known_is_named_with_what_is(mqkit: CommandLine, arguments: list[str], said: list[str]) -> None:
    mqkit("publish", "orders", "{}", "--group", "billing")
    sentence = mqkit.refused(*arguments)
    assert [part for part in said if part not in sentence] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["publish", "t", "no json"], 1, ["the payload", "not JSON", "nothing was sent"]),
        (["publish", "t", "{}", "--key", "a", "--key-field", "b"], 2, ["--key and --key-field"]),
        (["publish", "t", "{}", "--file", "x"], 2, ["a payload and --file"]),
        (["publish", "t", "{}", "--header", "x"], 2, ["NAME=VALUE", "--header trace=42"]),
        (["publish", "t", "{}", "--key-field", "id"], 1, ["no key", "'id'"]),
        (["publish", "t", "--file", "nope"], 1, ["nope cannot be read"]),
        (["publish", "t"], 1, ["nothing to publish", "stdin"]),
        (["publish", "a b", "{}"], 1, ["topic name 'a b'"]),
        (["publish", "t", "{}", "--group", "g", "--header", "mqkit-x=1"], 1, ["'mqkit-x'", "choose another"]),
        (["inspect", "--url", "sqlite:///a.db", "--json", "t"], 1, ["no topic is known there yet"]),
        (["dlq", "replay", "t", "g"], 2, ["--all", "--id"]),
        (["dlq", "replay", "t", "g", "--all", "--key", "k"], 2, ["--all", "--id"]),
    ],
)
def test_options_that_make_no_sense_are_explained(
    mqkit: CommandLine, arguments: list[str], code: int, said: list[str]
) -> None:
    sentence = mqkit.refused(*arguments, code=code)
    assert [part for part in said if part not in sentence] == []


def test_a_topic_that_nobody_would_receive_is_explained(mqkit: CommandLine) -> None:
    sentence = mqkit.refused("publish", "purchases", "{}", "--app", "shop")
    assert "--group GROUP declares a group" in sentence


def test_usage_errors_have_the_exit_code_2(mqkit: CommandLine) -> None:
    assert "No such command 'nope'" in mqkit("nope", code=2).err
    assert "Missing argument" in mqkit("publish", code=2).err
    assert "--watch" in mqkit("inspect", "--watch", "often", code=2).err


@pytest.mark.parametrize(
    ("text", "said"),
    [("url =\n", "mqkit.toml"), ("urll = 'x'\n", "urll"), ("grace = 'long'\n", "grace"), ("\xff", "mqkit.toml")],
)
def test_a_broken_mqkit_toml_is_named(mqkit: CommandLine, text: str, said: str) -> None:
    (mqkit.cwd / "mqkit.toml").write_bytes(text.encode("latin-1"))
    assert said in mqkit.refused("inspect")
    assert said in mqkit("doctor", code=1).out


def test_tail_says_how_many_came_in_time(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", "{}", "--group", "billing")
    result = mqkit("tail", "orders", "--count", "2", "--timeout", "0.2", code=1)
    assert result.err.splitlines()[-1] == "error: 0 of 2 messages came to 'orders' within 0.2 s"
    assert mqkit("tail", "orders", "--timeout", "0.1").out == ""


def test_a_traceback_comes_when_asked_for(mqkit: CommandLine) -> None:
    asked = mqkit("run", "raising", "--traceback", code=1).err
    assert "Traceback" in asked
    assert "JSONDecodeError" in asked
    assert "Traceback" in mqkit("run", "raising", code=1, env={"MQKIT_TRACEBACK": "1"}).err


def test_an_interruption_ends_without_a_word(mqkit: CommandLine) -> None:
    with mqkit.started("inspect", "--watch", "0.1", "--json") as watch:
        until(watch.stdout, "groups")
        assert interrupt(watch) == 130
        assert watch.stderr is not None
        assert watch.stderr.read() == ""


def without(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line where `module` is not installed."""
    program = f"import sys; sys.modules[{module!r}] = None; from mqkit.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("MQKIT_")},
    )  # fmt: skip


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_its_extra_the_command_line_says_what_to_install(tmp_path: Path, module: str) -> None:
    done = without(module, "inspect", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("pip install 'mqkit[cli]'\n")


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [("confluent_kafka", "kafka://127.0.0.1:1/", "kafka"), ("aiormq", "amqp://127.0.0.1:1/", "rabbitmq")],
)
def test_without_a_driver_it_says_what_to_install(tmp_path: Path, module: str, url: str, extra: str) -> None:
    done = without(module, "inspect", "--url", url, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f"pip install 'mqkit[{extra}]'\n")


def test_importing_mqkit_imports_no_typer() -> None:
    program = "import mqkit, sys; print({'typer', 'rich', 'mqkit.cli'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
