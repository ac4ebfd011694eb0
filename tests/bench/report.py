"""Tables of a file of results: `python -m tests.bench.report` writes the README's, RESULTS.md and the plots.

The README's table is short: the most telling works, both apps beside FastStream and the quickest other. RESULTS.md
has everything that was measured. Both quote ratios of one run alone: a file of several is refused.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import goals
from tests.bench.contenders_list import CONTENDERS, MEMORY
from tests.bench.results import Cell, Results, Spread, read
from tests.bench.works import BY_NAME, WORKS, Work

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
README = ROOT / "README.md"
RESULTS = HERE / "results.jsonl"
FULL = HERE / "RESULTS.md"
BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
OURS = ("mqkit AsyncApp", "mqkit App")
PARTS = ("mqkit on pika",)
"""Of mqkit's, measured to know what they cost: in the full tables only."""
BROKERS = {"rabbitmq": "RabbitMQ", "kafka": "Kafka", "sqlite": "SQLite", "memory": "memory"}
TELLING = ("publish-1", "publish-100", "publish-1000", "publish-batch", "consume", "consume-4k", "wait-32", "wait-256-ordered",
           "latency", "startup", "memory")  # fmt: skip

Figure = Callable[[Cell], Spread | None]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.report", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="of results, as lines of JSON")
    parser.add_argument("--print", action="store_true", help="show the full tables, and write nothing")
    parser.add_argument("--goals", action="store_true", help="show which goals were reached, and write nothing")
    options = parser.parse_args(arguments)
    if not options.file.exists():
        print(f"error: there is no {options.file}: make bench measures", file=sys.stderr)
        return 2
    results = read(options.file)
    if options.print or options.goals:
        print(goals.table(results) if options.goals else full(results))
        return 0
    from tests.bench.plot import plots

    README.write_text(with_table(README.read_text(), short(results)))
    FULL.write_text(full(results))
    for path, text in plots(results, HERE).items():
        path.write_text(text)
    print(f"written: the table in {README.name}, {FULL.relative_to(ROOT)}, and the plots beside it")
    return 0


