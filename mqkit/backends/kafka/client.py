"""The Kafka backend: opens what sends, receives and asks."""

import _thread
from collections.abc import Iterable, Mapping, Sequence
from uuid import uuid4

from confluent_kafka import TopicPartition
from confluent_kafka.admin._metadata import ClusterMetadata  # only so do type checkers find it

from mqkit.backend import BlockingReceiver, BlockingSender, Counts, Notify, Subscription
from mqkit.backends.kafka import CAPABILITIES
from mqkit.backends.kafka.admin import KafkaAdmin
from mqkit.backends.kafka.dead import DeadReceiver
from mqkit.backends.kafka.faults import Trouble
from mqkit.backends.kafka.green import require_threads
from mqkit.backends.kafka.handover import patience
from mqkit.backends.kafka.logs import Logs
from mqkit.backends.kafka.member import Member
from mqkit.backends.kafka.options import Settings, client_config, parse_url
from mqkit.backends.kafka.plan import groups_among
from mqkit.backends.kafka.receiver import KafkaReceiver
from mqkit.backends.kafka.sender import KafkaSender, producer_config
from mqkit.backends.kafka.settled import Settled
from mqkit.backends.kafka.tiers import Tier, delay_tiers, settled_name, tiers, tiers_group_name
from mqkit.backends.kafka.trimming import Trimming
from mqkit.errors import ConfigurationError
from mqkit.topology import Finding, Topology, dead_name, group_name


