"""Sending: one idempotent producer, a whole batch at a time, every delivery report awaited."""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mqkit.backends.kafka.faults import (
    NO_TOPIC,
    TOO_LARGE,
    UNKNOWN,
    WORTH_ANOTHER_TRY,
    DriverLog,
    Trouble,
    as_ours,
    log,
    mapped,
)
from mqkit.backends.kafka.options import Settings, client_config
from mqkit.backends.kafka.tiers import destination
from mqkit.backends.kafka.wire import record_size, to_record
from mqkit.errors import (
    BackendError,
    ClosedError,
    ConnectionLost,
    MessageTooLarge,
    MqkitError,
    PublishError,
    Unroutable,
)
from mqkit.message import Outgoing

SLICE: Final = 0.2
"""Seconds of one wait in the driver, which no signal interrupts."""
LARGEST: Final = 100_000_000
"""Bytes that the client lets pass: what a broker's socket takes by default. Topics have limits of their own."""
PATIENCE: Final = 5.0
"""Seconds for the first answer of a broker."""
BATCH: Final = 1_000_000
"""Bytes that the driver puts into one batch by default; a topic may take less."""

Limit = Callable[[str], int | None]
"""The largest message that a topic takes, if that can be known."""


class KafkaSender:
    """`BlockingSender` on a confluent-kafka Producer."""

    def __init__(self, settings: Settings, limit: Limit) -> None:
        self._trouble = Trouble(settings.servers)
        self._limit = limit
        self._limits: dict[str, int] = {}
        self._batch = int(settings.rdkafka.get("batch.size", BATCH)) + 1000  # with what is around the records
        self._compressed = any(name.startswith("compression") for name in settings.rdkafka)
        self._known: set[str] = set()
        self._closed = False
        self._end: MqkitError | None = None
        config = producer_config(settings)
        with mapped("the Kafka producer's settings"):
            self._producer = Producer(config | {"error_cb": self._trouble.hear}, logger=DriverLog())
        try:
            self._missing({""}, monotonic() + PATIENCE)
        except MqkitError:
            self.close()
            raise

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:
        """As BlockingSender.send."""
        if self._closed:
            raise ClosedError("this sender is closed")
        if self._end is not None:
            raise self._end
        deadline = monotonic() + timeout
        names = [destination(outgoing) for outgoing in batch]
        missing = self._missing(set(names) - self._known, deadline)
        sending = _Batch()
        for position, (name, outgoing) in enumerate(zip(names, batch, strict=True)):
            if name in missing:
                sending.rejected[position] = Unroutable(f"there is no topic {name} at Kafka {self._trouble.servers}")
            else:
                self._produce(sending, position, name, outgoing, deadline)
        self._wait(sending, deadline)
        self._conclude(sending, names, batch)

    def _missing(self, names: set[str], deadline: float) -> set[str]:
        """Which topics do not exist. To find that out from a produce would take half a minute."""
        if names:
            with mapped("no answer about its topics", self._trouble):
                try:
                    found = self._producer.list_topics(timeout=max(0.1, deadline - monotonic()))
                except KafkaException:
                    self._producer.poll(0)  # hear why
                    raise
            self._known |= found.topics.keys()
            self._trouble.forget()
        return names - self._known

    def _produce(self, sending: "_Batch", position: int, name: str, outgoing: Outgoing, deadline: float) -> None:
        value, key, headers = to_record(outgoing.message)
        if len(outgoing.message.body) > BATCH // 2 or self._limits.get(name, LARGEST) <= self._batch:
            size = record_size(value, key, headers)
            limit = self._limit_of(name)
            if size > limit and not self._compressed:
                sending.rejected[position] = MessageTooLarge(size, limit, f"topic {name}")
                return
            if sending.sizes.get(name, 0) + size > limit:  # the broker measures whole batches
                self._wait(sending, deadline)
            sending.sizes[name] = sending.sizes.get(name, 0) + size
        report = partial(sending.report, position)
        while True:
            try:
                self._producer.produce(name, value, key, on_delivery=report, headers=headers)
            except BufferError:
                if (rest := deadline - monotonic()) <= 0:
                    sending.unknown[position] = self._trouble.ours("its queue here stayed full")
                    return
                self._producer.poll(min(SLICE, rest))
            except KafkaException as failure:
                self._fail(sending, position, name, outgoing, failure.args[0])
                return
            except (TypeError, ValueError) as failure:
                sending.rejected[position] = BackendError(f"Kafka cannot carry this message: {failure}")
                return
            else:
                sending.pending.add(position)
                return

    def _limit_of(self, name: str) -> int:
        if name not in self._limits:
            self._limits[name] = min(self._limit(name) or LARGEST, LARGEST)
        return self._limits[name]

    def _wait(self, sending: "_Batch", deadline: float) -> None:
        """Until every delivery report is in, or the time is over."""
        while sending.pending and (rest := deadline - monotonic()) > 0:
            self._producer.flush(min(SLICE, rest))
        sending.sizes.clear()

    def _conclude(self, sending: "_Batch", names: Sequence[str], batch: Sequence[Outgoing]) -> None:
        for position, error in sending.failed.items():
            self._fail(sending, position, names[position], batch[position], error)
        for position in sending.pending:
            sending.unknown[position] = self._trouble.ours("no confirmation in time")
        if self._end is None and not sending.unknown and not sending.rejected:
            self._trouble.forget()
            return
        if len(sending.unknown) == len(batch) and (self._end or self._trouble.down):
            self._end = self._end or self._trouble.ours("no confirmation in time")
            raise self._end
        raise PublishError(sending.rejected, sending.unknown)

    def _fail(self, sending: "_Batch", position: int, name: str, outgoing: Outgoing, error: KafkaError) -> None:
        code, ours = error.code(), as_ours(error, f"topic {name}")
        if error.fatal():
            self._end = ConnectionLost(f"the Kafka producer cannot go on: {error.str()}")
        if code in NO_TOPIC:
            self._known.discard(name)
        if code in TOO_LARGE:
            size, limit = record_size(*to_record(outgoing.message)), self._limit_of(name)
            if size > limit:
                ours = MessageTooLarge(size, limit, f"topic {name}")
            else:  # it was refused for the company that it was in
                sending.unknown[position] = BackendError(f"topic {name} refused a batch of messages", retryable=True)
                return
        if error.fatal() or code in UNKNOWN or code in WORTH_ANOTHER_TRY:
            sending.unknown[position] = ours
        else:
            sending.rejected[position] = ours

    def close(self) -> None:
        """As BlockingSender.close."""
        if self._closed:
            return
        self._closed = True
        try:
            self._producer.purge()
            self._producer.flush(1)
        except KafkaException as error:
            log.debug("closing a producer: %s", error)
        del self._producer


class _Batch:
    """What became of the messages of one batch, by position."""

    __slots__ = ("failed", "pending", "rejected", "sizes", "unknown")

    def __init__(self) -> None:
        self.pending: set[int] = set()
        self.failed: dict[int, KafkaError] = {}
        self.rejected: dict[int, MqkitError] = {}
        self.unknown: dict[int, MqkitError] = {}
        self.sizes: dict[str, int] = {}

    def report(self, position: int, error: KafkaError | None, _message: Message) -> None:
        """As the driver's delivery report."""
        self.pending.discard(position)
        if error is not None:
            self.failed[position] = error


def producer_config(settings: Settings) -> dict[str, object]:
    """What librdkafka is told."""
    return {
        **client_config(settings),
        "linger.ms": 10,  # flush cuts it short: it only gathers what one batch brings
        "message.max.bytes": LARGEST,
        "message.timeout.ms": 30_000,
        "partitioner": "murmur2_random",  # as the Java clients place keys
        "queue.buffering.max.kbytes": 262_144,
        "topic.metadata.propagation.max.ms": 1000,  # a topic was there when we looked: one that is not was deleted
        **settings.rdkafka,
        "acks": "all",
        "enable.idempotence": True,
    }
