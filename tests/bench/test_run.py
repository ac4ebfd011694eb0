"""The benchmark itself: it names what it measures, measures it, checks the books, and goes on where it was stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import run, sample
from tests.bench.contenders_list import CONTENDERS, Contender, pairs
from tests.bench.place import Place
from tests.bench.profiling import START, layer_of, table
from tests.bench.works import BY_NAME, WORKS


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_name_is_one_of_its_own() -> None:
    names = [run.name(work, contender) for work, contender in pairs()]
    assert len(set(names)) == len(names) == len(WORKS) * len(CONTENDERS)


def test_list_names_what_would_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list", "--only", "rabbitmq/publish-100/*"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[0] == "rabbitmq/publish-100/mqkit-asyncapp"
    assert any(line.startswith("rabbitmq/publish-100/pika ") and "blocks" in line for line in found)


def test_a_pattern_that_fits_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--only", "carrier-pigeon"]) == 2
    assert "--list shows all names" in capsys.readouterr().err


def test_a_run_measures_and_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.jsonl"
    chosen = ["--quick", "--json", str(file), "--only", "memory/publish-100/", "--only", "sqlite/wait-32/"]
    assert run.main(chosen) == 0
    head, *samples = lines(file)
    assert {one["case"] for one in samples} == {"memory/publish-100/mqkit-asyncapp", "sqlite/wait-32/mqkit-asyncapp"}
    for one in samples:
        assert one["problem"] == ""
        assert one["run"] == head["run"]
        assert one["count"] > 0
        assert [set(loop) for loop in one["calibration"]] == [{"cpu", "wall"}] * 2
    part = tmp_path / "results.jsonl.part"
    part.write_text("".join(json.dumps(line) + "\n" for line in (head, samples[0])))
    assert run.main(chosen) == 0
    assert f"going on with run {head['run']}: 1 samples are there" in capsys.readouterr().out
    again = lines(file)
    assert again[:2] == [head, samples[0]]
    assert [one["case"] for one in again[2:]] == [samples[1]["case"]]


def test_what_is_not_installed_is_named() -> None:
    stranger = Contender(
        name="nobody", broker="memory", module="nobody", libraries=("no-such-library",), imports="nobody", speed=1
    )
    told = sample.take(stranger, BY_NAME["consume"], Place("memory", "memory://", "t"), 0.1)
    assert told == {"problem": "no-such-library is not installed"}


@pytest.mark.parametrize(
    ("work", "fields", "there", "problem"),
    [
        ("publish-1", {"confirmed": 7}, 7, ""),
        ("publish-1", {"confirmed": 7}, 6, "7 confirmed, and 6 in the queue"),
        ("publish-1", {"confirmed": 7}, None, "7 confirmed, and None in the queue"),
        ("consume", {"handled": 9}, 0, ""),
        ("consume", {"handled": 9}, 2, "0 not handled, and 2 in the queue"),
        ("consume", {"handled": 8}, 0, "handled 8 of 9"),
        ("memory", {"handled": 5}, 4, ""),
    ],
)
def test_the_books(
    work: str, fields: dict[str, Any], there: int | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PATIENCE", 0.0)
    monkeypatch.setattr(sample, "_left", lambda _: there)
    assert sample._books(BY_NAME[work], Place("rabbitmq", "amqp://x", "t"), 9, fields) == problem


@pytest.mark.parametrize(
    ("stack", "layer"),
    [
        ("run (tests/bench/case.py:1);publish (mqkit/app.py:2);seal (mqkit/envelope.py:3);uuid4 (uuid.py:4)", "mqkit: envelope"),
        ("main (x.py:1);_run_once (asyncio/base_events.py:2);select (selectors.py:3)", "asyncio"),
        ("main (tests/bench/case.py:1);_find_and_load (<frozen importlib>);x (mqkit/app.py:2)", START),
        ("alone (nothing.py:1)", "other"),
    ],
)  # fmt: skip
def test_a_stack_belongs_to_the_innermost_layer(stack: str, layer: str) -> None:
    assert layer_of(stack.split(";")) == layer


def test_a_profile_leaves_out_the_start() -> None:
    asleep = "main (x.py:1);_worker (concurrent/futures/thread.py:81) 900\n"
    found = table(
        f"a (mqkit/codec.py:1) 30\nb (asyncio/x.py:1) 10\n_find_and_load (x);c (mqkit/app.py:1) 500\n{asleep}", 8.0
    )
    assert "75.0 %    6.0 µs  mqkit: codec" in found
    assert "25.0 %    2.0 µs  asyncio" in found
    assert START not in found
