"""Kafka, on confluent-kafka: `kafka://host1:9092,host2:9092/`. What mqkit can know of it without its driver.

The mapping: a topic is a Kafka topic, a group the consumer group `topic.group`, dead letters and each step of a delay
are topics beside it (tiers.py). What is finished is kept in the group's committed offsets (offsets.py).
"""

from collections.abc import Sequence

from mqkit.backend import BackendSpec, Capabilities
from mqkit.backends.kafka.options import KafkaTopic
from mqkit.hookspecs import hookimpl

__all__ = ["CAPABILITIES", "LEASE", "SPEC", "KafkaTopic", "mqkit_backends"]

LEASE = 10.0
"""Seconds without a heartbeat after which the broker gives a member's partitions to others, or less."""

CAPABILITIES = Capabilities(
    remote=True,
    exact_delay=False,
    routing_checked=False,
    history=True,
    lag=True,
    attribute_prefix="ce_",
    lease=LEASE,
    max_message_bytes=1_048_588,
)

SPEC = BackendSpec(
    name="kafka",
    summary="Apache Kafka 2.4 or later, through confluent-kafka: partitions, key order, history.",
    schemes=("kafka",),
    example_url="kafka://localhost:9092/",
    capabilities=CAPABILITIES,
    blocking="mqkit.backends.kafka.client:KafkaBackend",
    extra="mqkit[kafka]",
)


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """As the hook of that name."""
    return [SPEC]
