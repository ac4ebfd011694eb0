"""Which Kafka topics a topology asks for, and how what exists differs from that. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mqkit.backends.kafka.options import KafkaTopic, Settings
from mqkit.backends.kafka.tiers import delay_tiers, retry_tiers, settled_name
from mqkit.errors import TopologyError
from mqkit.topology import Difference, TopicNeed, dead_name

LIMIT = "max.message.bytes"
HEADROOM = 65_536
"""Bytes that a waiting or dead copy may be larger than what came: it says in headers why it waits."""
FOREVER: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1"}
"""What waits or is dead stays until it is dealt with."""
STORED: Mapping[str, str] = {"message.timestamp.type": "LogAppendTime"}
"""What waits does so from when the broker has stored it, whatever the clock of its writer says."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One Kafka topic that must exist. What is None, or not among the settings, is not compared."""

    name: str
    partitions: int | None = None
    replication: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """One Kafka topic that exists."""

    partitions: int
    replication: int
    settings: Mapping[str, str]


def topic_wanted(need: TopicNeed) -> Wanted:
    """The topic itself.

    Raises:
        TopologyError: two of its `KafkaTopic` options say different things.
    """
    merged: dict[str, object] = {}
    settings: dict[str, str] = {}
    clashes = []
    for option in need.options:
        if isinstance(option, KafkaTopic):
            said = {"partitions": option.partitions, "replication": option.replication, **option.settings()}
            for name, value in said.items():
                if value is not None and merged.setdefault(name, value) != value:
                    clashes.append(f"topic {need.name}: {name} is asked to be both {merged[name]} and {value}")
            settings |= option.settings()
    if clashes:
        raise TopologyError(f"the KafkaTopic options of topic {need.name} contradict each other:", clashes)
    partitions, replication = merged.get("partitions"), merged.get("replication")
    assert partitions is None or isinstance(partitions, int)
    assert replication is None or isinstance(replication, int)
    return Wanted(need.name, partitions, replication, settings)


def beside(need: TopicNeed, topic: Wanted, found: Mapping[str, str]) -> list[Wanted]:
    """The topics beside it. They take all that it takes, by the settings that were `found` on it or asked for."""
    settings = {**found, **topic.settings}
    kept = {name: settings[name] for name in ("min.insync.replicas",) if name in topic.settings}
    if LIMIT in settings:
        kept[LIMIT] = str(int(settings[LIMIT]) + HEADROOM)
    groups = sorted(need.groups)
    wanted = [Wanted(dead_name(need.name, group), 1, topic.replication, {**FOREVER, **kept}) for group in groups]
    wanted += [
        Wanted(tier.name, 1, topic.replication, {**FOREVER, **STORED, **kept})
        for group in groups
        for tier in retry_tiers(need.name, group)
    ]
    facts = {name: value for name, value in kept.items() if name != LIMIT}
    wanted += [Wanted(settled_name(need.name, group), 1, topic.replication, {**FOREVER, **facts}) for group in groups]
    if "retention.ms" in topic.settings:  # a delayed message is one of the topic's own, kept as long after its time
        kept["retention.ms"] = topic.settings["retention.ms"]
    for tier in delay_tiers(need.name):
        own = {**STORED, **kept}
        if int(own.get("retention.ms", -1)) >= 0:
            own["retention.ms"] = str(int(own["retention.ms"]) + int(tier.step * 1000))
        wanted.append(Wanted(tier.name, 1, topic.replication, own))
    return wanted


def topic_differences(wanted: Wanted, found: Found) -> tuple[Difference, ...]:
    """How a topic differs from what was asked for."""
    name, different = wanted.name, []
    if wanted.partitions is not None and wanted.partitions != found.partitions:
        remedy = (
            f"kafka-topics --alter --topic {name} --partitions {wanted.partitions} adds them; keys then move"
            if wanted.partitions > found.partitions
            else f"partitions cannot be taken away: say partitions={found.partitions}, or make a new topic"
        )
        different.append(Difference("partitions", str(wanted.partitions), str(found.partitions), remedy))
    if wanted.replication is not None and wanted.replication != found.replication:
        remedy = f"kafka-reassign-partitions changes it, or say replication={found.replication}"
        different.append(Difference("replication", str(wanted.replication), str(found.replication), remedy))
    for setting, value in sorted(wanted.settings.items()):
        known = found.settings.get(setting)
        if known != value:
            different.append(
                Difference(setting, value, "not set" if known is None else known, _alter(name, setting, value))
            )
    return tuple(different)


