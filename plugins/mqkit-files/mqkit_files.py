"""Messages as files in a folder: a backend for mqkit in one module, and a middleware that logs how long handlers take.

A group has two lanes, `live` and `dead`. A lane has a folder `ready` and one folder for each member that holds some of
its messages. One lock guards the whole tree for moments; each member locks a file of its own for as long as it lives,
so that what a dead process held is known and goes back.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from base64 import b64decode, b64encode
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Event
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from mqkit.backend import (
    BackendSpec,
    Capabilities,
    Counts,
    Notes,
    Notify,
    Recall,
    Settlement,
    Settlements,
    Subscription,
)
from mqkit.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLost,
    ErrorTable,
    LeaseLost,
    MqkitError,
    PublishError,
    Unroutable,
    map_errors,
)
from mqkit.hookspecs import hookimpl
from mqkit.message import Delivery, Message, Outgoing, WireMessage
from mqkit.middleware import Middleware
from mqkit.topology import Finding, Topology

LOOK = 0.02
"""Seconds between two looks at an empty lane."""
REAP = 0.5
"""Seconds between two looks for members that died."""
CAPABILITIES = Capabilities()
TAIL = "~"
"""What the folder of a tail begins with, so that it is no group."""
BYTES = "base64:"
"""Marks bytes among the JSON of headers."""
MEMBER = "alive"
"""The file that a member keeps locked."""
log = logging.getLogger("mqkit.files")
DISK: ErrorTable = {OSError: lambda error: ConnectionLost(f"the folder cannot be used: {error}")}


class Name(NamedTuple):
    """What the name of a message's file tells without opening it."""

    position: int
    due: int
    times: int
    key: str
    spent: int = 0
    begun: int = 0

    @classmethod
    def read(cls, text: str) -> "Name":
        """From a file's name."""
        position, due, times, key, *noted = text.split(".")
        return cls(int(position), int(due), int(times), key, *map(int, noted))

    def __str__(self) -> str:
        return f"{self.position:020}.{self.due:020}.{self.times}.{self.key}.{self.spent}.{self.begun}"


def names(folder: Path) -> list[Name]:
    """Of the messages in a folder, in order of position."""
    return sorted(Name.read(text) for text in (path.name for path in folder.iterdir()) if text != MEMBER)


def packed(message: WireMessage, returned: bool) -> bytes:  # noqa: FBT001 - one record
    """A message as a file has it: one line of JSON, and the body."""
    head = {
        "headers": dict(message.headers),
        "key": None if message.key is None else b64encode(message.key).decode(),
        "content_type": message.content_type,
        "id": message.id,
        "properties": dict(message.properties),
        "returned": returned,
    }
    return json.dumps(head, default=written).encode() + b"\n" + message.body


