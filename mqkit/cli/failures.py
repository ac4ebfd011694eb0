"""Errors as people read them: one sentence that says what was wrong and what to do, and an exit code.

A traceback comes only when asked for, by --traceback or MQKIT_TRACEBACK=1: for bug reports.
"""

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from mqkit.callables import not_begun
from mqkit.cli.output import complain
from mqkit.errors import AuthenticationFailed, ConfigurationError, ConnectionLost, MqkitError, TopologyError

INTERRUPTED = 130
"""What a shell sees of a process that SIGINT ended."""
REMEDIES: dict[type[MqkitError], str] = {
    AuthenticationFailed: "check the user, the password and the rest of the URL",
    ConnectionLost: "start the broker, or name another with --url or MQKIT_URL",
}
TracebackOption = Annotated[
    bool,
    typer.Option(
        "--traceback", envvar="MQKIT_TRACEBACK", help="Show the traceback of an error: for bug reports.",
        rich_help_panel="Everywhere",
    ),
]  # fmt: skip


class UsageError(MqkitError):
    """The options make no sense together."""


def sentence(error: BaseException) -> str:
    """`error` in one sentence, with what to do."""
    if isinstance(error, TopologyError):
        return str(error)  # one line for each difference
    text = " ".join(str(error).split()).rstrip(".")
    if not isinstance(error, MqkitError):
        return f"mqkit met a defect, {type(error).__name__}: {text}; run it again with --traceback, and report that"
    for kind, remedy in REMEDIES.items():
        if isinstance(error, kind):
            return f"{text}; {remedy}"
    return text


def guarded(function: Callable[..., object]) -> Callable[..., None]:
    """`function` as a command: its errors are told in a sentence, and it takes `--traceback`."""
    signature = inspect.signature(function, eval_str=True)
    parameters = dict(signature.parameters)
    parameters.setdefault(
        "traceback",
        inspect.Parameter("traceback", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=TracebackOption),
    )
    takes_it = "traceback" in signature.parameters

    @wraps(function)
    def command(*args: Any, **given: Any) -> None:
        traceback = given["traceback"] if takes_it else given.pop("traceback", False)
        try:
            if wrong := not_begun(function(*args, **given)):
                raise ConfigurationError(f"the command is {wrong}: write it as a plain function")  # noqa: TRY301 - told like all else
        except (typer.Exit, typer.BadParameter, BrokenPipeError):
            raise
        except (KeyboardInterrupt, typer.Abort):
            if sys.stderr.isatty():
                sys.stderr.write("\n")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if traceback:
                raise
            complain(sentence(error))
            raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None

    vars(command)["__signature__"] = signature.replace(parameters=list(parameters.values()))
    return command
