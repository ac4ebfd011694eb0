"""Makes RabbitMQ have what is wanted, or says what it has. Over several channels at once: each queue takes its time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mqkit.backends.rabbitmq.channels import Channel, ChannelClosed, NotFound, PreconditionFailed
from mqkit.backends.rabbitmq.link import Link
from mqkit.backends.rabbitmq.management import Management
from mqkit.backends.rabbitmq.policies import dangers
from mqkit.backends.rabbitmq.topology import (
    Binding,
    Exchange,
    Queue,
    Wanted,
    difference,
    differences,
    exchange_differences,
)
from mqkit.errors import BackendError, TopologyError
from mqkit.topology import Difference, Finding, State

log = logging.getLogger("mqkit")

T = TypeVar("T")
R = TypeVar("R")
CHANNELS = 4
PATIENCE = 60.0
"""Seconds for one thing. Thousands of queues take minutes the first time: what counts is that it goes on."""
SILENCE = 5.0
"""Seconds between two lines of the log about how far it is."""
UNSEEN = (("seen", "no: only the management API can tell"),)


class Declaring:
    """What is done over one connection."""

    def __init__(self, link: Link, management: Management) -> None:
        self._link = link
        self._management = management

    async def declare(self, wanted: Wanted) -> None:
        """Make what is missing.

        Raises:
            TopologyError: some of it is there with other settings; that is left alone.
            BackendError: some of it was deleted meanwhile; to be asked again.
        """
        refused = [
            *await self._each(wanted.exchanges, self._declare_exchange, "exchanges are declared"),
            *await self._each(wanted.queues, self._declare_queue, "queues are declared"),
        ]
        different = [finding for finding in refused if finding is not None]
        if not different:
            await self._each(wanted.bindings, _bind, "bindings are declared")
        if different:
            raise TopologyError(
                f"RabbitMQ at {self._link.url.where} has something else than is needed, and keeps it as it is:",
                [line for finding in different for line in finding.lines()],
            )

    async def _declare_exchange(self, channel: Channel, exchange: Exchange) -> Finding | None:
        try:
            await channel.exchange_declare(
                exchange.name, exchange.type, durable=True, arguments=dict(exchange.arguments)
            )
        except PreconditionFailed as error:
            return _differs("exchange", exchange.name, (), (difference(str(error), "exchange", exchange.name),))
        return None

    async def _declare_queue(self, channel: Channel, queue: Queue) -> Finding | None:
        try:
            await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        except PreconditionFailed as error:
            found = await self._management.queue(queue.name)
            all_of_them = differences(queue, found.get("arguments", {})) if found is not None else ()
            return _differs("queue", queue.name, (), all_of_them or (difference(str(error), "queue", queue.name),))
        return None

    async def examine(self, wanted: Wanted) -> list[Finding]:
        """What is there of it; with the management API also how it differs. Changes nothing."""
        queues, exchanges, bindings, policies = await asyncio.gather(
            self._management.queues(),
            self._management.exchanges(),
            self._management.bindings(),
            self._management.policies(),
        )
        findings: list[Finding] = []
        all_queues = (*wanted.queues, *wanted.later)
        if exchanges is not None:
            findings += [_examined_exchange(exchange, exchanges.get(exchange.name)) for exchange in wanted.exchanges]
        else:
            findings += await self._each(wanted.exchanges, _look_for_exchange)
        if queues is not None:
            findings += [_examined_queue(queue, queues.get(queue.name)) for queue in all_queues]
        else:
            findings += await self._each(all_queues, _look_for_queue)
        told = {queue.name: dangers(queue, policies or ()) for queue in all_queues}
        findings = [
            replace(finding, dangers=told[finding.name]) if finding.kind == "queue" else finding for finding in findings
        ]
        if findings and (unseen := self._unseen(policies, queues, exchanges)):
            findings[0] = replace(findings[0], cautions=unseen)
        later = {queue.name for queue in wanted.later}
        findings = [
            replace(finding, state="on-demand") if finding.state == "missing" and finding.name in later else finding
            for finding in findings
        ]
        missing = {finding.name for finding in findings if finding.state == "missing"}
        findings += [_examined_binding(binding, bindings, missing) for binding in wanted.bindings]
        return findings

    def _unseen(self, policies: object, queues: object, exchanges: object) -> tuple[str, ...]:
        """What could not be looked at, of these that are None."""
        if policies is None:
            return (self._management.unseen("policies, which can delete or limit what waits", "policies"),)
        if queues is None or exchanges is None:
            kind = "queues" if queues is None else "exchanges"
            return (self._management.unseen("the settings of what is there", kind),)
        return ()

    async def _each(
        self, items: Sequence[T], do: Callable[[Channel, T], Awaitable[R]], what: str = "things are looked at"
    ) -> list[R]:
        """What `do` says to each of `items`, in their order; a channel that it lost is replaced.

        Args:
            what: is done with them, for the log while it takes long.
        """
        left = list(reversed(list(enumerate(items))))
        results: dict[int, R] = {}
        loop = asyncio.get_running_loop()
        told = loop.time()

        def tell() -> None:
            nonlocal told
            if loop.time() > told + SILENCE:
                told = loop.time()
                log.info("RabbitMQ at %s: %d of %d %s", self._link.url.where, len(results), len(items), what)

        async def work() -> None:
            channel = await self._link.channel()
            try:
                while left:
                    position, item = left.pop()
                    if channel.is_closed:
                        await self._link.drop(channel)
                        channel = await self._link.channel()
                    try:
                        async with self._link.calling(PATIENCE):
                            results[position] = await do(channel, item)
                    except ChannelClosed as error:
                        raise BackendError(
                            f"RabbitMQ at {self._link.url.where} changed while its things were declared: {error}",
                            retryable=True,
                        ) from error
                    tell()
            except BaseException:
                left.clear()
                raise
            finally:
                await self._link.drop(channel)

        outcomes = await asyncio.gather(*(work() for _ in items[:CHANNELS]), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return [results[position] for position in range(len(items))]


async def _bind(channel: Channel, binding: Binding) -> None:
    if binding.kind == "queue":
        await channel.queue_bind(binding.target, binding.exchange, binding.key)
    else:
        await channel.exchange_bind(binding.target, binding.exchange, binding.key)


async def _look_for_exchange(channel: Channel, exchange: Exchange) -> Finding:
    try:
        await channel.exchange_declare(exchange.name, passive=True)
    except NotFound:
        return Finding("exchange", exchange.name, "missing", exchange.settings)
    return Finding("exchange", exchange.name, "present", exchange.settings)


async def _look_for_queue(channel: Channel, queue: Queue) -> Finding:
    try:
        await channel.queue_declare(queue.name, passive=True)
    except NotFound:
        return Finding("queue", queue.name, "missing", queue.settings)
    return Finding("queue", queue.name, "present", queue.settings)


def _examined_exchange(exchange: Exchange, found: Mapping[str, Any] | None) -> Finding:
    if found is None:
        return Finding("exchange", exchange.name, "missing", exchange.settings)
    return _differs("exchange", exchange.name, exchange.settings, exchange_differences(exchange, found))


def _examined_queue(queue: Queue, found: Mapping[str, Any] | None) -> Finding:
    if found is None:
        return Finding("queue", queue.name, "missing", queue.settings)
    return _differs("queue", queue.name, queue.settings, differences(queue, found.get("arguments", {})))


def _examined_binding(binding: Binding, found: set[tuple[str, str, str, str]] | None, missing: set[str]) -> Finding:
    state: State = "present"
    if found is None:
        state = "missing" if {binding.exchange, binding.target} & missing else "present"
        return Finding("binding", binding.name, state, UNSEEN)
    if (binding.exchange, binding.target, binding.kind, binding.key) not in found:
        state = "missing"
    return Finding("binding", binding.name, state)


def _differs(kind: str, name: str, settings: tuple[tuple[str, str], ...], found: tuple[Difference, ...]) -> Finding:
    return Finding(kind, name, "differs" if found else "present", settings, found)
