"""One case of the guard, in a process of its own: `python -m tests.bench.guard_case CASE URL [BURDEN [ROUNDS]]`.

Prints the steps of this process for each message (see steps.py), the mean of several rounds. What is sent and received
is always the same, and in full batches: then only mqkit decides what a message takes. BURDEN is extra work for each
message, in turns of a loop: so that the guard can be seen to bark.
"""

import asyncio
import secrets
import sys
import time
from contextlib import nullcontext
from itertools import cycle, islice
from types import SimpleNamespace

import mqkit.event_loop
from mqkit import AsyncApp, Topic
from mqkit.bench.orders import SMALL, Order, made_up, sized
from tests.bench.steps import Steps, counting

ROUNDS = 3
BATCH = 1_000
"""Messages of one round."""
CONCURRENCY = 100
GROUP = "bench"
SLOWNESS = 1_000.0
"""How much slower the clock of the orchestration runs: whatever the machine does, handlers look quick, as they are."""


class SlowLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers are late, so that none of them fires because counting or the machine is slow."""

    def time(self) -> float:
        """Seconds on its own clock."""
        return super().time() / 10


def work(steps: Steps, burden: int) -> None:
    """Turns of a loop that count as mqkit's."""
    for _ in range(burden):
        steps.on_line(sys._getframe(), "line", None)


async def publish(steps: Steps, url: str, topic: Topic[Order], burden: int, rounds: int) -> float:
    orders = cycle([sized(order, SMALL) for order in islice(made_up(), BATCH)])
    batches = [list(islice(orders, BATCH)) for _ in range(rounds)]
    async with AsyncApp(url, service="bench") as app:
        await app.publish_many(topic, batches[0])
        before = steps.taken()
        for batch in batches:
            await app.publish_many(topic, batch)
            work(steps, burden * BATCH)
        return (steps.taken() - before) / (rounds * BATCH)


async def consume(steps: Steps, url: str, topic: Topic[Order], burden: int, rounds: int) -> float:
    orders = cycle([sized(order, SMALL) for order in islice(made_up(), BATCH)])
    app = AsyncApp(url, service="bench")
    done = asyncio.Event()
    handled, first, last = 0, 0, 0

    async def handle(_: Order) -> None:
        nonlocal handled, first, last
        work(steps, burden)
        handled += 1
        if handled == BATCH:
            first = steps.taken()
        elif handled == (rounds + 1) * BATCH:
            last = steps.taken()
            done.set()

    app.subscribe(topic, group=GROUP, concurrency=CONCURRENCY, prefetch=BATCH - CONCURRENCY)(handle)
    async with app:
        for _ in range(rounds + 2):
            await app.publish_many(topic, list(islice(orders, BATCH)))
        async with app.working():
            await done.wait()
    return (last - first) / (rounds * BATCH)


def main(case: str, url: str, burden: str = "0", rounds: str = str(ROUNDS), counted: str = "counted") -> None:
    topic = Topic(f"bench-guard-{secrets.token_hex(4)}", Order, key="customer", groups=[GROUP])
    act = publish if case == "publish" else consume
    slow = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() / SLOWNESS)
    vars(mqkit.event_loop)["time"] = slow  # the module, as far as it is used there
    with counting() if counted else nullcontext(Steps()) as steps, asyncio.Runner(loop_factory=SlowLoop) as runner:
        print(runner.run(act(steps, url, topic, int(burden), int(rounds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
