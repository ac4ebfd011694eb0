"""The driver needs real threads, and who has others is told so."""

import _thread
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent

import pytest

from mqkit.backends.kafka.green import require_threads
from mqkit.errors import ConfigurationError


def in_module(name: str) -> Callable[[], None]:
    def start_new_thread() -> None: ...

    start_new_thread.__module__ = name
    return start_new_thread


def test_real_threads_are_fine() -> None:
    require_threads(_thread.start_new_thread)


@pytest.mark.parametrize(("module", "name"), [("gevent.thread", "gevent"), ("eventlet.green.thread", "eventlet")])
def test_who_replaced_the_threads_is_named(module: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} has replaced the threads.* in a process of its own"):
        require_threads(in_module(module))


@pytest.mark.parametrize("app", ["App", "AsyncApp"])
def test_an_app_with_green_threads_does_not_open_kafka_and_says_why(app: str) -> None:
    program = f"""
        import _thread, asyncio
        real = _thread.start_new_thread

        def start_new_thread(*args, **more):
            return real(*args, **more)

        start_new_thread.__module__ = "gevent.thread"
        _thread.start_new_thread = start_new_thread

        from mqkit import App, AsyncApp, ConfigurationError

        async def open_it():
            async with AsyncApp("kafka://127.0.0.1:1/"): ...

        try:
            if "{app}" == "App":
                with App("kafka://127.0.0.1:1/"): ...
            else:
                asyncio.run(open_it())
        except ConfigurationError as error:
            print(error)
        """
    ended = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    assert "gevent has replaced the threads" in ended.stdout
