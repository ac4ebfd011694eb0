"""The tree of errors, and the one place where a driver's become ours."""

import re

import pytest

from mqkit import errors
from mqkit.errors import (
    BackendError,
    ConnectionLost,
    ErrorTable,
    FieldError,
    MessageTooLarge,
    MqkitError,
    PublishError,
    SchemaError,
    TopologyError,
    Unroutable,
    map_errors,
)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([│├└─\s]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                drawn[found[2]] = path[depth - 1]
    real = {
        name: base.__mro__[1].__name__
        for name, base in vars(errors).items()
        if isinstance(base, type) and issubclass(base, MqkitError) and base is not MqkitError
    }
    assert drawn == real


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (BackendError("x"), False),
        (BackendError("x", retryable=True), True),
        (ConnectionLost("x"), True),
        (Unroutable("x"), False),
        (PublishError(unknown={0: ConnectionLost("x")}), True),
        (PublishError(rejected={0: Unroutable("x")}, unknown={1: ConnectionLost("x")}), False),
    ],
)
def test_whether_trying_again_can_help_is_data(error: BackendError, retryable: bool) -> None:
    assert error.retryable is retryable


def test_errors_say_what_is_wrong() -> None:
    assert str(MessageTooLarge(2_000_000, 1_048_576, "the broker")) == (
        "message of 2,000,000 bytes is larger than the 1,048,576 bytes that the broker takes"
    )
    assert str(SchemaError("Order", [FieldError("a.0", "is wrong"), FieldError("", "is missing")])) == (
        "does not match Order: a.0: is wrong; the payload: is missing"
    )
    assert str(TopologyError("differs", ["a", "b"])) == "differs\n  - a\n  - b"
    lost = {i: ConnectionLost(f"reason {i}") for i in range(5)}
    assert str(PublishError({9: Unroutable("nobody")}, lost)) == (
        "1 rejected and 5 with unknown outcome: nobody; reason 0; reason 1; ..."
    )


def test_the_nearest_class_of_a_drivers_error_decides() -> None:
    table: ErrorTable = {OSError: lambda e: BackendError("os"), ConnectionError: lambda e: ConnectionLost(f"lost: {e}")}
    cause = ConnectionResetError("by peer")
    with pytest.raises(ConnectionLost, match="lost: by peer") as caught, map_errors(table):
        raise cause
    assert caught.value.__cause__ is cause
    with pytest.raises(BackendError, match="os"), map_errors(table):
        raise FileNotFoundError


def test_our_own_errors_and_strangers_pass() -> None:
    table: ErrorTable = {Exception: lambda e: BackendError("mapped")}
    with pytest.raises(Unroutable), map_errors(table):
        raise Unroutable("mine")
    with pytest.raises(KeyboardInterrupt), map_errors(table):
        raise KeyboardInterrupt
    with map_errors(table):
        pass
