"""Real brokers in containers, for tests and for trying things out: `with rabbitmq() as broker: broker.url`.

What a broker is here (image, ports, configuration, URL) and what can be done to one: stop, kill, pause, restart.
Which image: broker_images.py. When it is ready: broker_readiness.py. Who removes it: broker_owners.py.
"""

import os
import random
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import docker
from broker_images import BrokerName, provide
from broker_owners import labels, remove, remove_leftovers, this_process
from broker_readiness import amqp_answers, http_answers, kafka_answers, wait_until
from docker.errors import APIError
from docker.models.containers import Container

# its reaper is an image of its own; here owners are written on the containers, and leftovers removed by them
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
from testcontainers.core.container import DockerContainer

BROKER_LABEL: Final = "mqkit.broker"
URL_LABEL: Final = "mqkit.url"
MANAGEMENT_LABEL: Final = "mqkit.management"

RabbitMQVersion = Literal["4.3", "4.0"]
RABBITMQ_NAMES: Final[dict[RabbitMQVersion, BrokerName]] = {"4.3": "rabbitmq", "4.0": "rabbitmq-old"}

GRACE = 30  # seconds that a broker has to end by itself when it is stopped


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker in a container. Its URLs stay the same whatever is done to it.

    `start`, `restart` and the two context managers return when clients can work with it again.
    """

    name: BrokerName
    url: str
    management_url: str  # empty where there is none
    container: Container

    def stop(self) -> None:
        """Ends it in an orderly way, as an operator does."""
        self.container.stop(timeout=GRACE)

    def kill(self) -> None:
        """Ends it at once, as a power cut does."""
        self.container.kill()

    def start(self) -> None:
        self.container.start()
        self.wait_until_ready()

    def restart(self) -> None:
        self.container.restart(timeout=GRACE)
        self.wait_until_ready()

    def pause(self) -> None:
        """Freezes it: connections stay open, and nothing answers."""
        for _ in range(2):
            try:
                self.container.pause()
            except APIError as error:  # the kernel did not stop all of its processes in time
                if "unable to freeze" not in str(error):
                    raise
            else:
                return
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()
        self.wait_until_ready()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stopped within the block, started after it."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen within the block."""
        self.pause()
        try:
            yield
        finally:
            self.unpause()

    def run(self, *command: str) -> str:
        """Runs a command inside the container (`rabbitmqctl`, …) and returns what it printed.

        Raises:
            RuntimeError: The command failed; the text is what it printed.
        """
        code, output = self.container.exec_run(list(command))
        text = bytes(output).decode(errors="replace")
        if code != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {code}: {text}")
        return text

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression comes to inside of RabbitMQ, as Erlang writes it.

        It takes a tenth of a second. `rabbitmqctl` boots an Erlang of its own each time: more than a second of CPU.

        Raises:
            RuntimeError: It failed; the text is what Erlang says.
        """
        command = 'echo "$EXPRESSION" | erl_call -sname "rabbit@$(hostname)" -c "$(cat ~/.erlang.cookie)" -e'
        code, output = self.container.exec_run(["sh", "-c", command], environment={"EXPRESSION": f"{expression}."})
        text = bytes(output).decode(errors="replace").strip()
        if code != 0 or not text.startswith("{ok, "):
            raise RuntimeError(f"{expression} came to {text} in RabbitMQ, and erl_call ended with {code}")
        return text.removeprefix("{ok, ").removesuffix("}")

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """RabbitMQ blocks whoever publishes, from soon after the beginning of the block to its end."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.0001)")
        try:
            yield
        finally:
            self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.6)")

    @contextmanager
    def application_stopped(self) -> Iterator[None]:
        """RabbitMQ stopped within the block, and started after it, in an Erlang node that goes on.

        To clients it is the same as `stopped`, in a third of its time: connections end, and nobody listens.
        """
        self.evaluate("rabbit:stop()")
        try:
            yield
        finally:
            self.evaluate("rabbit:start()")
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, self.container)

    def _is_ready(self) -> bool:
        port = _port(self.url)
        if self.name == "kafka":
            return kafka_answers(port)
        return amqp_answers(port) and http_answers(f"http://127.0.0.1:{_port(self.management_url)}/")


@contextmanager
def rabbitmq(version: RabbitMQVersion = "4.3", *, report: Callable[[str], None] | None = None) -> Iterator[Broker]:
    """A RabbitMQ of this process's own, removed at the end of the block, also when the process is interrupted.

    Raises:
        BrokersUnavailable: There is no way to one on this machine.
    """
    with _removed_at_the_end(RABBITMQ_NAMES[version], report) as broker:
        yield broker


