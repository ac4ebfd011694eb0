"""What calling a user's function would do: all of it at once, or nothing yet, as of what is async or contains `yield`.

Whoever takes a function asks here before the first message, and here again what came of a call.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import CoroutineType
from typing import Any


def function_name(function: Callable[..., Any]) -> str:
    """`module.name` of a function, for people."""
    if isinstance(function, partial):
        return function_name(function.func)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def inner(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """What runs when `function` is called: itself, its `__call__`, what a partial holds. Not what a decorator wraps:
    that may well iterate a generator.
    """
    found: list[Callable[..., Any]] = [function]
    while isinstance(function, partial):
        function = function.func
        found.append(function)
    if not inspect.isroutine(function):
        found.append(type(function).__call__)
    return found


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine, as far as can be told."""
    return any(map(inspect.iscoroutinefunction, inner(function)))


def yields(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a generator, of either kind, as far as can be told."""
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in inner(function))


def not_a_plain_call(function: object, takes: str) -> str:
    """Why `function` cannot be called with one argument and be over then; empty if it can, or if nobody can tell.

    Args:
        takes: what it is called with, for the text.
    """
    if not callable(function):
        return f"it is {type(function).__name__}, and cannot be called"
    if is_async(function):
        return "it is async, and nobody awaits it: write it with def"
    if yields(function):
        return "it contains `yield`, so that calling it runs nothing of it"
    return cannot_take(function, takes)


def cannot_take(function: Callable[..., Any], takes: str) -> str:
    """Why `function` cannot be called with one argument; empty if it can, or if nobody can tell.

    Args:
        takes: what it is called with, for the text.
    """
    try:
        inspect.signature(function, follow_wrapped=False).bind(object())
    except TypeError as error:
        return f"it is called with {takes} alone, and that does not fit: {error}"
    except ValueError:
        return ""  # a builtin that does not tell
    return ""


def not_begun(value: object) -> str:
    """What `value` is, if it stands for work that nobody has begun or will; empty if not. Coroutines are closed."""
    if isinstance(value, CoroutineType):
        value.close()
        return "a coroutine, which nobody awaits"
    if inspect.isgenerator(value) or isinstance(value, AsyncIterator):
        return "a generator, of which nothing has run"
    if isinstance(value, (map, filter)):
        return f"a {type(value).__name__} object, of which nothing has run"
    return ""


def not_over(value: object) -> str:
    """What `value` is, if it stands for work that nobody has begun, that may go on or fail unseen, or that only a call
    would begin; empty if not. Coroutines are closed.
    """
    if found := not_begun(value):
        return found
    if inspect.isawaitable(value):
        return "something to await that nobody awaits"
    if any(base.__module__ == "concurrent.futures._base" for base in type(value).__mro__):  # known, and not imported
        return "a future of work that may still go on, or fail"
    if inspect.isroutine(value) or isinstance(value, partial):
        return "a function, which nobody calls"
    return ""
