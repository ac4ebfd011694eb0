"""The tables: what they make of results, and that those which are committed tell what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.report import BEGIN, END, FULL, README, RESULTS, full, short, with_table
from tests.bench.results import read

HEAD = {
    "run": "r1", "at": "2026-01-02T03:04:05+00:00", "rounds": 3, "seconds": 1.0, "machine": "2 CPUs", "python": "3.11.7",
    "versions": {"faststream": "1.0", "pika": None},
}  # fmt: skip
QUIET, LOUD = {"cpu": 0.014, "wall": 0.015}, {"cpu": 0.014, "wall": 0.030}


def sample(contender: str, rate: float, **fields: Any) -> dict[str, Any]:
    return {
        "run": "r1", "round": 1, "broker": "rabbitmq", "work": "publish-100", "contender": contender, "problem": "",
        "count": int(rate), "seconds": 1.0, "cpu": 0.5, "steal": 0.0, "calibration": [QUIET, QUIET], "note": "", **fields,
    }  # fmt: skip


def written(folder: Path, *samples: dict[str, Any]) -> Path:
    file = folder / "results.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in (HEAD, *samples)))
    return file


def test_a_cell_is_the_median_of_the_samples_that_went_well(tmp_path: Path) -> None:
    samples = [sample("mqkit AsyncApp", rate) for rate in (100, 900, 200)]
    samples.append(sample("mqkit AsyncApp", 5_000, problem="handled 1 of 2"))
    cell = read(written(tmp_path, *samples)).cell("rabbitmq", "publish-100", "mqkit AsyncApp")
    rate, cpu = cell.rate(), cell.cpu()
    assert rate is not None
    assert cpu is not None
    assert (rate.median, rate.least, rate.most) == (200, 100, 900)
    assert cpu.median == pytest.approx(2_500)
    assert cell.problems == ["handled 1 of 2"]


def test_the_short_table_compares_within_one_run(tmp_path: Path) -> None:
    rates = {"mqkit AsyncApp": 8_000, "mqkit App": 5_000, "FastStream": 2_000, "aio-pika": 4_000, "taskiq": 1_000}
    table = short(read(written(tmp_path, *(sample(*pair) for pair in rates.items()))))
    row = next(line for line in table.splitlines() if "100 in flight" in line)
    assert "| 8,000/s, 62 µs | 5,000/s, 100 µs | 2,000/s, 250 µs | 4,000/s, 125 µs (aio-pika) | 4 x | 2 x |" in row


def test_results_of_two_runs_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, sample("pika", 10), {**sample("pika", 10), "run": "r2"})
    with pytest.raises(ValueError, match="several runs"):
        read(file)


def test_what_cannot_be_and_what_went_wrong_is_named(tmp_path: Path) -> None:
    lines = [
        {"run": "r1", "round": 1, "broker": "rabbitmq", "work": "publish-100", "contender": "pika", "cannot": "it blocks"},
        {"run": "r1", "round": 1, "broker": "rabbitmq", "work": "publish-100", "contender": "taskiq",
         "problem": "taskiq is not installed"},
    ]  # fmt: skip
    text = full(read(written(tmp_path, *lines)))
    assert "| pika | - | - | it blocks |" in text
    assert "| taskiq | - | - | taskiq is not installed |" in text
    assert "pika missing" in text


def test_a_noisy_sample_is_seen(tmp_path: Path) -> None:
    quiet = [sample("pika", 10) for _ in range(5)]
    loud = [sample("pika", 10, calibration=[QUIET, LOUD]), sample("pika", 10, steal=0.2)]
    assert "2 of 7 samples were noisy" in read(written(tmp_path, *quiet, *loud)).noise()
    assert "0 of 5 samples were noisy" in read(written(tmp_path, *quiet)).noise()


def test_a_table_goes_between_its_markers() -> None:
    assert with_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="no place"):
        with_table("nothing", "new")


def test_the_readme_tells_what_was_measured() -> None:
    text = README.read_text()
    assert with_table(text, short(read(RESULTS))) == text, "python -m tests.bench.report writes it"


def test_the_full_tables_tell_what_was_measured() -> None:
    assert FULL.read_text() == full(read(RESULTS)), "python -m tests.bench.report writes them"
