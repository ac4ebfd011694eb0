"""Receiving a group's dead letters: no membership, no end of the wait, and what is done is gone at once."""

from collections.abc import Iterable, Mapping, Sequence
from threading import Event
from time import monotonic

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from mqkit.backend import Notes, Settlement, Settlements, nothing_recalled
from mqkit.backends.kafka.faults import DriverLog, Trouble, as_ours, mapped
from mqkit.backends.kafka.logs import Logs
from mqkit.backends.kafka.member import SLICE
from mqkit.backends.kafka.offsets import Progress, decode, in_log, merged
from mqkit.backends.kafka.partitions import Lease, Partition, message_of
from mqkit.backends.kafka.places import PATIENCE, closing, committed_at_last
from mqkit.backends.kafka.receiver import CLOSING, check_again
from mqkit.backends.kafka.settled import Facts, Settled
from mqkit.backends.kafka.tiers import Tier
from mqkit.backends.kafka.trimming import Trimming
from mqkit.errors import ClosedError, LeaseLost, MqkitError
from mqkit.message import Delivery


class DeadReceiver:
    """`BlockingReceiver` of the dead letters that nobody settled yet, the oldest first, each once.

    A released one stays where it is. Several of these may work at once; each sees all.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        topic: str,
        group: str,
        *,
        tier: Tier,
        numbers: Sequence[int],
        logs: Logs,
        trimming: Trimming,
        settled: Settled | None,
        trouble: Trouble,
    ) -> None:
        self._logs = logs
        self._log_id = logs.ids[tier.name]
        self._trimming = trimming
        self._settled = settled
        self._facts: Facts = {}
        self._topic = topic
        self._group = group
        self._trouble = trouble
        self._woken = Event()
        self._closed = False
        self._end: MqkitError | None = None
        self._at_end: set[int] = set()
        callbacks = {"error_cb": trouble.hear, "enable.partition.eof": True, "fetch.wait.max.ms": 10}
        with mapped("the Kafka consumer's settings"):
            self._consumer = Consumer({**config, **callbacks}, logger=DriverLog())
        try:
            with mapped(f"dead letters of {topic}.{group}", trouble):
                places = committed_at_last(self._consumer, [TopicPartition(tier.name, number) for number in numbers])
                self._partitions = {}
                for place in places:
                    progress = self._progress(place)
                    self._partitions[place.partition] = Partition(tier, place.partition, progress, self._log_id)
                    place.offset = OFFSET_BEGINNING if progress is None else progress.low
                if settled is not None:
                    self._learn(settled, places)
                self._consumer.list_topics(tier.name, PATIENCE)  # or else it looks for the leader only a second later
                self._consumer.assign(places)
        except BaseException:
            self.close()
            raise

    def _learn(self, settled: Settled, places: Sequence[TopicPartition]) -> None:
        """Which letters are settled, whatever the group's offsets say."""
        start, end = self._consumer.get_watermark_offsets(TopicPartition(settled.name, 0), timeout=PATIENCE)
        self._facts = settled.facts(self._log_id, start, end)
        if start < end:
            begins = {
                place.partition: self._consumer.get_watermark_offsets(place, timeout=PATIENCE) for place in places
            }
            settled.tidy(self._log_id, {number: begin for number, (begin, _) in begins.items()}, start)

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As BlockingReceiver.receive; nothing at once when all were given."""
        self._check()
        deadline = monotonic() + timeout
        found: list[Delivery] = []
        try:
            if limit == 0:
                self._woken.wait(timeout)
                return found
            while not found and len(self._at_end) < len(self._partitions) and not self._woken.is_set():
                rest = deadline - monotonic()
                if rest <= 0:
                    break
                self._take(self._consumer.consume(1, max(0.001, min(rest, SLICE))), found)
                if self._trouble.down:
                    self._end = self._trouble.ours("no broker answers")
                if self._end is not None:
                    raise self._end
            self._take(self._consumer.consume(limit - len(found), 0) if limit > len(found) else (), found)
        except KafkaException as failure:
            raise as_ours(failure.args[0], f"dead letters of {self._topic}.{self._group}") from failure
        finally:
            self._woken.clear()
        return found

    recalled = staticmethod(nothing_recalled)  # nobody takes anything from who only looks

    def _take(self, records: Iterable[Message], found: list[Delivery]) -> None:
        for record in records:
            self._admit(record, found)

    def _admit(self, record: Message, found: list[Delivery]) -> None:
        number, offset, error = record.partition(), record.offset(), record.error()
        assert number is not None
        assert offset is not None
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are spelled so
                self._at_end.add(number)
            else:
                self._end = as_ours(error, f"dead letters of {self._topic}.{self._group}")
            return
        self._at_end.discard(number)
        part = self._partitions[number]
        if not part.tracker.take(offset):
            return
        if number in self._facts and offset in self._facts[number]:
            part.tracker.finish(offset)
        else:
            message = message_of(record)
            found.append(part.hand_out(offset, message, self._topic, self._group))

    def settle(self, settlements: Settlements) -> None:
        """As BlockingReceiver.settle; returns when the broker has it."""
        self._check()
        changed: set[Partition] = set()
        finished: dict[int, list[int]] = {}
        again: list[Lease] = []
        for token, settlement in settlements:
            assert isinstance(token, Lease)
            if not token.partition.take_back(token):
                again.append(token)
            elif settlement is Settlement.DONE:
                token.partition.tracker.finish(token.offset)
                changed.add(token.partition)
                finished.setdefault(token.partition.number, []).append(token.offset)
        self._commit(changed)
        if self._settled is not None:
            lows = {part.number: part.tracker.low for part in changed}
            above = {number: sorted(o for o in some if o > lows[number]) for number, some in finished.items()}
            self._settled.add(self._log_id, above)
        check_again(again)

    def note(self, notes: Notes) -> None:
        """As BlockingReceiver.note."""
        self._check()
        changed: set[Partition] = set()
        gone: list[Lease] = []
        for token, spent in notes:
            assert isinstance(token, Lease)
            if token.partition.tracker.note(token.offset, spent):
                changed.add(token.partition)
            else:
                gone.append(token)
        self._commit(changed)
        if gone:
            raise LeaseLost(f"{len(gone)} dead letters are settled already")

    def begin(self, token: object) -> int:
        """As BlockingReceiver.begin: no handler is called with a dead letter."""
        self._check()
        assert isinstance(token, Lease)
        return 0

    def _commit(self, parts: set[Partition]) -> None:
        """Together with what others, who may be at work on the same dead letters, have committed meanwhile."""
        if not parts:
            return
        with mapped(f"dead letters of {self._topic}.{self._group}", self._trouble):
            theirs = {
                place.partition: place for place in committed_at_last(self._consumer, [part.place for part in parts])
            }
            offsets = []
            for part in parts:
                progress, other = part.tracker.progress(), self._progress(theirs[part.number])
                if other is not None:
                    progress = merged(progress, other)
                offsets.append(part.place_of(progress))
            for place in self._consumer.commit(offsets=offsets, asynchronous=False):
                if place.error is not None:
                    raise KafkaException(place.error)
        if self._trimming.wanted(offsets) and self._logs.same(PATIENCE):
            self._trimming.remove(offsets)
            self._trimming.finish(PATIENCE)

    def _progress(self, place: TopicPartition) -> Progress | None:
        return None if place.offset < 0 else in_log(decode(place.offset, place.metadata), self._log_id)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this receiver is closed")
        if self._end is not None:
            raise self._end

    def wake(self) -> None:
        """As BlockingReceiver.wake."""
        self._woken.set()

    def close(self) -> None:
        """As BlockingReceiver.close."""
        if self._closed:
            return
        self._closed = True
        consumer = self._consumer
        del self._consumer
        closing(consumer).join(CLOSING)
