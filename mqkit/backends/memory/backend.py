"""The memory backend: reads the URL, declares, opens sessions, counts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl

from mqkit.backend import Capabilities, Counts, Notify, Subscription
from mqkit.backends.memory.broker import Group, MemoryBroker, Topic, find_group, find_topic
from mqkit.backends.memory.lane import Lane
from mqkit.backends.memory.sessions import MemoryReceiver, MemorySender
from mqkit.errors import ConfigurationError
from mqkit.registry import masked, split_url
from mqkit.topology import Finding, Topology

CAPABILITIES: Final = Capabilities(persistent=False, shared=False, typed_headers=True)
OPTIONS: Final = ("max_message_bytes",)


class MemoryBackend:
    """A broker inside of this process."""

    def __init__(self, url: str) -> None:
        parts = split_url(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.path not in ("", "/") or parts.fragment:
            raise ConfigurationError(f"{masked(url)!r}: write memory:// or memory://name, with nothing behind the name")
        if unknown := sorted(options.keys() - set(OPTIONS)):
            raise ConfigurationError(f"{masked(url)!r}: no option {unknown[0]!r}; there is {', '.join(OPTIONS)}")
        limit = options.get("max_message_bytes")
        if limit is not None and (not limit.isdecimal() or not int(limit)):
            raise ConfigurationError(f"{masked(url)!r}: max_message_bytes is a number of bytes, not {limit!r}")
        self.limit = None if limit is None else int(limit)
        self.name = parts.netloc
        self._home = MemoryBroker.named(self.name)
        self.capabilities = replace(CAPABILITIES, max_message_bytes=self.limit)

    @staticmethod
    def broker(name: str = "") -> MemoryBroker:
        """The broker of that name, made when first asked for: where tests cause faults and move the clock."""
        return MemoryBroker.named(name)

    def connect(self, timeout: float) -> str:  # noqa: ARG002 - the seam's signature
        """As Backend.connect."""
        with self._home.reached():
            return f"memory broker {self.name!r}" if self.name else "memory broker"

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        with self._home.reached() as topics:
            for need in topology.topics:
                groups = topics.setdefault(need.name, Topic()).groups
                for group in sorted(need.groups):
                    groups.setdefault(group, Group())

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        findings = []
        with self._home.reached() as topics:
            for need in topology.topics:
                found = topics.get(need.name)
                findings.append(Finding("topic", need.name, "missing" if found is None else "present"))
                for group in sorted(need.groups):
                    there = found is not None and group in found.groups
                    findings.append(Finding("group", f"{need.name}.{group}", "present" if there else "missing"))
        return findings

    def open_sender(self) -> "MemorySender":
        """As Backend.open_sender."""
        with self._home.reached():
            return MemorySender(self._home, self.limit)

    def open_receiver(self, subscription: Subscription, notify: Notify) -> "MemoryReceiver":  # noqa: ARG002 - as above
        """As Backend.open_receiver."""
        with self._home.reached() as topics:
            if subscription.source != "tail":
                group = find_group(topics, subscription.topic, subscription.group)
                return MemoryReceiver(
                    self._home, subscription, group.dead if subscription.source == "dead" else group.live
                )
            tails = find_topic(topics, subscription.topic).tails
            lane = Lane()
            tails[lane] = None
            return MemoryReceiver(self._home, subscription, lane, tails)

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        with self._home.reached() as topics:
            found = find_group(topics, topic, group)
            found.live.ripen(self._home.now())
            return Counts(
                ready=found.live.ready(),
                in_flight=found.live.out,
                waiting=len(found.live.waiting),
                dead=found.dead.ready() + found.dead.out,
            )

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        with self._home.reached() as topics:
            return sorted((name, group) for name in topics if topic in (None, name) for group in topics[name].groups)

    def close(self) -> None:
        """As Backend.close. The broker and its messages stay, for whoever asks for it next."""
