"""Who takes part, as data: the module, the broker, what each cannot do, and where its guarantee is weaker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch

from tests.bench.works import WORKS, Work

SHORTEST = 300
"""Messages of a backlog, at least."""
MEMORY = 200_000
"""Messages that a worker handles while its memory is watched, or as many as it can in 15 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One on one broker."""

    name: str
    broker: str
    module: str
    """In contenders/."""
    libraries: tuple[str, ...]
    """Distributions whose versions are printed."""
    imports: str
    """What a program that uses it imports, beside pydantic."""
    speed: int
    """About how many messages a second it handles: backlogs are as large as it needs."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Patterns of works -> why it cannot."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Patterns of works -> where its guarantee is another."""

    backlogs: Mapping[str, int] = field(default_factory=dict)
    """Work -> messages, where it is far from its usual speed."""

    def why_not(self, work: Work) -> str:
        return _matching(self.cannot, work)

    def note(self, work: Work) -> str:
        return _matching(self.notes, work)

    def backlog(self, work: Work, seconds: float) -> int:
        """How many messages a sample of this work takes."""
        if work.name in self.backlogs:
            return self.backlogs[work.name]
        match work.kind:
            case "startup":
                return 1
            case "memory":
                return min(MEMORY, self.speed * 15)
            case "latency":
                return int(100 * max(2.0, 2 * seconds))
            case "publish":
                return 0
        speed = min(self.speed, work.ideal or self.speed)
        if work.size > 1000:
            speed *= 0.6
        if work.kind == "retry":
            speed = min(speed, 3_000)
        return max(SHORTEST, int(speed * seconds))


def _matching(table: Mapping[str, str], work: Work) -> str:
    return next((text for pattern, text in table.items() if fnmatch(work.name, pattern)), "")


BLOCKS = "its publish blocks: one message in flight for each connection"
ONE_BY_ONE = "has no batch: the messages of a batch are published one by one"
GATHERED = "has no batch: the messages of a batch are published at once and awaited together"
UNORDERED = "keeps no order by key when several handlers run at once"
SERIAL = "one thread: one handler at once"
REQUEUED = "tries again at once: it has no delay without a queue of your own"
SEEKS = "tries again by seeking back in the log, everything else waits"
NO_RETRY = "has no retry: that is left to the user"
AUTO_COMMIT = "at most once: it runs several handlers only when offsets are committed before them"
ALONE = {"wait-32-ordered": UNORDERED, "wait-256-ordered": UNORDERED}
BLOCKING = {"publish-100*": BLOCKS, "publish-1000*": BLOCKS}
ONE_THREAD = {f"wait-{n}{o}": SERIAL for n in (32, 256) for o in ("", "-ordered")}
MQKIT = "mqkit AsyncApp"
PLAIN = "mqkit App"
BACKEND = "mqkit on pika"
THREADS = {"publish-1000*": "a thread for each message in flight: 100 are as many as make sense"}

RABBITMQ = (
    Contender(
        name=MQKIT,
        broker="rabbitmq",
        module="mqkit_async",
        libraries=("mqkit", "aio-pika", "aiormq"),
        imports="mqkit",
        speed=30_000,
    ),
    Contender(
        name=PLAIN,
        broker="rabbitmq",
        module="mqkit_plain",
        libraries=("mqkit", "pika"),
        imports="mqkit",
        speed=25_000,
        cannot=THREADS,
        notes={"wait-*": "threads, whose handler sleeps"},
    ),
    Contender(
        name=BACKEND,
        broker="rabbitmq",
        module="mqkit_pika",
        libraries=("mqkit", "pika"),
        imports="mqkit.backends.rabbitmq.blocking",
        speed=30_000,
        cannot=dict.fromkeys(
            ("publish-1*", "wait-*", "latency", "retry", "startup", "memory"), "is measured with the app above it"
        ),
        notes={"*": "without the app: no middleware, retries or time-outs"},
    ),
    Contender(
        name="FastStream",
        broker="rabbitmq",
        module="faststream_rabbitmq",
        libraries=("faststream", "aio-pika"),
        imports="faststream.rabbit",
        speed=5_000,
        cannot=ALONE,
        notes={"publish-batch*": GATHERED, "retry": REQUEUED},
    ),
    Contender(
        name="aio-pika",
        broker="rabbitmq",
        module="aio_pika_raw",
        libraries=("aio-pika",),
        imports="aio_pika",
        speed=7_000,
        cannot=ALONE,
        notes={"publish-batch*": GATHERED, "retry": REQUEUED},
    ),
    Contender(
        name="pika",
        broker="rabbitmq",
        module="pika_raw",
        libraries=("pika",),
        imports="pika",
        speed=15_000,
        cannot={**BLOCKING, **ONE_THREAD},
        notes={"publish-batch*": ONE_BY_ONE, "retry": REQUEUED},
    ),
    Contender(
        name="kombu",
        broker="rabbitmq",
        module="kombu_rabbitmq",
        libraries=("kombu", "amqp"),
        imports="kombu.connection, kombu.messaging, kombu.transport.pyamqp",
        speed=9_000,
        cannot={**BLOCKING, **ONE_THREAD},
        notes={"publish-batch*": ONE_BY_ONE, "retry": REQUEUED},
    ),
    Contender(
        name="taskiq",
        broker="rabbitmq",
        module="taskiq_rabbitmq",
        libraries=("taskiq", "taskiq-aio-pika"),
        imports="taskiq, taskiq_aio_pika",
        speed=4_000,
        cannot=ALONE,
        notes={"publish-batch*": GATHERED, "retry": "tries again at once"},
    ),
    Contender(
        name="dramatiq",
        broker="rabbitmq",
        module="dramatiq_rabbitmq",
        libraries=("dramatiq", "pika"),
        imports="dramatiq.brokers.rabbitmq",
        speed=4_000,
        cannot={**BLOCKING, **ALONE},
        notes={
            "publish-batch*": ONE_BY_ONE,
            "wait-*": "threads, whose handler sleeps",
            "retry": "waits in the memory of a worker",
        },
    ),
)
KAFKA = (
    Contender(
        name=MQKIT,
        broker="kafka",
        module="mqkit_async",
        libraries=("mqkit", "confluent-kafka"),
        imports="mqkit",
        speed=40_000,
    ),
    Contender(
        name=PLAIN,
        broker="kafka",
        module="mqkit_plain",
        libraries=("mqkit", "confluent-kafka"),
        imports="mqkit",
        speed=20_000,
        cannot=THREADS,
        notes={"wait-*": "threads, whose handler sleeps"},
    ),
    Contender(
        name="FastStream confluent",
        broker="kafka",
        module="faststream_confluent",
        libraries=("faststream", "confluent-kafka"),
        imports="faststream.confluent",
        speed=2_000,
        cannot=ALONE,
        notes={"wait-32": AUTO_COMMIT, "wait-256": AUTO_COMMIT, "retry": SEEKS},
        backlogs={"retry": 40},
    ),
    Contender(
        name="FastStream aiokafka",
        broker="kafka",
        module="faststream_aiokafka",
        libraries=("faststream", "aiokafka"),
        imports="faststream.kafka",
        speed=1_500,
        cannot=ALONE,
        notes={"wait-32": AUTO_COMMIT, "wait-256": AUTO_COMMIT, "retry": SEEKS},
        backlogs={"retry": 40},
    ),
    Contender(
        name="aiokafka",
        broker="kafka",
        module="aiokafka_raw",
        libraries=("aiokafka",),
        imports="aiokafka",
        speed=30_000,
        cannot={**ALONE, "retry": NO_RETRY},
        notes={"consume*": "commits after each fetch of up to 500", "wait-*": "commits after each fetch"},
    ),
    Contender(
        name="confluent-kafka",
        broker="kafka",
        module="confluent_raw",
        libraries=("confluent-kafka",),
        imports="confluent_kafka",
        speed=60_000,
        cannot={**ONE_THREAD, "retry": NO_RETRY},
        notes={"consume*": "commits in the background", "wait-*": "commits in the background"},
    ),
)
LOCAL = (
    Contender(name=MQKIT, broker="sqlite", module="mqkit_async", libraries=("mqkit",), imports="mqkit", speed=8_000),
    Contender(
        name=MQKIT,
        broker="memory",
        module="mqkit_async",
        libraries=("mqkit",),
        imports="mqkit",
        speed=20_000,
        cannot={"memory": "the backlog would be what is measured"},
    ),
)
CONTENDERS: tuple[Contender, ...] = (*RABBITMQ, *KAFKA, *LOCAL)


def pairs() -> list[tuple[Work, Contender]]:
    """All that can be measured, and what cannot: work by work, so that contenders are interleaved."""
    return [(work, contender) for work in WORKS for contender in CONTENDERS]