def written(value: object) -> object:
    """A header's value that JSON does not know: bytes come back as bytes, all else as text."""
    return {BYTES: b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def read(found: dict[str, Any]) -> Any:
    """What `written` wrote."""
    return b64decode(found[BYTES]) if found.keys() == {BYTES} else found


def unpacked(data: bytes) -> tuple[WireMessage, bool]:
    """The message in a file, and whether it came by its group's way back."""
    line, _, body = data.partition(b"\n")
    head: dict[str, Any] = json.loads(line, object_hook=read)
    key = None if head["key"] is None else b64decode(head["key"])
    wire = WireMessage(body, head["headers"], key, head["content_type"], head["id"], head["properties"])
    return wire, head["returned"]


class FilesBackend:
    """A folder, named by `files:///path/of/the/folder`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc or parts.query or parts.fragment or not parts.path.strip("/"):
            raise ConfigurationError(f"{url!r}: write files:///path/of/a/folder, and nothing behind it")
        self.capabilities = CAPABILITIES
        self.root = Path(unquote(parts.path))
        self._last = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else touches the tree. Raises ConnectionLost if the folder cannot be used."""
        with map_errors(DISK), (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def position(self) -> int:
        """A number above all that were given before, under the lock."""
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    def group(self, topic: str, group: str) -> Path:
        """The folder of a group. Raises ConfigurationError naming those that exist."""
        folder = self.root / topic / group
        if not folder.is_dir():
            known = ", ".join(".".join(pair) for pair in self._groups()) or "none yet"
            raise ConfigurationError(f"there is no group {group!r} of topic {topic!r}; there is {known}")
        return folder

    def _groups(self) -> list[tuple[str, str]]:
        found = self.root.glob("*/*/live")
        return sorted((path.parts[-3], path.parts[-2]) for path in found if not path.parts[-2].startswith(TAIL))

    def connect(self, timeout: float) -> str:  # noqa: ARG002 - the seam's signature
        """As Backend.connect. Nothing else makes the folder: one that is away for a while is not made anew, empty."""
        with map_errors(DISK):
            self.root.mkdir(parents=True, exist_ok=True)
        with self.locked():
            return f"the folder {self.root}"

    def declare(self, topology: Topology) -> None:
        """As Backend.declare."""
        with self.locked():
            for need in topology.topics:
                (self.root / need.name).mkdir(exist_ok=True)
                for group in need.groups:
                    for lane in ("live", "dead"):
                        (self.root / need.name / group / lane / "ready").mkdir(parents=True, exist_ok=True)

    def examine(self, topology: Topology) -> Sequence[Finding]:
        """As Backend.examine."""
        with self.locked():
            wanted = [("topic", need.name, self.root / need.name) for need in topology.topics]
            wanted += [
                ("group", f"{need.name}.{group}", self.root / need.name / group)
                for need in topology.topics
                for group in sorted(need.groups)
            ]
            return [Finding(kind, name, "present" if path.is_dir() else "missing") for kind, name, path in wanted]

    def open_sender(self) -> "FilesSender":
        """As Backend.open_sender."""
        with self.locked():
            return FilesSender(self)

    def open_receiver(self, subscription: Subscription, notify: Notify) -> "FilesReceiver":  # noqa: ARG002 - as above
        """As Backend.open_receiver."""
        with self.locked():
            return FilesReceiver(self, subscription)

    def inspect(self, topic: str, group: str) -> Counts:
        """As Backend.inspect."""
        with self.locked():
            folder, now = self.group(topic, group), time.time_ns()
            live = names(folder / "live" / "ready")
            waiting = sum(name.due > now for name in live)
            held = sum(len(names(member)) for member in (folder / "live").glob("member-*"))
            dead = sum(len(names(each)) for each in (folder / "dead").iterdir())
            return Counts(ready=len(live) - waiting, in_flight=held, waiting=waiting, dead=dead)

    def groups(self, topic: str | None = None) -> Sequence[tuple[str, str]]:
        """As Backend.groups."""
        with self.locked():
            return [pair for pair in self._groups() if topic in (None, pair[0])]

    def close(self) -> None:
        """As Backend.close."""


class FilesSender:
    """Writes files."""

    def __init__(self, backend: FilesBackend) -> None:
        self._backend = backend
        self._closed = False

    def send(self, batch: Sequence[Outgoing], timeout: float) -> None:  # noqa: ARG002 - the lock is held for moments
        """As Sender.send."""
        if self._closed:
            raise ClosedError("the sender is closed")
        rejected: dict[int, MqkitError] = {}
        with self._backend.locked():
            touched: set[Path] = set()
            for i, outgoing in enumerate(batch):
                lanes = self._lanes(outgoing)
                if not any(not lane.parts[-3].startswith(TAIL) for lane in lanes):
                    rejected[i] = Unroutable(
                        f"nothing would ever receive it: no such group of topic {outgoing.topic!r}"
                    )
                    continue
                self._write(outgoing, lanes)
                touched.update(lanes)
            for folder in touched:
                flushed(folder)
        if rejected:
            raise PublishError(rejected)

    def _lanes(self, outgoing: Outgoing) -> list[Path]:
        lane = "dead" if outgoing.dead else "live"
        folder = self._backend.root / outgoing.topic
        return sorted(folder.glob(f"{outgoing.group or '*'}/{lane}/ready")) if folder.is_dir() else []

    def _write(self, outgoing: Outgoing, lanes: Sequence[Path]) -> None:
        key = outgoing.message.key
        due = time.time_ns() + int(outgoing.delay * 1e9) if outgoing.delay else 0
        hashed = "-" if key is None else blake2b(key, digest_size=8).hexdigest()
        name = str(Name(self._backend.position(), due, 0, hashed))
        draft = self._backend.root / ".draft"
        with draft.open("wb") as file:
            file.write(packed(outgoing.message, outgoing.group is not None))
            file.flush()
            os.fsync(file.fileno())
        for lane in lanes:
            (lane / name).hardlink_to(draft)
        draft.unlink()

    def close(self) -> None:
        """As Sender.close."""
        self._closed = True


def flushed(folder: Path) -> None:
    """Make sure that the folder itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FilesReceiver:
    """One member: a folder of its own, and a locked file in it that shows that it lives."""

    def __init__(self, backend: FilesBackend, subscription: Subscription) -> None:
        self._backend = backend
        self._subscription = subscription
        self._group = subscription.group
        if subscription.source == "tail":
            if not (backend.root / subscription.topic).is_dir():
                raise ConfigurationError(f"there is no topic {subscription.topic!r}")
            self._group = f"{TAIL}{uuid4().hex}"
            (backend.root / subscription.topic / self._group / "live" / "ready").mkdir(parents=True)
        folder = backend.group(subscription.topic, self._group)
        self._dead = subscription.source == "dead"
        self._lane = folder / ("dead" if self._dead else "live")
        self._mine = self._lane / f"member-{uuid4().hex}"
        self._mine.mkdir()
        self._alive: IO[str] = (self._mine / MEMBER).open("w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._out: dict[object, Name] = {}
        """The tokens, which are names as they were when a message was taken, and the names by now."""
        self._begun: set[object] = set()
        self._woken = Event()
        self._reap_at = 0.0
        self._closed = False

    def receive(self, limit: int, timeout: float) -> Sequence[Delivery]:
        """As Receiver.receive."""
        end = time.monotonic() + timeout
        while True:
            if self._closed:
                raise ClosedError("the receiver is closed")
            allowed = self._subscription.prefetch + self._subscription.aside
            room = limit if self._dead else min(limit, allowed - len(self._out))
            if found := self._take(room):
                return found
            left = end - time.monotonic()
            if left <= 0 or self._woken.wait(min(left, LOOK) if limit else left):
                self._woken.clear()
                return ()

    def recalled(self) -> Sequence[Recall]:
        """As Receiver.recalled: whoever holds its lock keeps what it took."""
        return ()

    def _take(self, room: int) -> list[Delivery]:
        if room <= 0:
            return []
        with self._backend.locked():
            if not self._mine.is_dir():
                raise ConnectionLost(f"the folder of group {self._group!r} was deleted")
            self._reap()
            now, taken = time.time_ns(), list[Delivery]()
            held = self._keys_of_others() if self._subscription.ordering == "key" else frozenset[str]()
            for name in names(self._lane / "ready"):
                if name.due <= now and name.key not in held:
                    mine = name._replace(times=name.times + 1)
                    (self._lane / "ready" / str(name)).rename(self._mine / str(mine))
                    self._out[mine] = mine
                    taken.append(self._delivery(mine))
                    if len(taken) == room:
                        break
            return taken

    def _delivery(self, name: Name) -> Delivery:
        wire, returned = unpacked((self._mine / str(name)).read_bytes())
        origin = f"{self._subscription.topic}/{name.position}"
        return Delivery(
            wire,
            name,
            self._subscription.topic,
            self._subscription.group,
            origin,
            returned,
            name.times - 1,
            name.spent,
            unique=True,
        )

    def _keys_of_others(self) -> frozenset[str]:
        others = (member for member in self._lane.glob("member-*") if member != self._mine)
        return frozenset(name.key for member in others for name in names(member)) - {"-"}

    def _reap(self) -> None:
        """Give back what members held that are no longer alive, under the lock."""
        if time.monotonic() < self._reap_at:
            return
        self._reap_at = time.monotonic() + REAP
        for member in self._lane.glob("member-*"):
            if member != self._mine:
                with (member / MEMBER).open("a") as alive:
                    try:
                        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    for name in names(member):
                        (member / str(name)).rename(self._lane / "ready" / str(name))
                    shutil.rmtree(member)

    def settle(self, settlements: Settlements) -> None:
        """As Receiver.settle."""
        with self._changing([token for token, _ in settlements]):
            for token, settlement in settlements:
                self._heard_of(token)
                if name := self._out.pop(token, None):
                    if settlement is Settlement.DONE:
                        (self._mine / str(name)).unlink()
                    else:
                        (self._mine / str(name)).rename(self._lane / "ready" / str(name))

    def note(self, notes: Notes) -> None:
        """As Receiver.note."""
        with self._changing([token for token, _ in notes]):
            for token, spent in notes:
                self._heard_of(token)
                if name := self._out.get(token):
                    self._rename(token, name._replace(spent=spent))

    def begin(self, token: object) -> int:
        """As Receiver.begin."""
        before = 0
        with self._changing([token]):
            self._heard_of(token)
            if name := self._out.get(token):
                before = name.begun
                self._rename(token, name._replace(begun=before + 1))
                self._begun.add(token)
        return before

    def _heard_of(self, token: object) -> None:
        if token in self._begun:
            self._begun.discard(token)
            if name := self._out.get(token):
                self._rename(token, name._replace(begun=name.begun - 1))

    def _rename(self, token: object, new: Name) -> None:
        (self._mine / str(self._out[token])).rename(self._mine / str(new))
        self._out[token] = new

    @contextmanager
    def _changing(self, tokens: Sequence[object]) -> Iterator[None]:
        """Under the lock, with what is lost forgotten; raises LeaseLost for that when the rest is on the disk."""
        if self._closed:
            raise ClosedError("the receiver is closed")
        with self._backend.locked():
            there = set(names(self._mine)) if self._mine.is_dir() else set[Name]()
            lost = [token for token in tokens if self._out.get(token) not in there]
            for token in lost:
                self._out.pop(token, None)
            yield
            if self._mine.is_dir():
                flushed(self._mine)
        if lost:
            raise LeaseLost(f"{len(lost)} deliveries do not belong to this session, or no longer")

    def wake(self) -> None:
        """As Receiver.wake."""
        self._woken.set()

    def close(self) -> None:
        """As Receiver.close."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._backend.locked():
                if self._subscription.source == "tail":
                    shutil.rmtree(self._lane.parent, ignore_errors=True)
                elif self._mine.is_dir():
                    for token in tuple(self._begun):
                        self._heard_of(token)
                    for name in names(self._mine):
                        (self._mine / str(name)).rename(self._lane / "ready" / str(name))
                    shutil.rmtree(self._mine)
        except ConnectionLost as error:
            log.warning("what was held goes back when somebody next looks: %s", error)
        finally:
            self._alive.close()


def timing(message: Message[Any]) -> Generator[None]:
    """A middleware: one line in the log of `mqkit.files` for each handled message."""
    started = time.perf_counter()
    try:
        yield
    finally:
        log.info(
            "%s.%s took %.1f ms for %s", message.topic, message.group, (time.perf_counter() - started) * 1e3, message.id
        )


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """The backend of this plugin."""
    return [
        BackendSpec(
            name="files",
            summary="Files in a folder, shared by the processes of one machine.",
            schemes=("files",),
            example_url="files:///var/spool/mqkit",
            capabilities=CAPABILITIES,
            blocking="mqkit_files:FilesBackend",
        )
    ]


@hookimpl
def mqkit_middleware() -> Sequence[Middleware]:
    """The middleware of this plugin."""
    return [timing]
