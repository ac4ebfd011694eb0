"""The command line of the brokers: `python testcontainers/broker_command.py up`, as `make brokers` calls it.

What it starts is kept until `down`; a test run neither uses nor removes it.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import docker
from broker_containers import BROKER_LABEL, Broker, broker_in, start
from broker_images import BrokerName, BrokersUnavailable, provide
from broker_owners import KEPT, is_alive, owned_containers, owner_of, remove, remove_leftovers
from docker.errors import DockerException

SERVED: tuple[BrokerName, ...] = ("rabbitmq", "kafka")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BrokersUnavailable as error:
        print(f"no broker can be had here: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Real brokers in containers, to try things out with.")
    parser.add_argument("--json", action="store_true", help="print facts for programs instead of for people")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("provision", _provision, "get the Docker engine and the images, and start nothing"),
        ("up", _up, "start RabbitMQ and Kafka, or find them running, and print their URLs"),
        ("down", _down, "remove what `up` started"),
        ("status", _status, "list the brokers, those of test runs too"),
        ("sweep", _sweep, "remove what test runs left that ended without cleaning up"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.set_defaults(run=run)
    return parser


def _provision(options: argparse.Namespace) -> None:
    images = provide("rabbitmq", "rabbitmq-old", "kafka")
    _print(options, images, [f"{broker:13} {image}" for broker, image in images.items()])


def _up(options: argparse.Namespace) -> None:
    images = provide(*SERVED)
    client = docker.from_env()
    brokers = [_find_kept(client, name) or _start_kept(client, name, images[name]) for name in SERVED]
    lines = [line for broker in brokers for line in (f"{broker.name} is running:", f"  {broker.url}")]
    lines += ["", "Try the demo on them:", *(f"  make demo URL='{broker.url}'" for broker in brokers)]
    lines += ["", "They run until you say: make brokers-down"]
    facts = {each.name: {"url": each.url, "management_url": each.management_url} for each in brokers}
    _print(options, facts, lines)
    client.close()


def _find_kept(client: docker.DockerClient, name: BrokerName) -> Broker | None:
    for container in owned_containers(client):
        if owner_of(container) == KEPT and container.labels.get(BROKER_LABEL) == name:
            broker = broker_in(container)
            if container.status == "paused":
                container.unpause()
            elif container.status != "running":  # the engine was restarted, or it was stopped by hand
                container.start()
            broker.wait_until_ready()
            return broker
    return None


def _start_kept(client: docker.DockerClient, name: BrokerName, image: str) -> Broker:
    print(f"starting {name} ({image})", file=sys.stderr, flush=True)
    return start(name, image, owner=KEPT, client=client)


def _down(options: argparse.Namespace) -> None:
    removed = []
    if client := _running_engine():
        for container in owned_containers(client):
            if owner_of(container) == KEPT:
                remove(container)
                removed.append(container.labels.get(BROKER_LABEL, container.name))
        client.close()
    _print(options, removed, [f"removed: {name}" for name in removed] or ["no brokers were running"])


def _status(options: argparse.Namespace) -> None:
    found = []
    if client := _running_engine():
        found = [
            {
                "broker": container.labels.get(BROKER_LABEL, ""),
                "state": container.status,
                "owner": owner_of(container) if is_alive(owner_of(container)) else "a run that is dead",
                "url": broker_in(container).url if BROKER_LABEL in container.labels else "",
            }
            for container in owned_containers(client)
        ]
        client.close()
    lines = [f"{each['broker']:13} {each['state']:8} {each['url']}  ({each['owner']})" for each in found]
    _print(options, found, lines or ["no brokers are running"])


def _sweep(options: argparse.Namespace) -> None:
    removed = []
    if client := _running_engine():
        removed = remove_leftovers(client)
        client.close()
    _print(options, removed, [f"removed a leftover: {name}" for name in removed])


def _running_engine() -> docker.DockerClient | None:
    """A client, or None: where no engine answers there is nothing to remove or list either."""
    try:
        return docker.from_env()
    except DockerException:
        return None


def _print(options: argparse.Namespace, facts: object, lines: Sequence[str]) -> None:
    if options.json:
        print(json.dumps(facts, indent=2))
    elif lines:
        print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