def with_table(text: str, table: str) -> str:
    """`text` with the table between its markers.

    Raises:
        ValueError: it has no place for one.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the table: put {BEGIN} and {END} there")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


# ---- the short one


def short(results: Results) -> str:
    """The README's table: of a run, the most telling works."""
    lines = [
        "| | AsyncApp | App | FastStream | best other | AsyncApp to FastStream | to best other |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for broker in ("rabbitmq", "kafka"):
        rows = [_short_row(results, broker, BY_NAME[name]) for name in TELLING]
        if any(rows):
            lines += [f"| **{BROKERS[broker]}** | | | | | | |", *(row for row in rows if row)]
    ran = f"Run {results.head['run']}, {results.head['at'][:10]}: {results.head['machine']}, Python {results.head['python']}"
    lines += ["", f"{ran}, the brokers beside the clients. {results.noise()}"]
    return "\n".join(lines)


def _short_row(results: Results, broker: str, work: Work) -> str:
    cells = {
        c.name: results.cell(broker, work.name, c.name)
        for c in CONTENDERS
        if c.broker == broker and c.name not in PARTS
    }
    ours, plain = (_best(work, {name: cells[name]} if name in cells else {}) for name in OURS)
    stream = _best(work, {name: cell for name, cell in cells.items() if name.startswith("FastStream")})
    other = _best(work, {n: cell for n, cell in cells.items() if n not in OURS and not n.startswith("FastStream")})
    if ours is None:
        return ""
    shown = [_short_cell(work, found) for found in (ours, plain, stream, other)]
    ratios = [_ratio(work, ours, found) for found in (stream, other)]
    return f"| {work.title} | {' | '.join((*shown, *ratios))} |"


def _best(work: Work, cells: dict[str, Cell]) -> tuple[str, Cell] | None:
    found = [(name, cell) for name, cell in cells.items() if _figure(work, cell) is not None]
    better = max if _more_is_better(work) else min
    return better(found, key=lambda pair: (_figure(work, pair[1]) or Spread(0, 0, 0)).median) if found else None


def _more_is_better(work: Work) -> bool:
    return work.kind in {"publish", "consume", "retry"}


def _figure(work: Work, cell: Cell) -> Spread | None:
    """What contenders are compared by."""
    match work.kind:
        case "latency":
            return cell.of("p50", 1e3)
        case "startup":
            return cell.of("startup", 1e3)
        case "memory":
            return cell.of("peak_memory", 1e-6)
    return cell.rate()


def _short_cell(work: Work, found: tuple[str, Cell] | None) -> str:
    if found is None:
        return "-"
    name, cell = found
    figure, cpu = _figure(work, cell), cell.cpu()
    assert figure is not None
    match work.kind:
        case "latency":
            text = f"{figure.median:.1f} ms"
        case "startup":
            text = f"{figure.median:.0f} ms"
        case "memory":
            handled = cell.of("handled")
            few = handled is not None and handled.median < MEMORY
            text = f"{figure.median:.0f} MB" + (f" after {_rounded(handled.median)}" if few and handled else "")
        case _:
            text = f"{_rounded(figure.median)}/s" + (f", {cpu.median:.0f} µs" if cpu else "")
    kind = name.removeprefix("FastStream").strip()
    own = name in OURS or name == "FastStream"
    return text if own else f"{text} ({kind or name})"


def _ratio(work: Work, ours: tuple[str, Cell], theirs: tuple[str, Cell] | None) -> str:
    if theirs is None:
        return "-"
    mine, other = _figure(work, ours[1]), _figure(work, theirs[1])
    assert mine is not None
    assert other is not None
    return f"{mine.median / other.median:.2g} x" if other.median else "-"


def _rounded(value: float) -> str:
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"


# ---- the full one


def full(results: Results) -> str:
    """Everything that was measured."""
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in results.head["versions"].items())
    head = results.head
    ran = f"Run {head['run']} of {head['at']}, {head['rounds']} rounds: {head['machine']}, Python {head['python']}."
    parts = [
        "# What was measured",
        "Written by `python -m tests.bench.report` from results.jsonl; README.md beside it says what each word means.",
        f"{ran} {results.noise()}",
        f"Versions: {versions}.",
        f"## Goals\n\n{goals.table(results)}",
    ]
    for broker, title in BROKERS.items():
        works = [work for work in WORKS if any((broker, work.name) == key[:2] for key in results.cells)]
        if works:
            parts += [f"## {title}", *(_full_table(results, broker, work) for work in works)]
    return "\n\n".join(parts) + "\n"


def _full_table(results: Results, broker: str, work: Work) -> str:
    columns = _columns(work)
    lines = [f"### {work.title} (`{work.name}`)", "", f"| | {' | '.join(columns)} | |",
             f"| --- |{' --: |' * len(columns)} --- |"]  # fmt: skip
    for contender in (c for c in CONTENDERS if c.broker == broker):
        cell = results.cell(broker, work.name, contender.name)
        if cell.samples:
            remarks = "; ".join(filter(None, (cell.cannot, cell.note, *dict.fromkeys(cell.problems))))
            figures = [_spread(figure(cell)) for figure in columns.values()]
            lines.append(f"| {contender.name} | {' | '.join(figures)} | {remarks.replace('|', '/')} |")
    return "\n".join(lines)


def _columns(work: Work) -> dict[str, Figure]:
    rates: dict[str, Figure] = {"messages/s": Cell.rate, "CPU µs/message": Cell.cpu}
    match work.kind:
        case "latency":
            return {
                "p50 ms": lambda c: c.of("p50", 1e3),
                "p99 ms": lambda c: c.of("p99", 1e3),
                "CPU µs/message": Cell.cpu,
            }
        case "startup":
            return {
                "first message after ms": lambda c: c.of("startup", 1e3),
                "import ms": lambda c: c.of("import", 1e3),
            }
        case "memory":
            return {"peak MB": lambda c: c.of("peak_memory", 1e-6), "handled": lambda c: c.of("handled"), **rates}
    return rates


def _spread(found: Spread | None) -> str:
    if found is None:
        return "-"
    numbers = [f"{n:,.0f}" if n >= 100 else f"{n:.3g}" for n in (found.median, found.least, found.most)]
    return numbers[0] if numbers[1] == numbers[2] else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


if __name__ == "__main__":
    sys.exit(main())
