"""What is measured, as data: each work is one row of the table, the same for everybody who does it."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["publish", "consume", "latency", "retry", "startup", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One work. The name is stable: results and `--only` use it."""

    name: str
    title: str
    kind: Kind
    size: int = 200
    window: int = 0
    """Messages in flight, each awaited by whoever published it; 0: in batches."""
    concurrency: int = 0
    """Handlers at once; 0: what the contender does by default."""
    milliseconds: int = 0
    """How long a handler waits."""
    ordered: bool = False
    once: bool = False
    """In the first round only: it takes long, and says little more the second time."""

    @property
    def ideal(self) -> float | None:
        """Messages a second that handlers which wait can do at most."""
        return self.concurrency * 1000 / self.milliseconds if self.milliseconds else None


def _publishing() -> list[Work]:
    return [
        Work(name="publish-1", title="publish, one by one", kind="publish", window=1),
        Work(name="publish-100", title="publish, 100 in flight", kind="publish", window=100),
        Work(name="publish-1000", title="publish, 1,000 in flight", kind="publish", window=1000),
        Work(name="publish-batch", title="publish in batches of 1,000", kind="publish"),
        Work(name="publish-1-4k", title="publish 4 KiB, one by one", kind="publish", window=1, size=4096),
        Work(name="publish-100-4k", title="publish 4 KiB, 100 in flight", kind="publish", window=100, size=4096),
        Work(name="publish-1000-4k", title="publish 4 KiB, 1,000 in flight", kind="publish", window=1000, size=4096),
        Work(name="publish-batch-4k", title="publish 4 KiB in batches of 1,000", kind="publish", size=4096),
    ]


def _consuming() -> list[Work]:
    waiting = [
        Work(
            name=f"wait-{at_once}{'-ordered' * ordered}",
            title=f"handler awaits 5 ms, {at_once} at once{', in order by key' * ordered}",
            kind="consume",
            concurrency=at_once,
            milliseconds=5,
            ordered=ordered,
        )
        for ordered in (False, True)
        for at_once in (1, 32, 256)
    ]
    return [
        Work(name="consume", title="consume, handler only validates", kind="consume"),
        Work(name="consume-4k", title="consume 4 KiB, handler only validates", kind="consume", size=4096),
        *waiting,
    ]


WORKS: tuple[Work, ...] = (
    *_publishing(),
    *_consuming(),
    Work(name="latency", title="publish to handler, at 100 messages a second", kind="latency"),
    Work(name="retry", title="30 % of the messages fail once", kind="retry"),
    Work(name="startup", title="process start to first handled message", kind="startup"),
    Work(name="memory", title="memory of a worker after 200,000 messages", kind="memory", once=True),
)
BY_NAME = {work.name: work for work in WORKS}
