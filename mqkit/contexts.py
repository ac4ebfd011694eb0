"""Context variables: work runs in a context of its own, so that what it sets is not there for what comes next."""

from collections.abc import Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def inside(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """What `work` returns or raises; awaited where you like, all of its steps run in `context`.

    Costs a tenth of what a task does, and it stays in the task that awaits it.
    """
    run, send = context.run, work.send
    try:
        awaited = run(send, None)
        while True:
            try:
                answer = yield awaited
            except GeneratorExit:
                run(work.close)
                raise
            except BaseException as error:  # noqa: BLE001 - it is raised where the work awaits
                awaited = run(work.throw, error)
            else:
                awaited = run(send, answer)
    except StopIteration as end:
        result: T = end.value
        return result
