"""The asynchronous colour: aiormq, which aio-pika stands on, as the driver, on the app's own event loop."""

from mqkit.backends.rabbitmq import aiormq_driver
from mqkit.backends.rabbitmq.broker import RabbitBroker


class RabbitBackend(RabbitBroker):
    """The Backend.

    Raises:
        ConfigurationError: the URL makes no sense.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, aiormq_driver.connect)
