"""Around the handler: one-yield generators, and nothing per message but what they do themselves.

A middleware is a generator function that takes the `Message` and yields once: what stands before the yield runs
before the handler, what stands after runs after it, and an exception of the handler is raised at the yield. It may
raise another, or a signal, or let it end there (then the message is done). A plain generator serves App and AsyncApp,
an async one AsyncApp. It sees decoded messages only: what cannot be read is a dead letter before any middleware.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any, TypeAlias

from mqkit.callables import cannot_take, function_name, yields
from mqkit.errors import ConfigurationError
from mqkit.message import Message

Middleware: TypeAlias = (
    Callable[[Message[Any]], Generator[None, None, None]] | Callable[[Message[Any]], AsyncGenerator[None, None]]
)


class Around:
    """The middleware of one handler, outermost first.

    Args:
        plain: whether async generators are refused.

    Raises:
        ConfigurationError: one of them is no generator function, or takes something else than the message.
    """

    def __init__(self, middleware: Sequence[Middleware], *, plain: bool = False) -> None:
        self._plain: list[tuple[bool, Callable[[Message[Any]], Any]]] = []
        for each in middleware:
            if yields(each) and (wrong := cannot_take(each, "the message")):
                raise ConfigurationError(f"middleware {function_name(each)}: {wrong}")
            if isasyncgenfunction(each):
                if plain:
                    raise ConfigurationError(
                        f"middleware {function_name(each)} is async, and App has no event loop: write it with def, "
                        "or use AsyncApp"
                    )
                self._plain.append((True, asynccontextmanager(each)))
            elif isgeneratorfunction(each):
                self._plain.append((False, contextmanager(each)))
            else:
                name = getattr(each, "__qualname__", repr(each))
                raise ConfigurationError(f"middleware {name} is not a generator function: it needs one yield")

    def __bool__(self) -> bool:
        return bool(self._plain)

    async def enter(self, stack: AsyncExitStack, message: Message[Any]) -> None:
        """Run what stands before the yields; `stack` runs the rest when it is left."""
        for is_async, factory in self._plain:
            entered: AbstractContextManager[None] | AbstractAsyncContextManager[None] = factory(message)
            if is_async:
                await stack.enter_async_context(entered)  # type: ignore[arg-type] # told by is_async
            else:
                stack.enter_context(entered)  # type: ignore[arg-type] # told by is_async
