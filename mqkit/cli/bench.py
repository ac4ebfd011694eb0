"""`mqkit bench`: how fast mqkit is on a broker of the user's, from this machine; the books are checked."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mqkit.async_app import AsyncApp
from mqkit.bench.meter import between, calibrate, reading
from mqkit.bench.orders import LARGE, SMALL
from mqkit.bench.removal import has_shared, remove
from mqkit.bench.trial import CASES, GROUP, Outcome, new_topic, trials
from mqkit.cli.failures import UsageError
from mqkit.cli.options import AsJson, Url
from mqkit.cli.output import complain, console, document, put, remark, table, tell
from mqkit.registry import masked


def bench(
    broker: Annotated[
        str | None, typer.Argument(metavar="URL", help="The broker; as --url, if not given.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=600, help="For each case.")] = 2.0,
    size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="BYTES", min=1, max=1_000_000, help="Of an order; may be repeated.", show_default="200, 4096"
        ),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Measure publishing, consuming and latency on a broker.

    It works in topics of its own, and removes them. CPU is that of this process, for each message.
    Exit code: 0 the books balance, 1 they do not.

    Examples:
      $ mqkit bench amqp://guest:guest@localhost/
      $ mqkit bench kafka://localhost:9092 --seconds 5 --json
    """
    if broker is not None and url is not None:
        raise UsageError("the broker is named twice: give URL or --url")
    asyncio.run(_bench(broker or url, seconds, size or [SMALL, LARGE], as_json=as_json))


async def _bench(url: str | None, seconds: float, sizes: list[int], *, as_json: bool) -> None:
    outcomes: list[tuple[int, Outcome]] = []
    before, first = calibrate(), reading()
    async with AsyncApp(url, service="bench") as app:
        shared = await has_shared(app.settings.url)
        if not as_json:
            tell(f"{app.description} at {masked(app.settings.url)}; about {seconds * len(CASES) * len(sizes):.0f} s")
        for size in sizes:
            topic = new_topic(size)
            try:
                with _progress() as progress:
                    task = progress.add_task(f"{size:,} bytes", total=None)
                    async for outcome in trials(app, topic, size, seconds):
                        outcomes.append((size, outcome))
                        progress.update(task, description=f"{size:,} bytes: {outcome.title} is done")
            finally:
                if left := await remove(app.settings.url, topic.name, GROUP, shared=not shared):
                    remark(left)
        description, shown = app.description, masked(app.settings.url)
    steal, loops = between(first, reading()).steal, (before, calibrate())
    if as_json:
        rows = [{"size": size, **asdict(outcome), "rate": outcome.rate} for size, outcome in outcomes]
        document(
            {
                "url": shown,
                "broker": description,
                "calibration": [asdict(loop) for loop in loops],
                "steal": steal,
                "cases": rows,
            }
        )
    else:
        _show(outcomes)
        took = " and ".join(f"{loop.cpu * 1e3:.0f} ms of CPU in {loop.wall * 1e3:.0f}" for loop in loops)
        remark(f"calibration loop, before and after: {took}; steal {steal:.0%}")
    wrong = [outcome for _, outcome in outcomes if outcome.problem]
    if wrong:
        for outcome in wrong:
            complain(f"{outcome.title}: {outcome.problem}")
        raise typer.Exit(1)


def _progress() -> Progress:
    out = console(stderr=True)
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
        console=out, transient=True, disable=not out.is_terminal,
    )  # fmt: skip


def _show(outcomes: list[tuple[int, Outcome]]) -> None:
    numbers = ("bytes", "messages/s", "CPU µs", "p50 ms", "p99 ms", "messages")
    rows = table("work", *numbers, "books", numbers=numbers)
    for size, outcome in outcomes:
        rows.add_row(
            outcome.title,
            f"{size:,}",
            f"{outcome.rate:,.0f}",
            f"{outcome.cpu_each * 1e6:.1f}",
            _milliseconds(outcome.p50),
            _milliseconds(outcome.p99),
            f"{outcome.messages:,}",
            "balance" if not outcome.problem else "DO NOT BALANCE",
        )
    put(rows)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f}"
