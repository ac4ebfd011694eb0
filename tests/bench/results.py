"""What a file of results says: samples of one run, put together to medians with the least and the most."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

NOISY = 1.5
"""A sample was disturbed if its calibration loop took so many times its usual CPU on the wall, before or after it."""
STOLEN = 0.05
"""And so it was if the host took this share of the machine's time."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several figures for the same thing."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender at one work: its samples."""

    samples: tuple[Mapping[str, Any], ...]

    @property
    def cannot(self) -> str:
        """Why it is not measured."""
        return next((s["cannot"] for s in self.samples if "cannot" in s), "")

    @property
    def problems(self) -> list[str]:
        """What went wrong."""
        return [s["problem"] for s in self.samples if s.get("problem")]

    @property
    def note(self) -> str:
        return next((s["note"] for s in self.samples if s.get("note")), "")

    def rate(self) -> Spread | None:
        """Messages a second."""
        return self._spread(lambda s: s["count"] / s["seconds"] if s["count"] else None)

    def cpu(self) -> Spread | None:
        """Microseconds of this client's CPU for each message."""
        return self._spread(lambda s: 1e6 * s["cpu"] / s["count"] if s["count"] else None)

    def of(self, name: str, scale: float = 1.0) -> Spread | None:
        """Another figure of the samples."""
        return self._spread(lambda s: None if s.get(name) is None else scale * s[name])

    def _spread(self, figure: Callable[[Mapping[str, Any]], float | None]) -> Spread | None:
        good = [s for s in self.samples if "cannot" not in s and not s["problem"]]
        found = [value for s in good if (value := figure(s)) is not None]
        return Spread(median(found), min(found), max(found)) if found else None


@dataclass(frozen=True, slots=True)
class Results:
    """One run."""

    head: Mapping[str, Any]
    cells: Mapping[tuple[str, str, str], Cell]
    """(broker, work, contender) -> what was measured."""
    samples: Sequence[Mapping[str, Any]]

    def cell(self, broker: str, work: str, contender: str) -> Cell:
        return self.cells.get((broker, work, contender), Cell(()))

    def noise(self) -> str:
        """How quiet the machine was, in a sentence."""
        taken = [sample for sample in self.samples if "calibration" in sample]
        if not taken:
            return "Nothing was measured."
        cpu = [loop["cpu"] for sample in taken for loop in sample["calibration"]]
        usual = median(cpu)
        noisy = sum(
            sample["steal"] > STOLEN or max(loop["wall"] for loop in sample["calibration"]) > NOISY * usual
            for sample in taken
        )
        return (
            f"The calibration loop took {usual * 1e3:.1f} ms of CPU (median; {min(cpu) * 1e3:.1f} to "
            f"{max(cpu) * 1e3:.1f}); at most {max(s['steal'] for s in taken) * 100:.0f} % of a sample's time was stolen "
            f"by the host; {noisy} of {len(taken)} samples were noisy."
        )


def read(file: Path) -> Results:
    """The results in `file`.

    Raises:
        ValueError: they are of more than one run: no ratio between them would mean anything.
    """
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    if len({line["run"] for line in lines}) != 1:
        raise ValueError(f"{file} holds samples of several runs: measure again, with --fresh")
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for line in lines[1:]:
        grouped.setdefault((line["broker"], line["work"], line["contender"]), []).append(line)
    return Results(lines[0], {key: Cell(tuple(samples)) for key, samples in grouped.items()}, lines[1:])
