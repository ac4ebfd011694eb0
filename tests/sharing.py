"""One broker of each kind for all processes of a test run.

The process that first needs one starts it, and the run's main process removes them all at its end. What a test may not
do to them, since others would feel it, it does to a broker of its process's own: see OWN in conftest.py.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker_containers import Broker
    from broker_images import BrokerName


class Sharing:
    """The brokers of one run, known to its processes by a folder.

    Args:
        folder: holds the id of each container, once it is ready.
        owner: the main process, as the containers' label names it: what it leaves behind is removed by later runs.
    """

    def __init__(self, folder: str, owner: str) -> None:
        self.folder = folder
        self.owner = owner

    @classmethod
    def of_this_process(cls) -> "Sharing":
        """For a run whose main process this is; `remove` must follow."""
        from broker_owners import this_process

        return cls(tempfile.mkdtemp(prefix="mqkit-brokers-"), this_process())

    def broker(self, name: "BrokerName") -> "Broker":
        """The run's broker of this kind.

        Raises:
            BrokersUnavailable: there is no way to one on this machine.
        """
        import docker
        from broker_containers import broker_in, start
        from broker_images import provide

        image = provide(name)[name]
        client = docker.from_env()
        with self._alone(name) as known:
            if known.exists():
                return broker_in(client.containers.get(known.read_text()))
            broker = start(name, image, owner=self.owner, client=client)
            known.write_text(str(broker.container.id))
            return broker

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Within the block no other process starts this one. Yields the file of its id."""
        with (Path(self.folder) / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(self.folder) / name

    def remove(self) -> None:
        """Remove the brokers, and the folder."""
        ids = [path.read_text() for path in Path(self.folder).iterdir() if path.suffix != ".lock"]
        if ids:
            import docker
            from broker_owners import owned_containers, owner_of, remove

            client = docker.from_env()
            for container in owned_containers(client):
                if owner_of(container) == self.owner and container.id in ids:
                    remove(container)
            client.close()
        shutil.rmtree(self.folder, ignore_errors=True)