def beside_differences(wanted: Wanted, found: Found) -> tuple[Difference, ...]:
    """How a topic beside one falls short: an operator may well keep dead letters for a shorter time."""
    limit, known = wanted.settings.get(LIMIT), found.settings.get(LIMIT)
    if limit is None or known is None or int(known) >= int(limit) - HEADROOM:
        return ()
    return (Difference(LIMIT, limit, known, _alter(wanted.name, LIMIT, limit)),)


def dangers(wanted: Wanted, found: Found) -> tuple[str, ...]:
    """How a topic that shall keep what waits or is dead can lose it."""
    if wanted.settings.get("retention.ms") != FOREVER["retention.ms"]:
        return ()
    name, said = wanted.name, []
    kept = _time(found.settings.get("retention.ms"))
    if kept is not None:
        said.append(
            f"topic {name} keeps nothing for longer than {_shown(kept)}, finished or not: "
            + _alter(name, "retention.ms", FOREVER["retention.ms"])
        )
    if (size := found.settings.get("retention.bytes", "-1")) != "-1":
        said.append(
            f"topic {name} keeps no more than {int(size):,} bytes, finished or not: "
            + _alter(name, "retention.bytes", "-1")
        )
    if "compact" in found.settings.get("cleanup.policy", ""):
        said.append(
            f"topic {name} keeps only the last message of each key, finished or not: "
            + _alter(name, "cleanup.policy", FOREVER["cleanup.policy"])
        )
    return tuple(said)


def cautions(wanted: Wanted, found: Found, offsets_kept: float | None) -> tuple[str, ...]:
    """What becomes of a topic's groups when they are without workers for as long as Kafka keeps their offsets, in
    seconds; None if that is not known.
    """
    kept = _time(found.settings.get("retention.ms"))
    if offsets_kept is None or (kept is not None and kept <= offsets_kept):
        return ()
    long = "for ever" if kept is None else f"for {_shown(kept)}"
    said = (
        f"topic {wanted.name} keeps messages {long}, and Kafka keeps how far a group without workers is for "
        f"{_shown(offsets_kept)} (offsets.retention.minutes): after that it begins again with the oldest message"
    )
    return (said,)


def _time(milliseconds: str | None) -> float | None:
    """In seconds; None for ever, or if it is not known."""
    return None if milliseconds is None or int(milliseconds) < 0 else int(milliseconds) / 1000


def _shown(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} seconds"


def _alter(name: str, setting: str, value: str) -> str:
    return f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config {setting}={value} changes it"


def shown(wanted: Wanted, settings: Settings) -> tuple[tuple[str, str], ...]:
    """What a topic gets when it is made, for people."""
    partitions, replication = to_make(wanted, settings)
    counts = (("partitions", partitions), ("replication", replication))
    return (
        *((name, str(count) if count > 0 else "the broker's default") for name, count in counts),
        *sorted(wanted.settings.items()),
    )


def to_make(wanted: Wanted, settings: Settings) -> tuple[int, int]:
    """(partitions, replication) of a topic that is made; -1 for the broker's default."""
    return wanted.partitions or settings.partitions or -1, wanted.replication or settings.replication or -1


def groups_among(names: Iterable[str], topic: str | None) -> Sequence[tuple[str, str]]:
    """(topic, group) of each group, known by its topic for dead letters."""
    known = set(names)
    found = []
    for name in sorted(known):
        if name.endswith(".dlq"):
            owner, _, group = name.removesuffix(".dlq").rpartition(".")
            if owner in known and topic in (None, owner):
                found.append((owner, group))
    return found
