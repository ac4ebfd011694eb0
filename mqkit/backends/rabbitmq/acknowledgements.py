"""Which acknowledgements settle exactly what was asked, in as few frames as that takes. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mqkit.backend import Settlement


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One frame: settles `tag`, or with `multiple` everything that is out up to it."""

    tag: int
    settlement: Settlement
    multiple: bool


def acknowledgements(out: Iterable[int], settled: Mapping[int, Settlement]) -> list[Acknowledgement]:
    """Frames that settle `settled`, and no other of the tags that are `out` (ascending, `settled` among them).

    `multiple` reaches back to the oldest that is out, so it serves only the unbroken run of the oldest.
    """
    found: list[Acknowledgement] = []
    left = dict(settled)
    run: list[int] = []
    for tag in out:
        settlement = left.pop(tag, None)
        if settlement is None:
            break
        if run and settled[run[-1]] is not settlement:
            found += _run(run, settled)
            run = []
        run.append(tag)
    found += _run(run, settled)
    return [*found, *(Acknowledgement(tag, left[tag], multiple=False) for tag in sorted(left))]


def _run(run: list[int], settled: Mapping[int, Settlement]) -> list[Acknowledgement]:
    return [Acknowledgement(run[-1], settled[run[-1]], multiple=len(run) > 1)] if run else []
