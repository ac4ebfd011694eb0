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
    left = len(settled)
    run: list[int] = []
    together = True
    for tag in out:
        if not left:
            break
        settlement = settled.get(tag)
        if settlement is None:
            found += _run(run, settled)
            run, together = [], False
            continue
        left -= 1
        if not together:
            found.append(Acknowledgement(tag, settlement, multiple=False))
            continue
        if run and settled[run[-1]] is not settlement:
            found += _run(run, settled)
            run = []
        run.append(tag)
    return found + _run(run, settled)


def _run(run: list[int], settled: Mapping[int, Settlement]) -> list[Acknowledgement]:
    return [Acknowledgement(run[-1], settled[run[-1]], multiple=len(run) > 1)] if run else []
