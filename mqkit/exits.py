"""What means to end a thread or a process, raised by a user's function: its attempt has failed, and no more.

SystemExit of a command line tool that is used as a function, a test framework's own exits, a KeyboardInterrupt that
nobody typed. A real Ctrl-C goes on to whoever it is meant for.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any


class HandlerExit(RuntimeError):
    """The handler raised what would have ended more than itself; the cause is what it raised."""


def contained(error: BaseException) -> HandlerExit:
    """`error`, which is no Exception, as one."""
    failed = HandlerExit(f"the handler raised {type(error).__name__}: {error}".removesuffix(": "))
    failed.__cause__ = error
    return failed


def called(function: Callable[..., Any], args: Sequence[Any], passing: type[BaseException] = Exception) -> Any:
    """What a plain function returns or raises, in a thread that is not the main one: no Ctrl-C comes there.

    Args:
        passing: what goes on as it is, beside each Exception.

    Raises:
        HandlerExit: it raised what is no Exception.
    """
    try:
        return function(*args)
    except (Exception, passing):
        raise
    except BaseException as error:
        raise contained(error) from error


def typed(error: BaseException) -> bool:
    """Whether `error` is a KeyboardInterrupt that the interpreter raised since somebody pressed Ctrl-C.

    Only the main thread meets one; and where an event loop or an app takes SIGINT for itself, nobody does, but for the
    second one under `asyncio.run`.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "asyncio.runners"
