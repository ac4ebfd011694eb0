"""Plots of a file of results, as SVG: for each broker the rates of all contenders, work by work, on a log scale."""

from pathlib import Path

import pygal
from pygal.style import Style

from tests.bench.contenders_list import CONTENDERS
from tests.bench.results import Results
from tests.bench.works import WORKS

NAMES = {"rabbitmq": "RabbitMQ", "kafka": "Kafka"}
KINDS = {"publish", "consume", "retry"}
STYLE = Style(
    background="white",
    plot_background="white",
    colors=("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf"),
    opacity="0.9",
)


def plots(results: Results, folder: Path) -> dict[Path, str]:
    """File -> SVG."""
    return {folder / f"{broker}.svg": _plot(results, broker) for broker in NAMES if _measured(results, broker)}


def _measured(results: Results, broker: str) -> bool:
    return any(key[0] == broker for key in results.cells)


def _plot(results: Results, broker: str) -> str:
    works = [work for work in WORKS if work.kind in KINDS]
    chart = pygal.Bar(
        js=[], no_prefix=True, pretty_print=True, disable_xml_declaration=True, style=STYLE,
        logarithmic=True, range=(100, 1_000_000 if broker == "kafka" else 100_000), width=1400, height=600, x_label_rotation=30, legend_at_bottom=True,
        title=f"{NAMES[broker]}: messages a second, medians of run {results.head['run']}",
    )  # fmt: skip
    chart.x_labels = [work.name for work in works]
    for contender in CONTENDERS:
        if contender.broker == broker:
            rates = [results.cell(broker, work.name, contender.name).rate() for work in works]
            chart.add(contender.name, [rate and round(rate.median) for rate in rates])
    rendered: str = chart.render(is_unicode=True)
    return rendered + "\n"
