"""Where one sample happens: a broker, and names of its own there. It travels to the sample's process as JSON."""

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Place:
    """One topic of one group; all contenders call their queues and consumer groups the same."""

    broker: str
    url: str
    topic: str
    group: str = "bench"

    @property
    def queue(self) -> str:
        """What mqkit calls the group's queue, or its consumer group on Kafka."""
        return f"{self.topic}.{self.group}"

    @property
    def amqp(self) -> str:
        """The URL for clients that know nothing of mqkit's options."""
        return self.url.partition("?")[0]

    @property
    def servers(self) -> str:
        """Kafka's bootstrap servers."""
        return urlsplit(self.url).netloc

    def fields(self) -> dict[str, Any]:
        return asdict(self)
