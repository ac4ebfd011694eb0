"""What an app has declared at its broker: all of its topology when it opens, and what it publishes to first later."""

from collections.abc import Iterable
from typing import Any

from mqkit.backend import Backend
from mqkit.errors import ConnectionLost, TopologyError
from mqkit.ports import Ports, Promise
from mqkit.topic import Topic
from mqkit.topology import TopicNeed, Topology


class Declarations:
    """Of one session of an app.

    Args:
        known: topics that were declared already.
    """

    def __init__(self, known: Iterable[Topic[Any]] = ()) -> None:
        self._known = set(known)
        self._pending: dict[Topic[Any], Promise] = {}

    async def ensure(self, backend: Backend, ports: Ports, topic: Topic[Any]) -> None:
        """Declare `topic`, once, however many ask for it at the same time."""
        if topic in self._known:
            return
        pending = self._pending.get(topic)
        if pending is not None:
            await pending.result()
            return
        pending = self._pending[topic] = ports.promise()
        need = TopicNeed(topic.name, frozenset(topic.groups), topic.options)
        try:
            await backend.declare(Topology((need,)))
            self._known.add(topic)
            pending.resolve(None)
        except Exception as error:
            pending.resolve(error)
            raise
        finally:
            del self._pending[topic]
            pending.resolve(ConnectionLost(f"declaring topic {topic.name!r} was interrupted"))


async def settled(backend: Backend, topology: Topology, *, declare: bool) -> None:
    """See to it that all of `topology` is there: make what is missing, or, without `declare`, only look.

    Raises:
        TopologyError: it is not, or something is there with other settings.
    """
    if declare:
        await backend.declare(topology)
        return
    findings = await backend.examine(topology)
    if missing := [f"{f.kind} {f.name} is missing" for f in findings if f.state == "missing"]:
        raise TopologyError("declare is off, and at the broker", missing)
    if wrong := [line for f in findings if f.state == "differs" for line in f.lines()]:
        raise TopologyError("at the broker", wrong)
