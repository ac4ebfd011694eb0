"""Errors as sentences."""

import inspect

import pytest
import typer

from mqkit.cli.failures import UsageError, guarded, sentence
from mqkit.errors import AuthenticationFailed, ConfigurationError, ConnectionLost, MqkitError, TopologyError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigurationError("do this."), "do this"),
        (ConfigurationError("two\n  lines"), "two lines"),
        (ConnectionLost("nobody at h:1"), "nobody at h:1; start the broker, or name another with --url or MQKIT_URL"),
        (AuthenticationFailed("no"), "no; check the user, the password and the rest of the URL"),
        (TopologyError("there", ["one", "two"]), "there\n  - one\n  - two"),
        (
            KeyError("x"),
            "mqkit met a defect, KeyError: 'x'; run it again with --traceback, and report that",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_said_with_what_to_do(error: Exception, said: str) -> None:
    assert sentence(error) == said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MqkitError("x"), 1),
        (UsageError("x"), 2),
        (RuntimeError("x"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Exit(3), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_error_has_its_exit_code(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as left:
        guarded(command)()
    assert left.value.exit_code == code
    assert "Traceback" not in capsys.readouterr().err


def test_with_traceback_the_error_itself_comes_out() -> None:
    def command() -> None:
        raise MqkitError("x")

    with pytest.raises(MqkitError):
        guarded(command)(traceback=True)


def test_a_command_keeps_its_own_options_and_gets_one_more() -> None:
    def command(name: str, *, loud: bool = False) -> None: ...
    def own(*, traceback: bool = False) -> None: ...

    assert list(inspect.signature(guarded(command)).parameters) == ["name", "loud", "traceback"]
    assert list(inspect.signature(guarded(own)).parameters) == ["traceback"]
