"""What the driver's errors are in ours, by code, and what a client last said about its connection.

`KafkaError.retriable()` is False for errors that are well worth another try, so the codes are classified here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from mqkit.errors import AuthenticationFailed, BackendError, ConfigurationError, ConnectionLost, MqkitError, Unroutable

log = logging.getLogger("mqkit.kafka")


class DriverLog:
    """What librdkafka logs, for our log: it warns over and over of what it mends itself, so only for debugging."""

    def log(self, level: int, text: str, *args: object) -> None:
        """As Logger.log."""
        log.log(level if level >= logging.CRITICAL else logging.DEBUG, text, *args)


NO_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001  librdkafka's own codes are spelled so
)
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
REFUSED = frozenset(
    {
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._AUTHENTICATION,  # noqa: SLF001
    }
)
UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)
UNKNOWN = UNREACHABLE | {
    KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}
"""After these the message may be in the log, or not."""
WORTH_ANOTHER_TRY = frozenset(
    {
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._QUEUE_FULL,  # noqa: SLF001
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""After these the message is not in the log, and could be soon."""


def as_ours(error: KafkaError, what: str) -> MqkitError:
    """The driver's error as ours; `what` says what was tried, and where."""
    code, text = error.code(), f"{what}: {error.str()}"
    if code in REFUSED:
        return AuthenticationFailed(text)
    if code in NO_TOPIC:
        return Unroutable(text)
    if error.fatal() or code in UNKNOWN:
        return ConnectionLost(text)
    return BackendError(text, retryable=code in WORTH_ANOTHER_TRY)


@contextmanager
def mapped(what: str, trouble: "Trouble | None" = None) -> Iterator[None]:
    """Raise the driver's exceptions as ours."""
    try:
        yield
    except KafkaException as failure:
        error = failure.args[0]
        if not isinstance(error, KafkaError):
            raise BackendError(f"{what}: {error}") from failure
        if error.code() == KafkaError._INVALID_ARG:  # noqa: SLF001
            raise ConfigurationError(f"{what}: {error.str()}") from failure
        if error.code() in UNREACHABLE and trouble is not None:
            raise trouble.ours(f"{what}: {error.str()}") from failure
        raise as_ours(error, what) from failure
    except (ValueError, TypeError) as failure:
        raise ConfigurationError(f"{what}: {failure}") from failure


class Trouble:
    """What a client told about its connections, from its threads or from within poll."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.down = False
        """No broker can be reached, it seems."""
        self.gone = False
        """A topic was deleted, it seems."""
        self._reason = ""
        self._refusal: KafkaError | None = None

    def hear(self, error: KafkaError) -> None:
        """As the driver's `error_cb`."""
        code = error.code()
        log.debug("%s", error)
        if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self.down = True
        elif code in NO_TOPIC:
            self.gone = True
        elif code in REFUSED:
            self._refusal = error
        else:
            self._reason = error.str()

    def forget(self) -> None:
        """It works again."""
        self.down = self.gone = False
        self._reason = ""
        self._refusal = None

    def deleted(self, topic: str) -> ConnectionLost:
        """Why what read `topic` cannot go on."""
        return self.gone_with(f"topic {topic} was deleted")

    def gone_with(self, what: str) -> ConnectionLost:
        """Why what read a topic cannot go on: `what` became of it."""
        return ConnectionLost(f"Kafka at {self.servers}: {what}")

    def ours(self, what: str) -> MqkitError:
        """Why it does not work."""
        if self._refusal is not None:
            return AuthenticationFailed(f"{what}: {self._refusal.str()}")
        reason = f" ({self._reason})" if self._reason and self._reason not in what else ""
        return ConnectionLost(f"Kafka at {self.servers}: {what}{reason}")
