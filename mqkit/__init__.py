"""mqkit: write a service once, run it on RabbitMQ, Kafka, SQLite or memory.

The rooms, in the order in which a message lives:

message topic durations     what travels, and the stream it belongs to
errors signals verdict      what is raised, by us and by handlers, and what an attempt came to
envelope codec              between payloads and bytes with headers
schemas round_trip bodies    whether a payload reads back as it was given; what a body is by its labels
attributes structured       what a CloudEvent says about itself: in headers, or in the body
arguments                   what callers gave, and should not have
legible                     what strangers wrote, for the eyes of people
retry topology events       decisions, names and facts, as data
backend                     the seam: what a backend is
hookspecs registry plugins hooks  what a plugin may add, how it is found, and what it does at start and end
ports immediate exits       what orchestration needs of the world, and how it runs without an event loop
event_loop                  who fulfils that: an event loop, or
threads monitor daemons     threads
contexts                    what each message has to itself
loop_watch                  who blocks an event loop
listeners announcements     who hears of what happens, and how
bridge session_thread       from a backend of one colour to the other
middleware signature handler  what stands around a user's function, what it takes, and its call
callables                   what a call would do: all of it, or nothing yet
in_flight lanes alone       which message may start,
workers pull telling        who runs the handlers (jobs of ours, or the user's loop), and what is told of it
pump copies outbox producer dead  the loops that receive and send, and the dead letters
storing wrapping            what must be safe before a message is settled, and its last form
stopping process_signals forks  how work ends, the signals that end it, and processes that fork
registration settings app_options  what a user decides
declarations                what was declared at the broker
engine app async_app        what a user touches: one engine, without and with an event loop,
from_thread                 and the way from other threads to that
backends testing bench cli  RabbitMQ, Kafka, SQLite, memory; the contract, executed; measuring; the command line
"""

import logging as _logging

from mqkit.app import App
from mqkit.async_app import AsyncApp
from mqkit.backend import Counts
from mqkit.dead import AsyncDeadLetters, DeadLetter, DeadLetters
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
    ServiceError,
    TopologyError,
    Unroutable,
)
from mqkit.events import Event, Listener
from mqkit.hookspecs import hookimpl
from mqkit.legible import LegibleRecords as _LegibleRecords
from mqkit.message import Message
from mqkit.middleware import Middleware
from mqkit.pull import AsyncConsumer, Consumer, Pulled
from mqkit.retry import Retry
from mqkit.signals import Reject, RetryLater, Skip
from mqkit.topic import Topic

__all__ = [
    "App",
    "AsyncApp",
    "AsyncConsumer",
    "AsyncDeadLetters",
    "AuthenticationFailed",
    "BackendError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionLost",
    "Consumer",
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
    "Pulled",
    "Reject",
    "Retry",
    "RetryLater",
    "SchemaError",
    "ServiceError",
    "Skip",
    "Topic",
    "TopologyError",
    "Unroutable",
    "hookimpl",
]

for _name in ("mqkit", "mqkit.kafka"):
    _logging.getLogger(_name).addFilter(_LegibleRecords())
