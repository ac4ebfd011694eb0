"""What exists at the broker and what must: topics made, compared, counted. One AdminClient, called from any thread."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]  # as above
from confluent_kafka.admin._metadata import ClusterMetadata  # only so do type checkers find it

from mqkit.backend import Counts
from mqkit.backends.kafka.counting import Log, counts
from mqkit.backends.kafka.faults import DriverLog, Trouble, as_ours, log, mapped
from mqkit.backends.kafka.logs import id_of
from mqkit.backends.kafka.offsets import decode, in_log
from mqkit.backends.kafka.options import Settings, client_config
from mqkit.backends.kafka.plan import (
    LIMIT,
    Found,
    Wanted,
    beside,
    beside_differences,
    cautions,
    dangers,
    shown,
    to_make,
    topic_differences,
    topic_wanted,
)
from mqkit.backends.kafka.settled import Facts, Settled
from mqkit.backends.kafka.tiers import tiers, tiers_group_name
from mqkit.errors import AuthenticationFailed, BackendError, ConnectionLost, TopologyError, Unroutable
from mqkit.topology import Finding, Topology, dead_name, group_name

T = TypeVar("T")

LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the driver's
EARLIEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the driver's
PATIENCE = 10.0
"""Seconds for one answer of the broker."""
LOOK_AGAIN = 0.02
"""Seconds between two looks at whether a new topic has leaders."""


class KafkaAdmin:
    """Questions to the cluster, and the making of topics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trouble = Trouble(settings.servers)
        self._lock = Lock()
        self._opened: AdminClient | None = None

    @property
    def client(self) -> AdminClient:
        """The driver's client, made when first asked for."""
        with self._lock:
            if self._opened is None:
                config: dict[str, Any] = {
                    **client_config(self._settings),
                    **self._settings.rdkafka,
                    "error_cb": self._trouble.hear,
                }
                with mapped("the Kafka client's settings"):
                    self._opened = AdminClient(config, logger=DriverLog())
            return self._opened

    def close(self) -> None:
        """Let go of the client."""
        with self._lock:
            self._opened = None

    def metadata(self, timeout: float = PATIENCE) -> ClusterMetadata:
        """All topics and brokers.

        Raises:
            ConnectionLost, AuthenticationFailed
        """
        client = self.client
        with mapped("no answer", self._trouble):
            try:
                metadata = client.list_topics(timeout=timeout)
            except KafkaException:
                client.poll(0)  # hear why
                raise
        self._trouble.forget()
        return metadata

    def answers(self, futures: Mapping[T, "Future[Any]"], what: str) -> dict[T, Any]:
        """What the broker answered, for those that it knows.

        Raises:
            BackendError: one of the answers is another error than that there is no such thing.
        """
        found = {}
        for name, future in futures.items():
            try:
                with mapped(what, self._trouble):
                    found[name] = future.result(PATIENCE)
            except FutureTimeout as failure:
                raise ConnectionLost(f"Kafka at {self._settings.servers}: {what}: no answer") from failure
        return found

    def settings_of(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of topics that exist."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        found = self.answers(self.client.describe_configs(resources, request_timeout=PATIENCE), "settings of topics")
        return {
            resource.name: {name: entry.value for name, entry in entries.items() if entry.value is not None}
            for resource, entries in found.items()
        }

    def describe(self, names: Iterable[str]) -> Mapping[str, "Future[Any]"]:
        """Ask for topics' descriptions; does not wait for them."""
        return self.client.describe_topics(TopicCollection(list(names)), request_timeout=PATIENCE)

    def ids(self, names: Iterable[str]) -> dict[str, str]:
        """The ids of the logs of topics; empty where the broker has none, or does not tell us.

        Raises:
            Unroutable: there is no such topic.
            ConnectionLost
        """
        found = {}
        for name, future in self.describe(names).items():
            try:
                found[name] = id_of(self.answers({name: future}, f"topic {name}")[name])
            except AuthenticationFailed as failure:
                log.debug("the id of topic %s: %s", name, failure)
                found[name] = ""
        return found

    def delete(self, finished: Sequence[TopicPartition]) -> Mapping[TopicPartition, "Future[Any]"]:
        """Ask for the removal of all records before these positions; does not wait for it."""
        return self.client.delete_records(list(finished), request_timeout=PATIENCE, operation_timeout=PATIENCE)

    def limit(self, name: str) -> int | None:
        """The largest message that a topic takes; None where the broker does not tell us."""
        try:
            return int(self.settings_of([name])[name][LIMIT])
        except Exception as error:  # noqa: BLE001  it only makes an error's text better
            log.debug("the limit of topic %s: %s", name, error)
            return None

    def declare(self, topology: Topology) -> None:
        """As BlockingBackend.declare."""
        known = self.metadata().topics.keys()
        pairs = [(need, topic_wanted(need)) for need in topology.topics]
        self._make(wanted for _, wanted in pairs if wanted.name not in known)
        settings = self.settings_of(wanted.name for _, wanted in pairs)
        others = [other for need, wanted in pairs for other in beside(need, wanted, settings.get(wanted.name, {}))]
        self._make(other for other in others if other.name not in known)
        findings = self.examine(topology)
        lines = [line for finding in findings for line in finding.lines()]
        if lines:
            raise TopologyError("Kafka has topics with other settings than the app needs; nothing was changed:", lines)

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As BlockingBackend.examine."""
        topics = self.metadata().topics
        pairs = [(need, topic_wanted(need)) for need in topology.topics]
        plans: list[tuple[Wanted, bool]] = []
        existing = self.settings_of(wanted.name for _, wanted in pairs if wanted.name in topics)
        for need, wanted in pairs:
            plans.append((wanted, True))
            plans += [(other, False) for other in beside(need, wanted, existing.get(wanted.name, {}))]
        existing |= self.settings_of(wanted.name for wanted, own in plans if not own and wanted.name in topics)
        offsets_kept = self._offsets_kept()
        findings = []
        for wanted, own in plans:
            if wanted.name not in topics:
                findings.append(Finding("topic", wanted.name, "missing", shown(wanted, self._settings)))
                continue
            partitions = topics[wanted.name].partitions
            replication = min((len(partition.replicas) for partition in partitions.values()), default=0)
            found = Found(len(partitions), replication, existing[wanted.name])
            differences = topic_differences(wanted, found) if own else beside_differences(wanted, found)
            facts = (("partitions", str(found.partitions)), ("replication", str(replication)))
            findings.append(
                Finding(
                    "topic", wanted.name, "differs" if differences else "present", facts, differences,
                    () if own else dangers(wanted, found), cautions(wanted, found, offsets_kept) if own else (),
                )
            )  # fmt: skip
        return findings

    def _offsets_kept(self) -> float | None:
        """Seconds for which Kafka keeps the offsets of a group that has no member; None if it does not tell us."""
        try:
            (number, *_) = self.metadata().brokers
            broker = ConfigResource(ResourceType.BROKER, str(number))
            entries = self.client.describe_configs([broker], request_timeout=PATIENCE)[broker].result(PATIENCE)
            return int(entries["offsets.retention.minutes"].value) * 60.0
        except Exception as error:  # noqa: BLE001  only advice comes of it
            log.debug("how long offsets are kept: %s", error)
            return None

    def ends(self, places: Iterable[TopicPartition]) -> list[TopicPartition]:
        """These partitions, each with the offset that its next record gets."""
        asked = _each(places, LATEST)
        found = self.answers(self.client.list_offsets(asked, request_timeout=PATIENCE), "the ends of logs")
        return [TopicPartition(place.topic, place.partition, end.offset) for place, end in found.items()]

    def count(self, topic: str, group: str, metadata: ClusterMetadata, settled: Settled | None) -> Counts:
        """How a group stands; `metadata` holds its topics.

        Args:
            settled: which of its dead letters are settled, where there is such a topic.
        """
        dead = dead_name(topic, group)
        names = [topic, *(tier.name for tier in tiers(topic, group)), dead, *([settled.name] if settled else [])]
        places = [TopicPartition(name, number) for name in names for number in metadata.topics[name].partitions]
        asked = {"request_timeout": PATIENCE}
        what = f"how group {group} of {topic} stands"
        asking = (group_name(topic, group), tiers_group_name(topic, group), dead)
        # first: librdkafka crashes when it asks a coordinator that is not ready for offsets (its issue 5040)
        described = self.answers(self.client.describe_consumer_groups(list(asking), **asked), what)
        # up to where transactions are open nobody is given anything
        ends = self.client.list_offsets(_each(places, LATEST), isolation_level=IsolationLevel.READ_COMMITTED, **asked)
        starts = self.client.list_offsets(_each(places, EARLIEST), **asked)
        committed = [
            self.client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(one)], **asked) for one in asking
        ]
        ids = self.ids(names)
        ended, started = self.answers(ends, what), self.answers(starts, what)
        logs = {(place.topic, place.partition): Log(started[place].offset, ended[place].offset) for place in places}
        progress = {
            (place.topic, place.partition): known
            for answer in committed
            for found in self.answers(answer, what).values()
            for place in found.topic_partitions
            if place.offset >= 0
            and (known := in_log(decode(place.offset, place.metadata), ids.get(place.topic, ""))) is not None
        }
        members = any(found.members for name, found in described.items() if name in asking[:2])
        facts: Facts = {}
        if settled is not None and any(log.end > log.start for (name, _), log in logs.items() if name == dead):
            log = logs[settled.name, 0]
            settled.in_log(ids[settled.name])
            facts = settled.facts(ids[dead], log.start, log.end)
        return counts(topic, group, logs, progress, members=members, settled=facts)

    def _make(self, wanted: Iterable[Wanted]) -> None:
        """Create these topics, and wait until they can be used. It is fine if somebody else was faster."""
        topics = []
        for one in wanted:
            partitions, replication = to_make(one, self._settings)
            topics.append(NewTopic(one.name, partitions, replication, config=dict(one.settings)))
        if not topics:
            return
        for name, future in self.client.create_topics(topics, request_timeout=PATIENCE).items():
            try:
                future.result(PATIENCE)
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in IMPOSSIBLE:
                    raise TopologyError(f"Kafka cannot make topic {name}: {error.str()}") from failure
                if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise as_ours(error, f"making topic {name}") from failure
        self._await_leaders({topic.topic for topic in topics})

    def _await_leaders(self, names: set[str]) -> None:
        """Until the brokers that lead the new topics know of it: metadata tells before they do."""
        deadline = monotonic() + PATIENCE
        while not self._led(names):
            if monotonic() > deadline:
                raise ConnectionLost(f"Kafka at {self._settings.servers}: new topics have no leaders")
            sleep(LOOK_AGAIN)

    def _led(self, names: set[str]) -> bool:
        topics = self.metadata().topics
        if not names <= topics.keys() or not all(topics[name].partitions for name in names):
            return False
        try:
            self.ends(TopicPartition(name, number) for name in names for number in topics[name].partitions)
        except BackendError as error:
            if error.retryable or isinstance(error, Unroutable):
                return False
            raise
        return True


def _each(places: Iterable[TopicPartition], what: OffsetSpec) -> dict[TopicPartition, OffsetSpec]:
    return dict.fromkeys(places, what)


IMPOSSIBLE = frozenset(
    {
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_REQUEST,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    }
)
"""The broker's ways to say that a topic cannot be as it was asked for."""
