"""The RabbitMQ backend: how it presents itself to mqkit. Imports no driver.

The rooms: options (URL and topic options), fields, wire and frames (bytes), places and topology (names and what must
exist), acknowledgements, batches, notes: pure. broker stands on link, publishing, consuming, noting and declaring, and
these on channels, which aiormq_driver and pika_driver fulfil, and on stream; scouting looks first, management asks the
HTTP API. Two colours of it: asynchronous, on the app's loop; blocking, on a thread (io_thread).
"""

from collections.abc import Sequence

from mqkit.backend import BackendSpec, Capabilities
from mqkit.backends.rabbitmq.options import RabbitTopic
from mqkit.hookspecs import hookimpl

__all__ = ["CAPABILITIES", "SPEC", "RabbitTopic", "mqkit_backends"]

CAPABILITIES = Capabilities(
    remote=True,
    exact_delay=False,
    steps_on_demand=True,
    typed_headers=True,
    attribute_prefix="cloudEvents_",
    max_message_bytes=16_777_216,
)

SPEC = BackendSpec(
    name="rabbitmq",
    summary="RabbitMQ 4 over AMQP 0-9-1: quorum queues, publisher confirms, delays by dead-lettering",
    schemes=("amqp", "amqps"),
    example_url="amqp://guest:guest@localhost:5672/",
    capabilities=CAPABILITIES,
    asynchronous="mqkit.backends.rabbitmq.asynchronous:RabbitBackend",
    blocking="mqkit.backends.rabbitmq.blocking:RabbitBackend",
    extra="mqkit[rabbitmq]",
)


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """The one that this package is."""
    return [SPEC]
