"""What is to be reached, as data, and whether a run reached it. `must` is asked for; `aim` is what prototypes showed."""

from dataclasses import dataclass
from typing import Literal

from tests.bench.results import Cell, Results

OURS, PLAIN, BACKEND = "mqkit AsyncApp", "mqkit App", "mqkit on pika"
Measure = Literal["rate", "cpu", "p50", "p99", "startup", "import", "memory"]
UNITS: dict[Measure, tuple[str, str]] = {
    "rate": ("messages/s", "/s"),
    "cpu": ("CPU for a message", " µs"),
    "p50": ("median latency", " ms"),
    "p99": ("99 % latency", " ms"),
    "startup": ("first message after", " ms"),
    "import": ("import", " ms"),
    "memory": ("peak memory", " MB"),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of mqkit's. With `peer`: in how many times that of the peer in the same run; else in its unit."""

    broker: str
    work: str
    measure: Measure
    must: float
    aim: float | None = None
    peer: str = ""
    ours: str = OURS

    @property
    def more_is_better(self) -> bool:
        return self.measure == "rate"

    def reached(self, value: float, wanted: float) -> bool:
        return value >= wanted if self.more_is_better else value <= wanted

    def shown(self, value: float) -> str:
        return (
            f"{value:.2g} x"
            if self.peer
            else f"{value:,.0f}{UNITS[self.measure][1]}"
            if value >= 10
            else f"{value:.2g}{UNITS[self.measure][1]}"
        )


FSC, FSA = "FastStream confluent", "FastStream aiokafka"
GOALS: tuple[Goal, ...] = (
    Goal("rabbitmq", "publish-1", "rate", 1.0, peer="FastStream"),
    Goal("rabbitmq", "publish-100", "rate", 3.5, peer="FastStream"),
    Goal("rabbitmq", "publish-100", "cpu", 1 / 6, peer="FastStream"),
    Goal("rabbitmq", "publish-batch", "rate", 4.0, peer="FastStream"),
    Goal("rabbitmq", "consume", "rate", 7.0, peer="FastStream"),
    Goal("rabbitmq", "consume", "rate", 2.0, peer="pika", ours=BACKEND),
    Goal("rabbitmq", "consume", "cpu", 18, 9, ours=BACKEND),
    Goal("rabbitmq", "publish-batch", "cpu", 8, 4, ours=BACKEND),
    Goal("rabbitmq", "consume", "rate", 2.0, peer="pika", ours=PLAIN),
    Goal("kafka", "publish-1", "rate", 1.0, peer=FSC),
    Goal("kafka", "publish-100", "rate", 2.5, 3.5, FSC),
    Goal("kafka", "publish-100", "rate", 1.0, 1.3, FSA),
    Goal("kafka", "publish-100", "cpu", 22, 15),
    Goal("kafka", "publish-1000", "rate", 5.0, 6.0, FSC),
    Goal("kafka", "publish-1000", "rate", 7.0, 11.0, FSA),
    Goal("kafka", "publish-1000", "cpu", 13, 8),
    Goal("kafka", "publish-batch", "rate", 6.0, 9.0, FSC),
    Goal("kafka", "publish-batch", "rate", 1.5, 2.0, FSA),
    Goal("kafka", "publish-batch", "cpu", 6),
    Goal("kafka", "consume", "rate", 20, 40, FSC),
    Goal("kafka", "consume", "cpu", 15, 8),
    Goal("kafka", "wait-32-ordered", "rate", 0.85 * 6_400, 0.90 * 6_400),
    Goal("kafka", "latency", "p50", 1.2, 1.0, "confluent-kafka"),
    Goal("kafka", "latency", "p99", 10),
    Goal("kafka", "startup", "import", 150, 130),
    Goal("kafka", "startup", "startup", 400, 250),
    Goal("kafka", "memory", "memory", 90, 80),
    Goal("memory", "consume", "cpu", 25),
)


def figure(cell: Cell, measure: Measure) -> float | None:
    """The median, in the unit of the measure."""
    match measure:
        case "rate":
            found = cell.rate()
        case "cpu":
            found = cell.cpu()
        case "memory":
            found = cell.of("peak_memory", 1e-6)
        case _:
            found = cell.of(measure, 1e3)
    return found.median if found else None


def value(results: Results, goal: Goal) -> float | None:
    """What the run has to say about it; None if that was not measured."""
    ours = figure(results.cell(goal.broker, goal.work, goal.ours), goal.measure)
    if ours is None or not goal.peer:
        return ours
    theirs = figure(results.cell(goal.broker, goal.work, goal.peer), goal.measure)
    return ours / theirs if theirs else None


def table(results: Results) -> str:
    """All goals, and what became of them."""
    lines = ["| | goal | measured | reached | aim |", "| --- | --: | --: | --- | --: |"]
    for goal in GOALS:
        found = value(results, goal)
        whose = f"{goal.broker} `{goal.work}`" + (f", {goal.ours}" if goal.ours != OURS else "")
        what = f"{whose}: {UNITS[goal.measure][0]}" + (f", to {goal.peer}" if goal.peer else "")
        told = "-" if found is None else "yes" if goal.reached(found, goal.must) else "**no**"
        measured, aim = "-" if found is None else goal.shown(found), "" if goal.aim is None else goal.shown(goal.aim)
        lines.append(f"| {what} | {goal.shown(goal.must)} | {measured} | {told} | {aim} |")
    return "\n".join(lines)
