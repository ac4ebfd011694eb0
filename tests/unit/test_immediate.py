import asyncio

import pytest

from mqkit.immediate import run_now


async def double(number: int) -> int:
    return 2 * number


async def quadruple(number: int) -> int:
    return await double(await double(number))


async def refuse() -> None:
    await double(1)
    raise ValueError("no")


def test_what_never_suspends_is_run_to_its_end() -> None:
    assert run_now(quadruple(2)) == 8


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="no"):
        run_now(refuse())


def test_what_suspends_is_an_error_that_names_it() -> None:
    cleaned: list[bool] = []

    async def sleepy() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            cleaned.append(True)

    with pytest.raises(RuntimeError, match="sleepy awaited what needs an event loop"):
        run_now(sleepy())
    assert cleaned == [True]
