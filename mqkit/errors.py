"""What mqkit raises.

MqkitError
├── ConfigurationError          while starting, never later; says which setting and what to do
│   └── TopologyError           the broker has something else than the app needs; names each difference
├── BackendError                the broker or the way to it; `retryable` says whether trying again can help
│   ├── ConnectionLost          retryable
│   ├── AuthenticationFailed    not retryable
│   ├── Unroutable              nothing would ever receive the message
│   ├── LeaseLost               the claim on a delivery is gone; somebody else has it now
│   └── PublishError            some of a batch: which are `rejected`, of which the outcome is `unknown`
├── MessageError                this message; trying again never helps
│   ├── EncodeError             the publisher's payload cannot become bytes
│   ├── MessageTooLarge         names both sizes
│   ├── EnvelopeError           headers that cannot be read
│   ├── DecodeError             a body that cannot be read
│   └── SchemaError             a payload that does not match its topic's schema; names the fields
├── ServiceError                code that reading any message needs is broken: a schema, a codec, an import
└── ClosedError                 the app, sender or receiver was closed before

A user's own exceptions are never wrapped. `map_errors` is the one place where a driver's exceptions become these.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class MqkitError(Exception):
    """Anything that mqkit raises."""


class ConfigurationError(MqkitError):
    """Something is set up wrong. Raised while starting; the text says which setting and what to do."""


class TopologyError(ConfigurationError):
    """What exists at the broker differs from what the app needs. `differences` has one line for each."""

    def __init__(self, message: str, differences: Iterable[str] = ()) -> None:
        self.differences = tuple(differences)
        super().__init__("\n  - ".join((message, *self.differences)))


class BackendError(MqkitError):
    """The broker, or the way to it. The driver's exception is the `__cause__`."""

    retryable = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        if retryable is not None:
            self.retryable = retryable
        super().__init__(message)


class ConnectionLost(BackendError):
    """The broker cannot be reached, or no longer. Open a new session and go on."""

    retryable = True


class AuthenticationFailed(BackendError):
    """The broker does not know this user, password or permission."""


class Unroutable(BackendError):
    """Nothing would ever receive this message: no group, no queue, no such topic."""


class LeaseLost(BackendError):
    """The claim on these deliveries ended (time, rebalance, a closed channel): they are delivered again."""


class PublishError(BackendError):
    """Not every message of a batch is known to be safe.

    `rejected` maps the position in the batch to why the broker does not have it; `unknown` holds the positions of
    those that it may or may not have. Positions in neither are safe.
    """

    def __init__(
        self, rejected: Mapping[int, MqkitError] | None = None, unknown: Mapping[int, MqkitError] | None = None
    ) -> None:
        self.rejected = dict(rejected or {})
        self.unknown = dict(unknown or {})
        reasons = list(dict.fromkeys(str(e) for e in (*self.rejected.values(), *self.unknown.values())))
        parts = [f"{len(self.rejected)} rejected"] * bool(self.rejected)
        parts += [f"{len(self.unknown)} with unknown outcome"] * bool(self.unknown)
        shown = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        super().__init__(f"{' and '.join(parts)}: {shown}", retryable=not self.rejected)


class MessageError(MqkitError):
    """This one message is at fault; trying it again never helps."""


class EncodeError(MessageError):
    """The payload cannot be written as bytes. The caller's fault."""


class MessageTooLarge(MessageError):
    """The message is larger than the broker or the app takes."""

    def __init__(self, size: int, limit: int, where: str) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"message of {size:,} bytes is larger than the {limit:,} bytes that {where} takes")


class EnvelopeError(MessageError):
    """The headers cannot be read as an envelope."""


class DecodeError(MessageError):
    """The body cannot be read: unknown content type, broken text, too deep, too large."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong: its path (`items.0.price`; empty for the whole), and how."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path or 'the payload'}: {self.problem}"


class SchemaError(MessageError):
    """The payload does not match the topic's schema. `fields` says where and how."""

    def __init__(self, schema: str, fields: Iterable[FieldError]) -> None:
        self.schema = schema
        self.fields = tuple(fields)
        super().__init__(f"does not match {schema}: " + "; ".join(map(str, self.fields)))


class ServiceError(MqkitError):
    """Code of the service that reading any message needs is broken: its schema, a codec, what they import.

    Never a message's fault: it is tried again, and no attempt is counted.
    """


class ClosedError(MqkitError):
    """Used after it was closed, or before it was started."""


ErrorTable = Mapping[type[BaseException], Callable[[BaseException], MqkitError]]
"""Driver exception -> how to say it in ours. The nearest class in the exception's ancestry wins."""


@contextmanager
def map_errors(table: ErrorTable) -> Generator[None]:
    """Raise the driver's exceptions named in `table` as mqkit's, the original as the cause; let the rest pass."""
    try:
        yield
    except MqkitError:
        raise
    except BaseException as error:
        for ancestor in type(error).__mro__:
            if ancestor in table:
                raise table[ancestor](error) from error
        raise
