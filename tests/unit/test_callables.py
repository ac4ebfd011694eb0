"""What would only seem to run: told of every function that a user gives, before it is used, or by what it returned."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from typing import Any

import pytest

from mqkit import App, AsyncApp, ConfigurationError, EncodeError, Retry, Topic
from mqkit.callables import cannot_take, is_async, not_a_plain_call, not_begun, not_over, yields
from mqkit.listeners import Listeners
from mqkit.middleware import Around
from mqkit.signature import unusable_result


async def coroutine(given: Any) -> None: ...


def generator(given: Any) -> Generator[Any]:
    yield given


async def async_generator(given: Any) -> AsyncGenerator[Any]:
    yield given


def plain(given: Any) -> Any:
    return given


class Awaited:
    async def __call__(self, given: Any) -> None: ...


class Iterated:
    def __call__(self, given: Any) -> Generator[Any]:
        yield given

    def between(self, other: Any, given: Any) -> Generator[Any]:
        yield given

    bound = functools.partialmethod(between, 1)


ASYNC = (coroutine, Awaited(), functools.partial(coroutine), functools.partial(Awaited()), Awaited().__call__)
YIELDS = (
    generator,
    async_generator,
    Iterated(),
    Iterated().bound,
    functools.partial(Iterated()),
    functools.partial(async_generator),
)
UNFIT = (lambda: None, lambda given, more: None, lambda *, given: None, Iterated.between)
NEVER = (*ASYNC, *YIELDS, *UNFIT)
"""What no caller with one argument and without an await gets anything of."""


@pytest.mark.parametrize("function", ASYNC)
def test_what_is_async_is_known_in_any_wrapping(function: Any) -> None:
    assert is_async(function)
    assert not yields(function)
    with pytest.raises(ConfigurationError, match="is async, and App runs plain functions"):
        App("memory://").subscribe(Topic("t"), group="g")(function)
    AsyncApp("memory://").subscribe(Topic("t"), group="g")(function)


@pytest.mark.parametrize("function", YIELDS)
def test_what_yields_is_known_in_any_wrapping(function: Any) -> None:
    assert yields(function)
    assert not is_async(function)


@pytest.mark.parametrize("function", [plain, functools.partial(plain), functools.lru_cache(plain), str, print, min])
def test_what_can_be_called_is_let_through(function: Any) -> None:
    assert not_a_plain_call(function, "it") == ""
    assert not_a_plain_call("text", "it") == "it is str, and cannot be called"


def test_what_a_wrapper_takes_counts_and_not_what_it_wraps() -> None:
    @functools.wraps(lambda given, connection: None)
    def wrapper(given: Any) -> None: ...

    assert cannot_take(wrapper, "it") == ""


@pytest.mark.parametrize("function", NEVER)
def test_listeners_keys_and_policies_are_plain_functions_of_one_thing(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^listener .*: it "):
        Listeners([function])
    with pytest.raises(ConfigurationError, match=r"^the key of topic 'orders' cannot be had by .*: it "):
        Topic("orders", key=function)
    with pytest.raises(ValueError, match=r"^on is .*: it "):
        Retry(on=function)


def test_middleware_takes_the_message() -> None:
    def of_nothing() -> Generator[None]:
        yield

    async def of_two(message: Any, more: Any) -> AsyncGenerator[None]:
        yield

    for each in (of_nothing, of_two, Iterated.between):
        with pytest.raises(ConfigurationError, match=r"it is called with the message alone, and that does not fit"):
            Around([each])  # type: ignore[list-item] # of callers without a type checker
    assert Around([Iterated().bound])


UNDONE: tuple[tuple[Callable[[], object], str], ...] = (
    (lambda: coroutine(1), "a coroutine, which nobody awaits"),
    (lambda: generator(1), "a generator, of which nothing has run"),
    (lambda: async_generator(1), "a generator, of which nothing has run"),
    (lambda: map(print, [1]), "a map object, of which nothing has run"),
    (lambda: filter(print, [1]), "a filter object, of which nothing has run"),
    (Future, "a future of work that may still go on, or fail"),
    (lambda: plain, "a function, which nobody calls"),
    (lambda: functools.partial(plain, 1), "a function, which nobody calls"),
    (lambda: [].append, "a function, which nobody calls"),
)


@pytest.mark.parametrize(("result", "said"), UNDONE)
def test_a_handler_that_returns_work_has_not_done_it(result: Callable[[], object], said: str) -> None:
    assert not_over(result()) == said
    for returned in (result(), [result()], (1, result())):
        assert unusable_result(returned).startswith(said)


@pytest.mark.parametrize("value", [None, 1, "text", [1], iter(()), object(), {"a": plain}])
def test_all_else_is_over(value: object) -> None:
    assert not_over(value) == not_begun(value) == unusable_result(value) == ""


def test_what_goes_on_by_itself_has_begun() -> None:
    async def main() -> tuple[str, str]:
        task = asyncio.create_task(coroutine(1))
        await task
        return not_begun(task), not_over(task)

    assert asyncio.run(main()) == ("", "something to await that nobody awaits")
    assert not_begun(Future()) == ""


def test_a_policy_that_answers_with_what_must_be_awaited_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    assert Retry(on=lambda error: coroutine(error)).covers(ValueError())  # type: ignore[arg-type, return-value] # noqa: PLW0108
    assert "answers yes or no, and not a coroutine" in caplog.text


class Named:
    name = "x"

    def called(self) -> str:
        return self.name


@pytest.mark.parametrize("key", [lambda p: coroutine(p), lambda p: generator(p), "called", plain])  # noqa: PLW0108
def test_a_key_that_would_differ_between_equal_payloads_is_refused(key: Any) -> None:
    with pytest.raises(EncodeError, match="no key for Topic"):
        Topic("orders", key=key).key_of(Named())


def test_a_set_is_no_key() -> None:
    for found in ({"a", "b"}, frozenset("ab")):
        with pytest.raises(EncodeError, match="a set has no order"):
            Topic("orders", key=lambda _: found).key_of(1)  # type: ignore[arg-type, return-value]
