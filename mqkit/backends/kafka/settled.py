"""Which dead letters of a group are settled although older ones are not, in a topic of its own beside them.

A committed offset says so too, but Kafka forgets it some days after it was committed, since nobody is a member of the
group, and it holds only so much. Each record here is a fact that stays true: `{"log": id, "settled": [[partition,
first, one past the last], ...]}` in JSON; of letters that are removed from their log nothing need be known any more.
"""

from collections.abc import Callable, Iterable, Mapping
from json import dumps, loads
from threading import Lock
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from mqkit.backends.kafka.faults import NO_TOPIC, DriverLog, as_ours, log, mapped
from mqkit.backends.kafka.offsets import runs
from mqkit.backends.kafka.places import PATIENCE
from mqkit.backends.kafka.ranges import Ranges
from mqkit.errors import ConnectionLost

MANY: Final = 500
"""So many records are written anew as few."""
AT_ONCE: Final = 10_000
"""Ranges in one record."""

Facts = Mapping[int, Ranges]
"""What is settled in the partitions of one log."""


class Settled:
    """One such topic. It may be used by several threads.

    Args:
        name: of the topic.
        reading: the settings of a consumer.
        writing: the settings of a producer.
        delete: asks for the removal of records: KafkaAdmin.delete.
    """

    def __init__(
        self,
        name: str,
        reading: Mapping[str, object],
        writing: Mapping[str, object],
        delete: Callable[[list[TopicPartition]], Mapping[TopicPartition, Any]],
    ) -> None:
        self.name = name
        self._reading = {**reading, "group.id": f"mqkit-settled-{uuid4()}", "enable.partition.eof": True}
        self._writing = writing
        self._delete = delete
        self._lock = Lock()
        self._producer: Producer | None = None
        self._facts: dict[str, dict[int, Ranges]] = {}
        self._next = 0
        self._log = ""
        self._told = False

    def in_log(self, own: str) -> None:
        """This topic's own log has the id `own` now, empty if the broker does not tell: of another than before nothing
        has been read.
        """
        with self._lock:
            if own and self._log and own != self._log:
                self._next = 0
            self._log = own or self._log

    def facts(self, log_id: str, start: int, end: int) -> Facts:
        """What is settled in the log with this id, when the topic holds the records from `start` to before `end`.

        Raises:
            ConnectionLost: it cannot be read now.
        """
        with self._lock:
            if end < self._next:  # made anew, by a broker without ids; what is known stays true
                self._next = 0
            if max(start, self._next) < end:
                with mapped(f"topic {self.name}"):
                    self._read(max(start, self._next))
            return {number: Ranges(ranges) for number, ranges in self._facts.get(log_id, {}).items()}

    def _read(self, start: int) -> None:
        consumer = Consumer(self._reading, logger=DriverLog())
        deadline = monotonic() + PATIENCE
        try:
            consumer.list_topics(self.name, PATIENCE)  # or else it looks for the leader only a second later
            consumer.assign([TopicPartition(self.name, 0, start)])
            while True:
                for record in consumer.consume(1000, 0.1):
                    error = record.error()
                    if error is None:
                        self._learn(record)
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are spelled so
                        return
                    else:
                        raise KafkaException(error)
                if monotonic() > deadline:
                    raise ConnectionLost(f"topic {self.name} could not be read within {PATIENCE:g} s")
        finally:
            consumer.close()

    def _learn(self, record: Message) -> None:
        offset = record.offset()
        assert offset is not None
        self._next = max(self._next, offset + 1)
        try:
            fact = loads(record.value() or b"")
            known = self._facts.setdefault(str(fact["log"]), {})
            for number, first, stop in fact["settled"]:
                known.setdefault(int(number), Ranges()).add(int(first), int(stop))
        except (ValueError, KeyError, TypeError) as failure:
            log.warning("%s@%d: nothing of ours: %s", self.name, offset, failure)

    def add(self, log_id: str, offsets: Mapping[int, Iterable[int]]) -> None:
        """Keep that these offsets, by partition, ascending, are settled; returns when that is safe.

        Raises:
            ConnectionLost, BackendError: the broker did not take it.
        """
        found = [(number, *run) for number, some in offsets.items() for run in runs(some)]
        if found:
            with self._lock:
                self._write(log_id, found)

    def _write(self, log_id: str, settled: list[tuple[int, int, int]]) -> None:
        failed: list[KafkaError] = []

        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        with mapped(f"topic {self.name}"):
            if self._producer is None:
                self._producer = Producer(dict(self._writing), logger=DriverLog())
            for at in range(0, len(settled), AT_ONCE):
                value = dumps({"log": log_id, "settled": settled[at : at + AT_ONCE]})
                self._producer.produce(self.name, value, partition=0, on_delivery=report)
            left = self._producer.flush(PATIENCE)
        if failed and failed[0].code() in NO_TOPIC:
            self._tell_missing()
        elif failed:
            raise as_ours(failed[0], f"topic {self.name}")
        elif left:
            raise ConnectionLost(f"topic {self.name}: no confirmation in time")

    def _tell_missing(self) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "there is no topic %s: dead letters that were settled before older ones come back when Kafka forgets "
                "the offsets of their group; declare their topic again, and it is made", self.name,
            )  # fmt: skip

    def tidy(self, log_id: str, starts: Mapping[int, int], start: int) -> None:
        """Remove what need not be known any more, and write many records as few.

        Args:
            log_id: of the log of the dead letters.
            starts: where the partitions of that log begin.
            start: where this topic's own log begins.
        """
        with self._lock:
            known = self._facts.get(log_id, {})
            still = [
                (number, first, stop)
                for number, ranges in known.items()
                for first, stop in ranges
                if stop > starts.get(number, 0)
            ]
            upto = self._next  # what others write meanwhile lies behind
            if start == upto or (still and upto - start < MANY):
                return
            if still:
                self._write(log_id, still)
            for future in self._delete([TopicPartition(self.name, 0, upto)]).values():
                try:
                    future.result(PATIENCE)
                except (KafkaException, TimeoutError) as failure:
                    log.debug("removing records from topic %s: %s", self.name, failure)

    def close(self) -> None:
        """Let go of its producer."""
        with self._lock:
            if self._producer is not None:
                self._producer.flush(1)
            self._producer = None
