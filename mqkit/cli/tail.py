"""`mqkit tail`: follows what is published to a topic, as one more reader that nobody else notices."""

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from mqkit.async_app import AsyncApp
from mqkit.backend import Receiver, Settlement, Subscription
from mqkit.cli.opening import connected, require_topic
from mqkit.cli.options import AsJson, TopicName, Url
from mqkit.cli.output import body_fields, header_text, line, put, readable, remark, tell
from mqkit.envelope import Envelope, key_text, unseal
from mqkit.errors import ConfigurationError, MessageError
from mqkit.legible import in_line
from mqkit.message import Delivery

PULSE = 1.0
"""Seconds after which a receiver without messages is asked again."""
AT_ONCE = 100

Show = Callable[[Delivery], None]


def tail(
    topic: TopicName,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after N messages.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", min=0, help="End after so long.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Follow what is published to a topic from now on.

    No group loses a message by it. With --count and --timeout, it exits 1 if fewer came in time.

    Examples:
      $ mqkit tail purchases
      $ mqkit tail purchases --json --count 1 --timeout 30 | jq -r .body
    """
    app = AsyncApp(url)
    came = asyncio.run(_follow(app, topic, count, timeout, _as_line if as_json else _as_text))
    if count is not None and came < count:
        raise ConfigurationError(f"{came:,} of {count:,} messages came to {topic!r} within {timeout:g} s")


async def _follow(app: AsyncApp, topic: str, count: int | None, timeout: float | None, show: Show) -> int:
    async with connected(app) as there:
        await require_topic(there.backend, there.url, topic)
        subscription = Subscription(topic=topic, group="tail", source="tail", prefetch=AT_ONCE)
        receiver = await there.backend.open_receiver(subscription, lambda *_: None)
        try:
            remark(f"following {topic} at {there.url}, Ctrl-C ends")
            return await _read(receiver, count, timeout, show)
        finally:
            await receiver.close()


async def _read(receiver: Receiver, count: int | None, timeout: float | None, show: Show) -> int:
    came = 0
    until = None if timeout is None else time.monotonic() + timeout
    while count is None or came < count:
        left = PULSE if until is None else min(PULSE, until - time.monotonic())
        if left < 0:
            break
        deliveries = await receiver.receive(AT_ONCE if count is None else min(AT_ONCE, count - came), left)
        for delivery in deliveries:
            show(delivery)
        came += len(deliveries)
        if deliveries:
            await receiver.settle([(delivery.token, Settlement.DONE) for delivery in deliveries])
    return came


def _envelope(delivery: Delivery) -> Envelope | MessageError:
    try:
        return unseal(delivery, now=time.time())
    except MessageError as error:
        return error


def _as_line(delivery: Delivery) -> None:
    envelope = _envelope(delivery)
    wire = delivery.message
    if isinstance(envelope, MessageError):
        seen: dict[str, object] = {"id": wire.id, "problem": str(envelope), "headers": wire.headers}
    else:
        seen = {
            "id": envelope.id,
            "type": envelope.type,
            "source": envelope.source,
            "time": envelope.time and envelope.time.isoformat(),
            "content_type": envelope.content_type,
            "headers": envelope.headers,
        }
    line({"topic": delivery.topic, "key": key_text(wire.key), **seen, **body_fields(wire.body)})


def _clock(time: datetime) -> str:
    """The time of day here; a time that is none here (of the year 1, as some write for none) as it came."""
    try:
        return time.astimezone().strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return time.isoformat()


def _as_text(delivery: Delivery) -> None:
    envelope = _envelope(delivery)
    head = Text(overflow="fold")
    if isinstance(envelope, MessageError):
        head.append(f"unreadable envelope: {in_line(str(envelope))}", "red")
    else:
        when = f"{_clock(envelope.time)} " if envelope.time else ""
        head.append(when, "dim").append(in_line(envelope.id or "no id"), "bold cyan")
        if delivery.message.key is not None:
            head.append("  key ", "dim").append(in_line(key_text(delivery.message.key) or ""), "bold")
        if envelope.type or envelope.source:
            head.append(in_line(f"  {envelope.type or '?'} from {envelope.source or '?'}"), "dim")
        for name, value in envelope.headers.items():
            head.append(f"  {in_line(name)}={header_text(value)}", "dim magenta")
    tell(head)
    put(Padding(readable(delivery.message.body), (0, 0, 0, 2), expand=False))
    sys.stdout.flush()
