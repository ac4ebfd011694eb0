"""Where the time goes: `python -m tests.bench.profiling rabbitmq/consume/mqkit-asyncapp` samples one case with py-spy.

Prints for each layer its share of the samples in which the process was at work, and what that is for a message: the
layer is that of the innermost frame which belongs to one, so what a room calls in the standard library counts as its
own. Below stand the functions in which most samples ended.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench.brokers import brokers
from tests.bench.case import Job
from tests.bench.contenders_list import Contender, pairs
from tests.bench.place import Place
from tests.bench.run import name
from tests.bench.sample import clear, command, run
from tests.bench.works import Work

RATE = 500
"""Samples a second."""
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the benchmark itself", ("mqkit/bench/", "tests/bench/")),
    ("mqkit: backend", ("mqkit/backends/",)),
    ("mqkit: bridge", ("mqkit/bridge.py", "mqkit/ports.py")),
    ("mqkit: app", ("mqkit/app.py", "mqkit/topic.py")),
    ("mqkit: codec", ("mqkit/codec.py",)),
    ("mqkit: envelope", ("mqkit/envelope.py", "mqkit/message.py")),
    ("mqkit: producer", ("mqkit/producer.py",)),
    ("mqkit: pump", ("mqkit/pump.py", "mqkit/retry.py", "mqkit/verdict.py", "mqkit/events.py")),
    ("mqkit: handler, workers", ("mqkit/handler.py", "mqkit/workers.py", "mqkit/middleware.py")),
    ("pydantic", ("pydantic/",)),
    ("driver: aio-pika, aiormq, pamqp", ("aio_pika/", "aiormq/", "pamqp/")),
    ("driver: pika, amqp", ("pika/", "amqp/", "kombu/")),
    ("driver: confluent-kafka", ("confluent_kafka/",)),
    ("driver: aiokafka", ("aiokafka/",)),
    ("FastStream", ("faststream/", "fast_depends/")),
    ("taskiq, dramatiq", ("taskiq/", "taskiq_aio_pika/", "dramatiq/")),
    ("asyncio", ("asyncio/",)),
)
START = "imports and start"
SLEEP = "a thread that waits"
LEFT_OUT = (START, SLEEP)
WAITING = ("_worker (concurrent/futures/thread.py", "Condition.wait (threading.py", "Event.wait (threading.py")
"""Where a thread sleeps. py-spy cannot always tell that from work."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.profiling", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("case", nargs="+", help="as `python -m tests.bench.run --list` names them")
    parser.add_argument("--seconds", type=float, default=5.0, help="about how long each is watched; default: 5")
    parser.add_argument("--amqp-url", metavar="URL")
    parser.add_argument("--kafka-url", metavar="URL")
    options = parser.parse_args(arguments)
    known = {name(work, contender): (work, contender) for work, contender in pairs()}
    if unknown := [case for case in options.case if case not in known]:
        print(f"error: there is no case {unknown[0]!r}: python -m tests.bench.run --list names them", file=sys.stderr)
        return 2
    given = {"rabbitmq": options.amqp_url, "kafka": options.kafka_url}
    chosen = [known[case] for case in options.case]
    with brokers({c.broker for _, c in chosen}, {k: v for k, v in given.items() if v}, _say) as urls:
        for work, contender in chosen:
            print(profile(work, contender, urls[contender.broker], options.seconds), flush=True)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def profile(work: Work, contender: Contender, url: str, seconds: float) -> str:
    """What py-spy saw of one case, as a table."""
    place = Place(contender.broker, url, f"bench-{secrets.token_hex(4)}")
    count = contender.backlog(work, seconds)
    job = Job("measure", contender.module, work.name, place.fields(), count, seconds)
    try:
        if work.kind != "publish" and contender.broker != "memory":
            run(Job("fill", contender.module, work.name, place.fields(), count, seconds))
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "stacks"
            spy = ["py-spy", "record", "--format", "raw", "--rate", str(RATE), "--output", str(raw), "--"]
            binary = Path(sys.executable).parent / spy[0]
            done = subprocess.run(
                [str(binary), *spy[1:], *command(job)], capture_output=True, text=True, timeout=200, check=False
            )
            if not raw.exists():
                raise RuntimeError(f"py-spy saw nothing: {done.stderr[-500:]}")
            stacks = raw.read_text()
    finally:
        clear(place)
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    each = 1e6 * told["cpu"] / told["count"]
    return f"{name(work, contender)}: {each:.1f} µs of CPU for a message, py-spy's watching included\n{table(stacks, each)}\n"


def table(stacks: str, each: float, shown: int = 12) -> str:
    """Layers and functions of py-spy's raw stacks, each line `outermost;...;innermost samples`; a message takes `each`."""
    layers: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for line in stacks.splitlines():
        path, _, samples = line.rpartition(" ")
        frames = path.split(";")
        layer = layer_of(frames)
        layers[layer] += int(samples)
        if layer not in LEFT_OUT:
            ends[frames[-1].partition(":")[0]] += int(samples)
    for layer in LEFT_OUT:
        layers.pop(layer, None)
    total = sum(layers.values())

    def rows(counted: Counter[str], most: int | None) -> list[str]:
        return [
            f"  {100 * n / total:5.1f} %  {each * n / total:5.1f} µs  {what}" for what, n in counted.most_common(most)
        ]

    return "\n".join([*rows(layers, None), "  the functions in which most samples ended:", *rows(ends, shown)])


def layer_of(frames: Sequence[str]) -> str:
    """Of a stack, outermost frame first."""
    if any("_find_and_load" in frame or "calibrate" in frame for frame in frames):
        return START
    if frames[-1].startswith(WAITING):
        return SLEEP
    for frame in reversed(frames):
        for layer, places in LAYERS:
            if any(place in frame for place in places):
                return layer
    return "other"


if __name__ == "__main__":
    sys.exit(main())
