"""A handler that blocks the event loop for longer than RabbitMQ waits for heartbeats keeps its connection."""

import asyncio
import time
from secrets import token_hex

from mqkit import AsyncApp, Topic
from tests.brokers import Broker
from tests.unit.virtual_time import until

HEARTBEAT = 3
"""Seconds: enough for a thread to have its turn on a busy machine."""
BLOCKED = 10.0
"""Seconds: a broker gives up after two heartbeats or three."""


def test_a_blocked_event_loop_costs_no_connection_and_repeats_nothing(rabbitmq_broker: Broker) -> None:
    url = rabbitmq_broker.url
    app = AsyncApp(url + ("&" if "?" in url else "?") + f"heartbeat={HEARTBEAT}")
    topic = Topic[int](f"blocked-{token_hex(4)}", int, groups=["billing"])
    calls: list[int] = []
    events: list[str] = []
    app.listen(lambda event: events.append(event.kind))

    @app.subscribe(topic, group="billing")
    async def block(number: int) -> None:
        calls.append(number)
        time.sleep(BLOCKED)  # noqa: ASYNC251 - as people do

    async def main() -> None:
        async with app.working():
            await app.publish(topic, 1)
            await until(lambda: "done" in events)
            await app.publish(topic, 2)  # by the connection of senders, which was silent for as long
            await until(lambda: events.count("done") == 2)

    asyncio.run(main())
    assert calls == [1, 2]
    assert not {"disconnected", "lease-lost"} & set(events)
