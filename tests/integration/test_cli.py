"""The command line on SQLite, as a user types it."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import ANSI, CommandLine, interrupt, until

SHOP = """
from decimal import Decimal
from pathlib import Path
from pydantic import BaseModel
from mqkit import AsyncApp, Reject, Topic

class Purchase(BaseModel):
    customer: str
    cds: int
    dollars: Decimal = Decimal("9.90")

class Refund(BaseModel):
    customer: str

purchases = Topic("purchases", Purchase, key="customer")
refunds = Topic("refunds", Refund, key="customer", groups=["mail"])
app = AsyncApp()

@app.subscribe(purchases, group="billing", concurrency=3)
async def bill(purchase: Purchase) -> None:
    if purchase.cds > 5:
        raise Reject(f"too many: {purchase.cds}")
    with Path("billed").open("a") as file:
        file.write(purchase.customer + "\\n")
"""
ADA = '{"customer": "ada", "cds": 2}'
GREEDY = [json.dumps({"customer": name, "cds": 9}) for name in ("ann", "bob", "cid")]
DEADLINE = 30.0


def test_the_table_of_the_readme_is_what_the_backends_declare(mqkit: CommandLine) -> None:
    def rows(text: str) -> dict[str, dict[str, str]]:
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
        return {cells[0]: dict(zip(lines[0][2:], cells[2:], strict=True)) for cells in lines if cells[0][1:].isdigit()}

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    proved = rows(readme.partition("<!-- promises -->")[2].partition("<!-- /promises -->")[0])
    declared = rows(mqkit("backends", "--markdown").out)
    assert declared.keys() == proved.keys()
    for number, cells in declared.items():
        for backend, cell in cells.items():
            assert (cell == "yes") == (proved[number][backend] in {"yes", "in part"}), (number, backend)


@pytest.fixture
def mqkit(tmp_path: Path) -> CommandLine:
    (tmp_path / "shop.py").write_text(SHOP)
    return CommandLine(tmp_path)


@pytest.fixture
def dead(mqkit: CommandLine) -> CommandLine:
    """A shop with three dead letters of purchases.billing: ann, bob, cid."""
    mqkit("topology", "apply", "shop")
    mqkit("publish", "purchases", "--app", "shop", stdin="\n".join(GREEDY))
    with mqkit.started("run", "shop", "--json") as worker:
        for _ in GREEDY:
            until(worker.stderr, "dead-letter")
        assert interrupt(worker, signal.SIGTERM) == 0
    return mqkit


def counts(mqkit: CommandLine, topic: str = "purchases", group: str = "billing") -> dict[str, int]:
    (found,) = json.loads(mqkit("inspect", topic, group, "--json").out)
    return {name: found[name] for name in ("ready", "waiting", "dead")}


def letters(mqkit: CommandLine, *filters: str) -> dict[str, str]:
    """Key -> id of the dead letters."""
    found = json.loads(mqkit("dlq", "list", "purchases", "billing", "--json", *filters).out)
    return {letter["key"]: letter["id"] for letter in found}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_says_what_it_works_at_and_ends_well_at_a_signal(mqkit: CommandLine, number: int) -> None:
    with mqkit.started("run", "shop:app", "--json") as worker:
        ready = json.loads(until(worker.stdout, "ready"))
        mqkit("publish", "purchases", ADA, "--app", "shop")
        billed = mqkit.cwd / "billed"
        end = time.monotonic() + DEADLINE
        while not billed.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert interrupt(worker, number) == 0
        log = [json.loads(line) for line in worker.stderr or ()]

    assert billed.read_text() == "ada\n"
    assert ready["url"] == "sqlite:///mqkit.db"
    assert ready["broker"].startswith("SQLite")
    assert ready["handlers"] == [
        {
            "topic": "purchases",
            "group": "billing",
            "handler": "shop.bill",
            "concurrency": 3,
            "ordering": "none",
            "attempts": 5,
        }
    ]
    assert {"time", "level", "logger", "message"} <= log[0].keys()
    assert counts(mqkit) == {"ready": 0, "waiting": 0, "dead": 0}


def test_run_is_readable_for_people_and_takes_another_url(mqkit: CommandLine) -> None:
    with mqkit.started("run", "shop", "--url", "sqlite:///other.db", "--log-level", "warning") as worker:
        said = until(worker.stdout, "Working at sqlite:///other.db") + until(worker.stdout, "Ctrl-C")
        assert interrupt(worker) == 0
        assert worker.stderr is not None
        assert worker.stderr.read() == ""
    assert ANSI not in said
    assert (mqkit.cwd / "other.db").exists()
    assert not (mqkit.cwd / "mqkit.db").exists()


SLOW = """
import time
print("importing", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_soon_at_a_signal_while_the_service_is_imported(mqkit: CommandLine, number: int) -> None:
    (mqkit.cwd / "slow.py").write_text(SLOW)
    with mqkit.started("run", "slow") as worker:
        until(worker.stdout, "importing")
        assert interrupt(worker, number) == 0


def test_what_ends_a_command_ends_it_with_the_signal_s_code(mqkit: CommandLine) -> None:
    with mqkit.started("inspect", "--watch", "1") as watching:
        until(watching.stdout, "group")
        assert interrupt(watching, signal.SIGTERM) == 128 + signal.SIGTERM


CONFIGURED = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "formatters": {"own": {"format": "OWN %(name)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
    "root": {"level": "INFO", "handlers": ["own"]},
})
"""


def test_run_leaves_logging_to_a_service_that_configures_it_and_dead_letters_are_told(mqkit: CommandLine) -> None:
    (mqkit.cwd / "shop.py").write_text(SHOP + CONFIGURED)
    mqkit("publish", "purchases", GREEDY[0], "--app", "shop")
    with mqkit.started("run", "shop") as worker:
        assert "OWN mqkit dead-letter" in until(worker.stderr, "dead-letter")
        assert interrupt(worker, signal.SIGTERM) == 0


def test_one_message_is_published_to_groups_that_are_declared_with_it(mqkit: CommandLine) -> None:
    said = mqkit("publish", "orders", ADA, "--group", "billing", "--group", "mail", "--key", "ada").out
    assert said.startswith("published ")
    assert said.rstrip().endswith(" to orders")
    assert counts(mqkit, "orders", "billing")["ready"] == 1
    assert counts(mqkit, "orders", "mail")["ready"] == 1
    found = json.loads(mqkit("publish", "orders", ADA, "--json").out)
    assert list(found) == ["id"]


def test_a_delayed_message_waits(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", ADA, "--group", "billing", "--delay", "3600")
    assert counts(mqkit, "orders") == {"ready": 0, "waiting": 1, "dead": 0}


def test_nothing_of_a_wrong_batch_is_sent(mqkit: CommandLine) -> None:
    mqkit("topology", "apply", "shop")
    batch = f'{ADA}\n\n{{oops\n{{"customer": "eve"}}\n{ADA}\n'
    said = mqkit.refused("publish", "purchases", "--app", "shop", "-", stdin=batch)
    assert "line 3: the body is not JSON" in said
    assert "line 4: does not match Purchase: cds: Field required" in said
    assert "nothing was sent" in said
    assert "--skip-invalid" in said
    assert counts(mqkit)["ready"] == 0

    (mqkit.cwd / "batch.jsonl").write_text(batch)
    result = mqkit("publish", "purchases", "--app", "shop", "--file", "batch.jsonl", "--skip-invalid", "--json")
    told = [json.loads(line) for line in result.out.splitlines()]
    assert [t["line"] for t in told if "id" in t] == [1, 5]
    assert [t["line"] for t in told if "skipped" in t] == [3, 4]
    assert counts(mqkit)["ready"] == 2

    people = mqkit("publish", "purchases", "--app", "shop", "--file", "batch.jsonl", "--skip-invalid").out
    assert people == "published 2 of 4 messages to purchases\n"


def test_a_large_batch_keeps_its_order_and_stops_where_the_broker_refuses(mqkit: CommandLine) -> None:
    url = "sqlite:///small.db?max_message_bytes=100"
    lines = [json.dumps({"n": n}) for n in range(1_200)]
    lines[600] = json.dumps({"n": "x" * 200})
    result = mqkit(
        "publish", "numbers", "--group", "g", "--url", url, "--json", stdin="\n".join(lines), code=1
    )  # fmt: skip
    told = [json.loads(line) for line in result.out.splitlines()]
    assert [t["line"] for t in told] == list(range(1, 1_002))
    assert [t["line"] for t in told if "error" in t] == [601]
    assert "line 601: message of" in result.err
    assert "1 messages failed, 199 were not tried" in result.err


def test_tail_follows_what_is_published_with_its_key_and_headers(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", ADA, "--group", "billing")
    with mqkit.started("tail", "orders", "--json", "--count", "3", "--timeout", "60") as tail:
        until(tail.stderr, "following")
        mqkit("publish", "orders", ADA, "--key", "k", "--header", "trace=42", "--header", "a=b=c")
        mqkit("publish", "orders", "--key-field", "customer", stdin='{"customer": "bob"}\n{"customer": "cid"}')
        assert tail.stdout is not None
        seen = [json.loads(line) for line in tail.stdout]
        assert tail.wait() == 0
    assert [s["key"] for s in seen] == ["k", "bob", "cid"]
    assert seen[0]["headers"] == {"trace": "42", "a": "b=c"}
    assert json.loads(seen[0]["body"]) == json.loads(ADA)
    assert counts(mqkit, "orders")["ready"] == 4


def test_tail_is_pretty_for_people_and_harmless_to_their_terminal(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", "{}", "--group", "billing")
    with mqkit.started("tail", "orders", "--count", "1") as tail:
        until(tail.stderr, "following")
        mqkit("publish", "orders", '{"text": "\\u001b[31m[bold]"}', "--header", "evil=\x1b]0;x\x07")
        assert tail.stdout is not None
        seen = tail.stdout.read()
    assert '"text": "\\u001b[31m[bold]"' in seen
    assert "evil=\\x1b]0;x\\x07" in seen
    assert "\x1b" not in seen


def test_tail_ends_with_130_at_an_interruption(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", ADA, "--group", "billing")
    with mqkit.started("tail", "orders") as tail:
        until(tail.stderr, "following")
        assert interrupt(tail) == 130
        assert tail.stderr is not None
        assert tail.stderr.read() == ""


def test_topology_plan_and_apply_tell_by_their_exit_codes(mqkit: CommandLine) -> None:
    plan = mqkit("topology", "plan", "shop", code=2)
    assert "create" in plan.out
    assert plan.out.splitlines()[-1].endswith("to create: mqkit topology apply shop")
    elsewhere = mqkit("topology", "plan", "shop", "--url", "sqlite:///its own.db", code=2)
    assert elsewhere.out.splitlines()[-1].endswith("mqkit topology apply shop --url 'sqlite:///its own.db'")
    assert json.loads(mqkit("inspect", "--json").out) == []
    assert "purchases.billing" in mqkit("topology", "apply", "shop").out
    assert mqkit("topology", "plan", "shop").out.endswith("nothing to do\n")
    found = json.loads(mqkit("topology", "plan", "shop", "--json").out)
    assert {finding["action"] for finding in found["findings"]} == {"keep"}
    assert "created nothing" in mqkit("topology", "apply", "shop").out


def test_dead_letters_can_be_listed_filtered_and_shown(dead: CommandLine) -> None:
    assert list(letters(dead)) == ["ann", "bob", "cid"]
    assert list(letters(dead, "--key", "bob")) == ["bob"]
    assert list(letters(dead, "--limit", "2")) == ["ann", "bob"]
    assert letters(dead, "--reason", "exhausted") == {}
    assert len(letters(dead, "--reason", "rejected", "--error", "TOO many")) == 3
    ids = letters(dead)

    listed = dead("dlq", "list", "purchases", "billing").out
    assert [letter for letter in ids.values() if letter not in listed] == []
    assert ANSI not in listed

    shown = dead("dlq", "show", "purchases", "billing", ids["bob"]).out
    assert "too many: 9" in shown
    assert "shop.bill" in shown
    assert '"customer": "bob"' in shown
    document = json.loads(dead("dlq", "show", "purchases", "billing", ids["bob"], "--json").out)
    assert document["reason"] == "rejected"
    assert json.loads(document["body"])["customer"] == "bob"


def test_replay_sends_back_what_was_chosen_and_nothing_else(dead: CommandLine) -> None:
    ids = letters(dead)
    tried = dead("dlq", "replay", "purchases", "billing", "--all", "--dry-run").out
    assert "would have replayed 3 dead letters" in tried
    assert counts(dead) == {"ready": 0, "waiting": 0, "dead": 3}

    dead("dlq", "replay", "purchases", "billing", "--id", ids["bob"])
    assert list(letters(dead)) == ["ann", "cid"]
    found = json.loads(dead("dlq", "replay", "purchases", "billing", "--all", "--limit", "1", "--json").out)
    assert found == {"replayed": [ids["ann"]], "dry_run": False, "absent": []}
    assert counts(dead) == {"ready": 2, "waiting": 0, "dead": 1}
    assert ids["ann"] in dead.refused("dlq", "replay", "purchases", "billing", "--id", ids["ann"])


def test_purge_asks_before_it_deletes(dead: CommandLine) -> None:
    assert "--yes" in dead.refused("dlq", "purge", "purchases", "billing", "--all", code=2)
    assert counts(dead)["dead"] == 3
    no = dead.in_terminal("dlq", "purge", "purchases", "billing", "--all", typed="n\n")
    assert no.code == 1
    assert "Delete 3 dead letters" in no.out
    assert counts(dead)["dead"] == 3
    yes = dead.in_terminal("dlq", "purge", "purchases", "billing", "--key", "ann", typed="y\n")
    assert yes.code == 0
    assert list(letters(dead)) == ["bob", "cid"]
    dead("dlq", "purge", "purchases", "billing", "--all", "--yes")
    assert counts(dead)["dead"] == 0
    assert "has no dead letters" in dead("dlq", "list", "purchases", "billing").out


def test_inspect_shows_all_groups_and_goes_on_watching(mqkit: CommandLine) -> None:
    assert "has no group yet" in mqkit("inspect").out
    mqkit("publish", "orders", ADA, "--group", "billing", "--group", "mail")
    rows = [line.split() for line in mqkit("inspect").out.splitlines()]
    assert rows == [
        ["topic", "group", "ready", "in", "flight", "waiting", "dead"],
        ["orders", "billing", "1", "0", "0", "0"],
        ["orders", "mail", "1", "0", "0", "0"],
    ]
    with mqkit.started("inspect", "orders", "--watch", "0.1", "--json") as watch:
        first = json.loads(until(watch.stdout, "groups"))
        assert [g["ready"] for g in first["groups"]] == [1, 1]
        mqkit("publish", "orders", ADA)
        until(watch.stdout, '"ready": 2')
        assert interrupt(watch) == 130


def test_doctor_says_who_decided_what(mqkit: CommandLine) -> None:
    (mqkit.cwd / "mqkit.toml").write_text('grace = 5\n[groups."purchases.billing"]\nconcurrency = 64\n')
    env = {"MQKIT_SERVICE": "till"}
    found = json.loads(mqkit("doctor", "shop:app", "--url", "sqlite:///d.db", "--json", env=env).out)
    assert found["ok"] is True
    assert found["settings"]["url"] == {"value": "sqlite:///d.db", "from": "argument"}
    assert found["settings"]["service"] == {"value": "till", "from": "environment"}
    assert found["settings"]["grace"] == {"value": "5.0", "from": "mqkit.toml"}
    assert found["settings"]["version"]["from"] == "default"
    assert found["settings"]["groups.purchases.billing"]["value"] == "concurrency=64"
    assert found["broker"].startswith("SQLite")
    assert {"sqlite", "memory", "rabbitmq", "kafka"} <= {plugin["name"] for plugin in found["plugins"]}
    assert {finding["state"] for finding in found["findings"]} == {"missing"}
    people = mqkit("doctor", "shop").out
    assert "mqkit.toml" in people
    assert "all is well" in people


def test_doctor_names_every_problem(mqkit: CommandLine) -> None:
    (mqkit.cwd / "mqkit.toml").write_text('[groups."purchases.bilink"]\nconcurrency = 64\n')
    url = "kafka://127.0.0.1:1/"
    result = mqkit("doctor", "shop", "--url", url, code=1, env={"MQKIT_CONNECT_TIMEOUT": "2"})
    policy, broker = [line for line in result.out.splitlines() if line.startswith("✗")]
    assert "purchases.bilink" in policy
    assert "it handles purchases.billing" in policy
    assert "127.0.0.1:1" in broker
    assert "start the broker" in broker
    (mqkit.cwd / "mqkit.toml").write_text("declare = false\n")
    assert "mqkit topology apply shop" in mqkit("doctor", "shop", code=1).out
    assert "nomodule" in mqkit("doctor", "nomodule", code=1).out


def test_backends_and_plugins_are_listed(mqkit: CommandLine) -> None:
    found = {backend["name"]: backend for backend in json.loads(mqkit("backends", "--json").out)}
    assert {"memory", "sqlite", "rabbitmq", "kafka"} <= found.keys()
    assert found["sqlite"]["capabilities"]["persistent"] is True
    assert "confluent-kafka" in found["kafka"]["drivers"]
    assert "persistent" in mqkit("backends").out
    markdown = mqkit("backends", "--markdown").out.splitlines()
    assert markdown[0].startswith("| | Promise |")
    assert "| B3 | a killed worker loses nothing | yes | yes | - | - | yes | yes | yes | yes |" in markdown
    plugins = {plugin["name"]: plugin for plugin in json.loads(mqkit("plugins", "--json").out)}
    assert plugins["sqlite"]["distribution"] == "mqkit"
    assert plugins["sqlite"]["hooks"] == ["mqkit_backends"]
    assert "mqkit_backends" in mqkit("plugins").out


@pytest.fixture
def greeting(mqkit: CommandLine) -> CommandLine:
    """A plugin with two commands, one of a name that mqkit has itself."""
    folder = mqkit.cwd / "installed"
    about = folder / "mqkit_greet-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mqkit-greet\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[mqkit]\ngreet = greet\n")
    (folder / "greet.py").write_text(
        "from mqkit import ConfigurationError, hookimpl\n\n\n"
        "def greet(name: str, loud: bool = False) -> None:\n"
        '    """Greet somebody."""\n'
        "    if not name:\n"
        '        raise ConfigurationError("nobody is there: give a name")\n'
        "    print(f'hello {name}'.upper() if loud else f'hello {name}')\n\n\n"
        "@hookimpl\n"
        "def mqkit_commands():\n"
        "    return [('greet', greet), ('run', greet)]\n"
    )
    mqkit.env["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return mqkit


def test_plugins_add_commands_that_tell_errors_as_ours_do(greeting: CommandLine) -> None:
    result = greeting("greet", "ada", "--loud")
    assert result.out == "HELLO ADA\n"
    assert "'run' is left out" in result.err
    said = greeting("greet", "", code=1).err.splitlines()
    assert said[-1] == "error: nobody is there: give a name"
    assert "Greet somebody." in greeting("--help").out
    assert "mqkit-greet" in greeting("plugins").out


def test_our_own_commands_work_where_a_plugin_is_broken_and_say_which(greeting: CommandLine) -> None:
    (greeting.cwd / "installed" / "greet.py").write_text("import no_such_driver\n")
    shown = greeting("--help")
    assert "publish" in shown.out
    assert "no_such_driver" in shown.err
    said = greeting.refused("inspect")
    assert "plugin 'greet'" in said
    assert "MQKIT_DISABLED_PLUGINS" in said
    assert "has no group yet" in greeting("inspect", env={"MQKIT_DISABLED_PLUGINS": "greet"}).out


EVERY = [
    *(["run"], ["publish"], ["tail"], ["inspect"], ["doctor"], ["backends"], ["plugins"]),
    *(["dlq", name] for name in ("list", "show", "replay", "purge")),
    *(["topology", name] for name in ("plan", "apply")),
]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_teaches_by_an_example(mqkit: CommandLine, command: list[str]) -> None:
    shown = mqkit(*command, "--help", env={"COLUMNS": "120"}).out
    assert f"$ mqkit {' '.join(command)}" in shown
    assert "--json" in shown
    assert "--traceback" in shown
    assert ANSI not in shown


def test_colours_are_for_terminals_that_want_them(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", ADA, "--group", "billing")
    bold = f"{ANSI}1m"
    assert bold in mqkit.in_terminal("inspect").out
    assert f"{ANSI}3" not in mqkit.in_terminal("backends", env={"NO_COLOR": "1"}).out
    assert f"{ANSI}3" in mqkit.in_terminal("backends").out
    assert ANSI not in mqkit("inspect").out


def test_a_reader_that_goes_away_is_no_error(mqkit: CommandLine) -> None:
    mqkit("publish", "orders", "--group", "billing", stdin="\n".join([ADA] * 5))
    with mqkit.started("inspect", "--watch", "0.1", "--json") as watch:
        until(watch.stdout, "groups")
        assert watch.stdout is not None
        watch.stdout.close()
        assert watch.wait(DEADLINE) == 1
        assert watch.stderr is not None
        assert watch.stderr.read() == ""


def test_the_script_and_the_module_are_the_same(mqkit: CommandLine) -> None:
    assert mqkit("--version").out.startswith("mqkit ")
    script = Path(sys.executable).with_name("mqkit")
    assert script.exists()
    assert "mqkit.cli" in script.read_text()
