"""One case of the guard, in a process of its own: `python -m tests.bench.guard_case CASE URL BURDEN [ROUNDS]`.

CPU of this process for each message, in turns with the calibration loop, several rounds; prints them as JSON. What is
sent and received is always the same, and in full batches: then only mqkit decides what a message costs. BURDEN is
extra work for each message, in turns of a loop: so that the guard can be seen to bark.
"""

import asyncio
import json
import secrets
import sys
import time
from itertools import cycle, islice

from mqkit import AsyncApp, Topic
from mqkit.bench.meter import calibrate
from mqkit.bench.orders import SMALL, Order, made_up, sized

ROUNDS = 20
BATCH = 1_000
"""Messages of one round: few, so that now and then a round is undisturbed."""
ENOUGH, LONGEST = 6, 12.0
"""After so many rounds and seconds it is over: on a machine that is very busy."""
GROUP = "bench"

Rounds = list[tuple[float, float]]
"""For each round the CPU seconds of the calibration loop and of one message."""


def over(rounds: Rounds, began: float, most: int) -> bool:
    return len(rounds) >= (most if time.monotonic() < began + LONGEST else min(most, ENOUGH))


def work(burden: int) -> None:
    for _ in range(burden):
        pass


async def publish(url: str, topic: Topic[Order], burden: int, most: int) -> Rounds:
    orders = cycle([sized(order, SMALL) for order in islice(made_up(), BATCH)])
    rounds: Rounds = []
    async with AsyncApp(url, service="bench") as app:
        await app.publish_many(topic, list(islice(orders, BATCH)))
        began = time.monotonic()
        while not over(rounds, began, most):
            loop, started = calibrate().cpu, time.process_time()
            await app.publish_many(topic, list(islice(orders, BATCH)))
            work(burden * BATCH)
            rounds.append((loop, (time.process_time() - started) / BATCH))
    return rounds


async def consume(url: str, topic: Topic[Order], burden: int, most: int) -> Rounds:
    orders = cycle([sized(order, SMALL) for order in islice(made_up(), BATCH)])
    app = AsyncApp(url, service="bench")
    rounds: Rounds = []
    done = asyncio.Event()
    handled, loop, started, began = 0, 0.0, 0.0, 0.0

    async def handle(_: Order) -> None:
        nonlocal handled, loop, started
        work(burden)
        handled += 1
        if handled % BATCH == 0:
            if started:
                rounds.append((loop, (time.process_time() - started) / BATCH))
            loop, started = calibrate().cpu, time.process_time()
            if over(rounds, began, most):
                done.set()

    app.subscribe(topic, group=GROUP, concurrency=100, prefetch=5 * BATCH)(handle)
    async with app:
        for _ in range(most + 2):
            await app.publish_many(topic, list(islice(orders, BATCH)))
        began = time.monotonic()
        async with app.working():
            await done.wait()
    return rounds


def main(case: str, url: str, burden: str, rounds: str = str(ROUNDS)) -> None:
    topic = Topic(f"bench-guard-{secrets.token_hex(4)}", Order, key="customer", groups=[GROUP])
    act = publish if case == "publish" else consume
    print(json.dumps(asyncio.run(act(url, topic, int(burden), int(rounds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
