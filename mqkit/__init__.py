"""mqkit: write a service once, run it on RabbitMQ, Kafka, SQLite or memory.

The rooms, in the order in which a message lives:

message topic durations     what travels, and the stream it belongs to
errors signals verdict      what is raised, by us and by handlers, and what an attempt came to
envelope codec              between payloads and bytes with headers
retry topology events       decisions, names and facts, as data
backend                     the seam: what a backend is
hookspecs registry plugins  what a plugin may add, and how it is found
ports immediate bridge      what orchestration needs of the world, and who fulfils it with and without an event loop
middleware handler workers  around, in, and between the user's functions
pump producer dead          the loops that receive and send, and the dead letters
registration settings app   what a user touches
backends testing cli        RabbitMQ, Kafka, SQLite, memory; the contract, executed; the command line
"""

from mqkit.app import AsyncApp
from mqkit.backend import Counts
from mqkit.dead import DeadLetter, DeadLetters
from mqkit.errors import (
    AuthenticationFailed,
    BackendError,
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    DecodeError,
    EncodeError,
    EnvelopeError,
    FieldError,
    LeaseLost,
    MessageError,
    MessageTooLarge,
    MqkitError,
    PublishError,
    SchemaError,
    TopologyError,
    Unroutable,
)
from mqkit.events import Event, Listener
from mqkit.hookspecs import hookimpl
from mqkit.message import Message
from mqkit.middleware import Middleware
from mqkit.retry import Retry
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.topic import Topic

__all__ = [
    "AsyncApp",
    "AuthenticationFailed",
    "BackendError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionLost",
    "Counts",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "EncodeError",
    "EnvelopeError",
    "Event",
    "FieldError",
    "LeaseLost",
    "Listener",
    "Message",
    "MessageError",
    "MessageTooLarge",
    "Middleware",
    "MqkitError",
    "PublishError",
    "Reject",
    "Retry",
    "RetryLater",
    "SchemaError",
    "Skip",
    "Topic",
    "TopologyError",
    "Unroutable",
    "hookimpl",
]
