"""Who a container belongs to, written on it as labels, and the removal of those whose owner is dead.

An owner is a process of a test run, or `KEPT`: what `make brokers` starts stays until it is asked to go.
"""

import os
import socket
from pathlib import Path
from typing import Final

import docker
from docker.errors import NotFound
from docker.models.containers import Container

KEPT: Final = "kept"
OURS_LABEL: Final = "mqkit"
OWNER_LABEL: Final = "mqkit.owner"


def this_process() -> str:
    """The owner label of what this process starts."""
    return f"{socket.gethostname()} {os.getpid()} {_start_time(os.getpid())}"


def labels(owner: str) -> dict[str, str]:
    return {OURS_LABEL: "1", OWNER_LABEL: owner}


def owner_of(container: Container) -> str:
    return str(container.labels.get(OWNER_LABEL, ""))


def owned_containers(client: docker.DockerClient) -> list[Container]:
    """All containers, running or not, that any owner of ours started."""
    return list(client.containers.list(all=True, filters={"label": f"{OURS_LABEL}=1"}, ignore_removed=True))


def remove_leftovers(client: docker.DockerClient) -> list[str]:
    """Removes the containers of runs that ended without doing so; returns their names."""
    removed = []
    for container in owned_containers(client):
        if not is_alive(owner_of(container)):
            remove(container)
            removed.append(str(container.name))
    return removed


def remove(container: Container) -> None:
    """Removes a container in whatever state, with its volumes; one that is gone already is fine."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except docker.errors.APIError as error:
        if "already in progress" not in str(error):  # another clean-up was faster
            raise


def is_alive(owner: str) -> bool:
    """Whether the owner may still want its containers. One on another machine always may."""
    host, _, process = owner.partition(" ")
    if owner == KEPT or host != socket.gethostname():
        return True
    pid, _, started = process.partition(" ")
    return pid.isdecimal() and _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Tells a process from a later one of the same id; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self").exists() else _running_without_proc(pid)
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state == "Z" else fields[18]


def _running_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
