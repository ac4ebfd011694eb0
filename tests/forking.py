"""Programs whose process is forked while their app is open. `python -m tests.forking SCENARIO URL`: it ends with 0.

A process of its own for each, since a test run must not be forked. See tests/integration/test_fork.py.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import Literal
from uuid import uuid4

from mqkit import App, ClosedError, Topic, hookimpl
from mqkit import Event as Happened
from mqkit.testing.waiting import eventually

PATIENCE = 20.0
End = Literal["_exit", "exit"]
STUCK = 1_000_000
"""The key of this number cannot be told before `go_on`: whoever publishes it stays inside of publish."""
inside, go_on = Event(), Event()


def key_of(number: int) -> str:
    if number == STUCK:
        inside.set()
        assert go_on.wait(PATIENCE)
    return str(number)


class Shop:
    """An app that publishes numbers and counts what it handles."""

    def __init__(self, url: str, *, handle: Callable[[int], None] = lambda _: None, plugin: object = None) -> None:
        self.topic = Topic(f"fork-{uuid4().hex[:8]}", int, key=key_of, groups=["counting"])
        self.app = App(url, publish_timeout=20, plugins=[plugin] if plugin else [])
        self.seen: list[int] = []
        self.changes: list[Happened] = []
        self.shared = not url.startswith("memory:")

        @self.app.subscribe(self.topic, group="counting")
        def count(number: int) -> None:
            handle(number)
            self.seen.append(number)

        @self.app.listen
        def note(event: Happened) -> None:
            if event.kind in ("connected", "disconnected"):
                self.changes.append(event)

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.app.publish(self.topic, number)

    def has_seen(self, mine: set[int], of_children: set[int] = frozenset()) -> None:  # type: ignore[assignment] # never changed
        """All that this process published comes, and what its children did, where they reach the same broker."""
        wanted = mine | of_children if self.shared else mine
        eventually(lambda: wanted <= set(self.seen), "all were handled", shown=lambda: wanted - set(self.seen))
        assert not self.changes, f"a child disturbed the connection: {self.changes}"


def forked(work: Callable[[], object], end: End = "_exit") -> int:
    """A child that does this and ends, at once or as programs do."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except Exception:
        traceback.print_exc()
        os._exit(1)
    if end == "_exit":
        os._exit(0)
    sys.exit(0)


def ended(child: int) -> None:
    """Wait for its end; it was well."""

    def look() -> bool:
        with suppress(ChildProcessError):
            found, status = os.waitpid(child, os.WNOHANG)
            if not found:
                return False
            assert os.waitstatus_to_exitcode(status) == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
        return True

    try:
        eventually(look, f"the child {child} ended", timeout=PATIENCE)
    except AssertionError:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGUSR1)
            time.sleep(0.5)  # it shows where it hangs
            os.kill(child, signal.SIGKILL)
        raise


def spawned(work: Callable[..., object], *args: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    return process


def joined(process: BaseProcess) -> None:
    assert process.pid is not None
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, f"the process ended with {process.exitcode}"


def waits(writing: int) -> None:
    os.write(writing, b"!")
    signal.pause()


def opened(url: str) -> None:
    """Children connect anew, however they end; the parent's connection is as it was."""
    shop = Shop(url)
    with shop.app:
        shop.publish(1)
        ended(forked(lambda: shop.publish(2)))
        ended(forked(lambda: shop.publish(3), "exit"))
        joined(spawned(shop.publish, 4))
        ended(forked(lambda: None, "exit"))
        shop.publish(5)

        def generations() -> None:
            shop.publish(6)
            ended(forked(lambda: shop.publish(7), "exit"))
            shop.publish(8)

        ended(forked(generations, "exit"))
        ended(forked(lambda: (shop.app.inspect(shop.topic, "counting"), shop.app.examine(), shop.app.description)))
        ended(forked(lambda: shop.app.dead_letters(shop.topic, "counting").count(), "exit"))
        with shop.app.working():
            shop.has_seen({1, 5}, {2, 3, 4, 6, 7, 8})
        shop.publish(9)


def closed(url: str) -> None:
    """A child may close the app, and open it again; what is closed stays closed."""
    shop = Shop(url)

    def child() -> None:
        shop.app.close()
        try:
            shop.publish(0)
        except ClosedError:
            pass
        else:
            raise AssertionError("it published although it was closed")
        with shop.app:
            shop.publish(2)
        shop.app.open()
        shop.publish(3)

    with shop.app:
        shop.publish(1)
        ended(forked(child, "exit"))
        with shop.app.working():
            shop.has_seen({1}, {2, 3})
    ended(forked(child, "exit"))


def working(url: str) -> None:
    """Children are forked all the time, while handlers run and others publish."""
    shop = Shop(url, handle=lambda _: time.sleep(0.005))
    ending = Event()
    mine: set[int] = set()

    def publish() -> None:
        for number in range(1000, 100_000):
            eventually(lambda: ending.is_set() or len(mine) - len(shop.seen) < 100, "handlers keep up")
            if ending.is_set():
                return
            shop.publish(number)
            mine.add(number)

    children = set(range(30))
    with shop.app.working():
        thread = Thread(target=publish)
        thread.start()
        try:
            for number in children:
                ended(forked(lambda number=number: shop.publish(number), "exit" if number % 2 else "_exit"))  # type: ignore[misc] # a default, bound now
        finally:
            ending.set()
            thread.join()
        shop.has_seen(mine, children)


def publishing(url: str) -> None:
    """A child is forked while a thread is inside of publish: what that thread held, nobody lets go of in the child."""
    shop = Shop(url)
    with shop.app:
        thread = Thread(target=shop.publish, args=(STUCK,))
        thread.start()
        assert inside.wait(PATIENCE)
        children = [forked(lambda: shop.publish(2)), forked(lambda: shop.publish(3), "exit")]
        for child in children:
            ended(child)
        go_on.set()
        thread.join()
        shop.publish(4)
        with shop.app.working():
            shop.has_seen({STUCK, 4}, {2, 3})


def first(url: str) -> None:
    """Children are forked while a thread publishes for the first time: nothing is made just then that they wait for."""
    sys.setswitchinterval(1e-5)
    shop = Shop(url)
    with shop.app:
        thread = Thread(target=shop.publish, args=(100,))
        thread.start()
        children = [forked(lambda number=number: shop.publish(number)) for number in range(10)]  # type: ignore[misc] # bound now
        for child in children:
            ended(child)
        thread.join()
        with shop.app.working():
            shop.has_seen({100}, set(range(10)))


def opening(url: str) -> None:
    """A child is forked while a thread opens the app, another while one closes it."""
    reached, leave = Event(), Event()

    class Slow:
        @hookimpl
        def mqkit_startup(self) -> None:
            reached.set()
            assert leave.wait(PATIENCE)

        mqkit_shutdown = mqkit_startup

    shop = Shop(url, plugin=Slow())

    def child() -> None:
        leave.set()
        with shop.app:
            shop.publish(1)

    for act in (shop.app.open, shop.app.close):
        reached.clear()
        leave.clear()
        thread = Thread(target=act)
        thread.start()
        assert reached.wait(PATIENCE)
        ended(forked(child, "exit"))
        leave.set()
        thread.join()


def handler(url: str) -> None:
    """A handler starts a process: it may publish, and it ends at SIGTERM although its parent would stop at it."""

    def handle(number: int) -> None:
        if number == 1:
            joined(spawned(shop.publish, 2))
        if number == 3:
            reading, writing = os.pipe()
            process = spawned(waits, writing)
            assert os.read(reading, 1)  # Python forgets signals that come while it forks
            process.terminate()
            process.join(PATIENCE / 2)
            assert process.exitcode == -signal.SIGTERM, process.exitcode

    shop = Shop(url, handle=handle)

    def drive() -> None:
        try:
            eventually(lambda: shop.changes or shop.app.engine.is_open, "open")
            shop.publish(1, 3)
            shop.has_seen({1, 3}, {2})
        finally:
            shop.app.stop()

    thread = Thread(target=drive)
    thread.start()
    shop.app.run()
    thread.join()
    shop.app.open()
    shop.has_seen({1, 3}, {2})
    shop.app.close()


def prefork(url: str) -> None:
    """The parent opens the app and forks those who work; each ends at SIGTERM as a worker does."""
    shop = Shop(url)
    with shop.app:
        shop.publish(0)
        workers = [forked(shop.app.run, "exit") for _ in range(2)]
        numbers = set(range(1, 20))
        shop.publish(*numbers)

        def ready() -> int | None:
            counts = shop.app.inspect(shop.topic, "counting")
            return (counts.ready or 0) + (counts.in_flight or 0) + (counts.lag or 0)

        if shop.shared:
            eventually(lambda: ready() == 0, "all is handled", shown=ready)
        time.sleep(0.5)  # they have caught their signals: where nothing is shared there is no fact to wait for
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        for worker in workers:
            ended(worker)
        shop.publish(20)
        with shop.app.working():
            shop.has_seen({20} if shop.shared else {0, *numbers, 20})


SCENARIOS: dict[str, Callable[[str], None]] = {
    scenario.__name__: scenario for scenario in (opened, closed, working, publishing, first, opening, handler, prefork)
}

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    SCENARIOS[sys.argv[1]](sys.argv[2])
