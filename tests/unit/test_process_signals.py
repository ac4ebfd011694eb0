"""SIGINT and SIGTERM: whom they stop, when they end the process, and what they do afterwards."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from mqkit.process_signals import stopping

PATIENCE = 60.0


def ended(script: str, *lines_and_numbers: tuple[str, signal.Signals]) -> tuple[int, str]:
    """Exit code of a process, and what else it said: it gets each signal when it has said the line before it."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line, number in lines_and_numbers:
            assert process.stdout.readline().strip() == line
            process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said


ASYNC = """
import asyncio
from mqkit.process_signals import stopping

async def main(hang):
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    with stopping(lambda: loop.call_soon_threadsafe(stopped.set)):
        print("ready", flush=True)
        await stopped.wait()
        print("stopping", flush=True)
        if hang:
            await asyncio.sleep(1000)
"""
PLAIN = """
from queue import SimpleQueue
from mqkit.process_signals import stopping

def main(hang):
    wanted = SimpleQueue()
    with stopping(lambda: wanted.put(None)):
        print("ready", flush=True)
        wanted.get()
        print("stopping", flush=True)
        if hang:
            SimpleQueue().get()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("script", "call"), [(ASYNC, "asyncio.run(main(bool({})))"), (PLAIN, "main(bool({}))")])
def test_the_first_signal_stops_and_the_second_ends_at_once(script: str, call: str, number: signal.Signals) -> None:
    assert ended(script + call.format(""), ("ready", number)) == (0, "stopping\n")
    code, _ = ended(script + call.format("1"), ("ready", number), ("stopping", number))
    assert code == 128 + number


def test_an_event_loop_without_signal_handlers_will_do() -> None:
    poor = """
class Poor(asyncio.SelectorEventLoop):
    def add_signal_handler(self, *args):
        raise NotImplementedError
    remove_signal_handler = add_signal_handler

with asyncio.Runner(loop_factory=Poor) as runner:
    runner.run(main(False))
"""
    assert ended(ASYNC + poor, ("ready", signal.SIGTERM)) == (0, "stopping\n")


def test_one_signal_is_for_all_that_run_in_whatever_order_they_began_and_end() -> None:
    heard: list[str] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ExitStack() as first:
        first.enter_context(stopping(lambda: heard.append("first")))
        with stopping(lambda: heard.append("second")):
            first.close()
            os.kill(os.getpid(), signal.SIGTERM)
            with stopping(lambda: heard.append("late")):
                pass
    assert heard == ["second", "late"], "the first had ended, and the late one began while the process was stopping"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with stopping(lambda: heard.append("next")):
        pass
    assert "next" not in heard, "that signal is over"


def test_one_in_another_thread_hears_of_signals_while_there_is_one_in_the_main_thread() -> None:
    inside, heard = threading.Event(), threading.Event()

    def other() -> None:
        with stopping(heard.set):
            inside.set()
            heard.wait(PATIENCE)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(PATIENCE)
    with stopping(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join(PATIENCE)
    assert heard.is_set()


def test_a_handler_that_somebody_sets_meanwhile_stays() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with stopping(lambda: None):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_child_process_does_with_signals_what_its_parent_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping(lambda: None):
        assert signal.getsignal(signal.SIGTERM) is not before
        child = os.fork()
        if not child:
            os._exit(signal.getsignal(signal.SIGTERM) is not before)
        assert os.waitpid(child, 0)[1] == 0


TWO_APPS = """
import asyncio, threading, time
from mqkit import App, AsyncApp, Topic

def service(of, name):
    app = of(f"memory://{name}")
    topic = Topic(name, int, groups=["g"])
    if of is App:
        @app.subscribe(topic, group="g")
        def handle(number):
            begun.append(name)
            time.sleep(0.3)
            ended.append(name)
    else:
        @app.subscribe(topic, group="g")
        async def handle(number):
            begun.append(name)
            await asyncio.sleep(0.3)
            ended.append(name)
    return app, topic

begun, ended = [], []
a, to_a = service(AsyncApp, "a")
b, to_b = service(AsyncApp, "b")
c, to_c = service(App, "c")

def ready():
    while len(begun) < 3:
        time.sleep(0.01)
    print("ready", flush=True)

async def main():
    async with a, b:
        running = asyncio.gather(a.run(), b.run())
        await a.publish(to_a, 1)
        await b.publish(to_b, 1)
        await running

with c:
    thread = threading.Thread(target=c.run)
    thread.start()
    c.publish(to_c, 1)
    threading.Thread(target=ready, daemon=True).start()
    asyncio.run(main())
    thread.join()
    print(sorted(ended), flush=True)
"""


def test_one_signal_stops_all_apps_of_a_process_in_order() -> None:
    assert ended(TWO_APPS, ("ready", signal.SIGTERM)) == (0, "['a', 'b', 'c']\n")