@contextmanager
def kafka(*, report: Callable[[str], None] | None = None) -> Iterator[Broker]:
    """A Kafka of this process's own: as `rabbitmq`."""
    with _removed_at_the_end("kafka", report) as broker:
        yield broker


@contextmanager
def _removed_at_the_end(name: BrokerName, report: Callable[[str], None] | None) -> Iterator[Broker]:
    image = provide(name, report=report)[name]
    client = docker.from_env()
    try:
        remove_leftovers(client)
        with _sigterm_interrupts():
            broker = start(name, image, owner=this_process(), client=client)
            try:
                yield broker
            finally:
                remove(broker.container)
    finally:
        client.close()


@contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Within the block SIGTERM unwinds the stack as SIGINT does, unless someone handles it already."""
    in_charge = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not in_charge:
        yield
        return
    owner = os.getpid()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child has inherited this, and nothing to remove
            os._exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start(name: BrokerName, image: str, *, owner: str, client: docker.DockerClient) -> Broker:
    """Starts a broker that belongs to `owner` and returns when it is ready. Whoever calls this sees to its removal."""
    for _ in range(5):
        recipe = _kafka(image) if name == "kafka" else _rabbitmq(image)
        try:
            return recipe.start(name, owner, client)
        except APIError as error:
            if "port is already allocated" not in str(error) and "address already in use" not in str(error):
                raise
    raise RuntimeError(f"no free port was found for {name}: five were taken while it started")


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What differs between the brokers."""

    image: str
    url: str
    management_url: str
    ports: dict[str, int]  # in the container: on this machine
    environment: dict[str, str]
    files: dict[str, Path]

    def start(self, name: BrokerName, owner: str, client: docker.DockerClient) -> Broker:
        facts = {BROKER_LABEL: name, URL_LABEL: self.url, MANAGEMENT_LABEL: self.management_url}
        starting = DockerContainer(self.image, env=self.environment).with_kwargs(labels=labels(owner) | facts)
        starting.with_name(f"mqkit-{name}-{secrets.token_hex(3)}")
        # the library's own with_bind_ports would open them to the network
        ports: dict[str, Any] = {inside: ("127.0.0.1", port) for inside, port in self.ports.items()}
        starting.ports.update(ports)
        for inside, path in self.files.items():
            starting.with_copy_into_container(path, inside)
        try:
            starting.start()
            broker = broker_in(client.containers.get(starting.get_container_id()))
            broker.wait_until_ready()
        except BaseException:
            starting.stop()
            raise
        starting.get_docker_client().client.close()
        return broker


def broker_in(container: Container) -> Broker:
    """The broker that runs in a container which `start` made."""
    facts = container.labels
    return Broker(facts[BROKER_LABEL], facts[URL_LABEL], facts[MANAGEMENT_LABEL], container)


def _rabbitmq(image: str) -> _Recipe:
    port, management_port = _free_port(), _free_port()
    management_url = f"http://guest:guest@127.0.0.1:{management_port}"
    return _Recipe(
        image=image,
        url=f"amqp://guest:guest@127.0.0.1:{port}/?management={management_url}",
        management_url=management_url,
        ports={"5672/tcp": port, "15672/tcp": management_port},
        # a waiting retry whose time comes while RabbitMQ boots is forwarded when this is over: 180 s, if not set;
        # and what is counted of a quorum queue is half a second old at most, not five
        environment={
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit dead_letter_worker_publisher_confirm_timeout 3000"
            " -rabbit quorum_tick_interval 500"
        },
        files={"/etc/rabbitmq/conf.d/90-mqkit.conf": Path(__file__).with_name("rabbitmq") / "mqkit.conf"},
    )


def _kafka(image: str) -> _Recipe:
    port = _free_port()
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://:9092,INTERNAL://:9094,CONTROLLER://:9093",
        # clients come back to what the broker says its address is, so the port on this machine is chosen before
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},INTERNAL://localhost:9094",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data",
        # one node cannot replicate; few partitions start faster
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "true",  # Kafka's default: no client of ours may make use of it
        # a topic may allow messages of up to 32 MB; the broker's own limit stays 1 MB
        "replica.fetch.max.bytes": "33554432",
        "socket.request.max.bytes": "104857600",
    }
    environment = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}
    return _Recipe(
        image=image,
        url=f"kafka://127.0.0.1:{port}",
        management_url="",
        ports={"9092/tcp": port},
        environment=environment | {"KAFKA_HEAP_OPTS": "-Xmx512m"},
        files={},
    )


def _free_port() -> int:
    """A port that nobody listens on, below those that outgoing connections take: it must stay free in a restart."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311  no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _port(url: str) -> int:
    return int(url.partition("?")[0].rstrip("/").rpartition(":")[2])