class KafkaBackend:
    """`BlockingBackend` on confluent-kafka.

    Args:
        url: `kafka://[user:password@]host1:9092,host2:9092/?option=value`.

    Raises:
        ConfigurationError: a URL that makes no sense; or the threads of this process are green ones.
    """

    capabilities = CAPABILITIES

    def __init__(self, url: str) -> None:
        self._settings = parse_url(url)
        require_threads(_thread.start_new_thread)
        self._admin = KafkaAdmin(self._settings)
        self._settled_of: dict[str, Settled] = {}

    def connect(self, timeout: float) -> str:
        """As BlockingBackend.connect."""
        metadata = self._admin.metadata(timeout)
        count = len(metadata.brokers)
        return f"Kafka, cluster {metadata.cluster_id}, {count} broker{'s' * (count != 1)}"

    def declare(self, topology: Topology) -> None:
        """As BlockingBackend.declare."""
        self._admin.declare(topology)

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As BlockingBackend.examine."""
        return self._admin.examine(topology)

    def open_sender(self) -> BlockingSender:
        """As BlockingBackend.open_sender."""
        return KafkaSender(self._settings, self._admin.limit)

    def open_receiver(self, subscription: Subscription, notify: Notify) -> BlockingReceiver:
        """As BlockingBackend.open_receiver."""
        if subscription.source == "dead":
            return self._open_dead(subscription)
        if subscription.source == "tail":
            return self._open_tail(subscription, notify)
        topic, group = subscription.topic, subscription.group
        names = [topic, *(tier.name for tier in tiers(topic, group))]
        self._require(names, topic, group)
        trouble, logs = Trouble(self._settings.servers), self._logs(names)
        stay = patience(subscription.ordering, self._settings.rdkafka.get("max.poll.interval.ms"))
        waiting = self._member(tiers_group_name(topic, group), tiers(topic, group), trouble, notify, logs, stay)
        own = self._member(group_name(topic, group), [Tier(topic)], trouble, notify, logs, stay)
        for member in (waiting, own):
            member.join()
        return KafkaReceiver(
            topic,
            group,
            (waiting, own),
            trouble=trouble,
            notify=notify,
            logs=logs,
            trimming=Trimming(self._admin.delete),
        )

    def _open_tail(self, subscription: Subscription, notify: Notify) -> KafkaReceiver:
        topic = subscription.topic
        read = (Tier(topic), *delay_tiers(topic))
        topics = self._require((tier.name for tier in read), topic, None).topics
        ends = self._admin.ends(
            TopicPartition(tier.name, number) for tier in read for number in topics[tier.name].partitions
        )
        trouble, logs = Trouble(self._settings.servers), self._logs(tier.name for tier in read)
        member = self._member(f"mqkit-tail-{uuid4()}", read, trouble, notify, logs)
        member.follow(ends)
        return KafkaReceiver(
            topic,
            subscription.group,
            (member,),
            trouble=trouble,
            notify=notify,
            logs=logs,
            trimming=Trimming(self._admin.delete),
        )

    def _logs(self, names: Iterable[str]) -> Logs:
        return Logs(self._admin.describe, self._admin.ids(names))

    def _member(
        self, group_id: str, read: Iterable[Tier], trouble: Trouble, notify: Notify, logs: Logs, stay: float = 0.0
    ) -> Member:
        config, interval = consumer_config(self._settings, group_id), self._settings.commit_interval
        return Member(config, read, interval=interval, trouble=trouble, notify=notify, logs=logs, patience=stay)

    def _open_dead(self, subscription: Subscription) -> DeadReceiver:
        topic, group = subscription.topic, subscription.group
        name = dead_name(topic, group)
        metadata = self._require([name], topic, group)
        settled = self._settled(topic, group, metadata)
        if settled is not None:
            settled.in_log(self._admin.ids([settled.name])[settled.name])
        return DeadReceiver(
            consumer_config(self._settings, name),
            topic,
            group,
            tier=Tier(name, returned=True),
            numbers=sorted(metadata.topics[name].partitions),
            logs=self._logs([name]),
            trimming=Trimming(self._admin.delete),
            settled=settled,
            trouble=Trouble(self._settings.servers),
        )

    def _settled(self, topic: str, group: str, metadata: ClusterMetadata) -> Settled | None:
        name = settled_name(topic, group)
        if name not in metadata.topics:
            return None  # it was declared by an earlier version
        reading, writing = consumer_config(self._settings, name), producer_config(self._settings)
        return self._settled_of.setdefault(name, Settled(name, reading, writing, self._admin.delete))

    def _require(self, names: Iterable[str], topic: str, group: str | None) -> ClusterMetadata:
        """The metadata, if these topics exist."""
        metadata = self._admin.metadata()
        known = metadata.topics
        missing = [name for name in names if name not in known]
        if not missing:
            return metadata
        at = f"at Kafka {self._settings.servers}"
        if topic in missing or topic not in known:
            there = ", ".join(sorted({found for found, _ in groups_among(known, None)})) or "none"
            raise ConfigurationError(
                f"there is no topic {topic!r} {at}: declare it first; the topics with groups are: {there}"
            )
        if group is None or dead_name(topic, group) in known:
            raise ConfigurationError(f"topic {topic!r} {at} lacks the topic {missing[0]!r} beside it: declare it again")
        there = ", ".join(found for _, found in groups_among(known, topic)) or "none"
        raise ConfigurationError(
            f"topic {topic!r} {at} has no group {group!r}: declare it first; its groups are: {there}"
        )

    def inspect(self, topic: str, group: str) -> Counts:
        """As BlockingBackend.inspect."""
        names = [topic, *(tier.name for tier in tiers(topic, group)), dead_name(topic, group)]
        metadata = self._require(names, topic, group)
        return self._admin.count(topic, group, metadata, self._settled(topic, group, metadata))

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As BlockingBackend.groups."""
        return groups_among(self._admin.metadata().topics, topic)

    def close(self) -> None:
        """As BlockingBackend.close."""
        for settled in self._settled_of.values():
            settled.close()
        self._admin.close()


CLASSIC: Mapping[str, object] = {
    "group.protocol": "classic",
    "heartbeat.interval.ms": 500,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,
}
"""The older group protocol is the default: here we say how often a member hears of a rebalance. Under the new one the
broker does, every 5 s by default, and a worker that restarts gets its first message so much later."""


def consumer_config(settings: Settings, group_id: str) -> dict[str, object]:
    """What librdkafka is told."""
    return {
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 5,
        "fetch.wait.max.ms": 100,  # it delays what comes after a pause
        "queued.max.messages.kbytes": 4096,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 5000,  # so much later at most a partition that was added is read
        "topic.metadata.propagation.max.ms": 1000,  # our topics were there at first: one that is not was deleted
        **client_config(settings),
        **(CLASSIC if settings.protocol == "classic" else {"group.protocol": "consumer"}),
        **settings.rdkafka,
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }
