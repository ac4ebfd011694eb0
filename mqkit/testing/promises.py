"""The contract as data: every promise with its number, what it says in short, and what a backend must give for it.

`@promise("D2")` marks a test as a proof of that promise. Nothing here knows a backend by name, and only the decorator
needs pytest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias, TypeVar

from mqkit.backend import Capabilities

Test = TypeVar("Test", bound=Callable[..., Any])
Column: TypeAlias = tuple[str, str]
"""Of the table of promises: a backend, and the colour of the apps on it."""

COLOURS: Final = {"App": frozenset[str](), "AsyncApp": frozenset({"cancel"})}
"""What both apps promise on every backend, each by its name; and what that colour can do beside."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise of the contract."""

    number: str
    text: str
    needs: frozenset[str] = frozenset()
    """Capabilities (of the backend) and abilities (of its harness, of the colour) without which no test of it runs."""
    covered: bool = True
    """Whether the suite has tests for it by now."""


def _promise(number: str, text: str, *needs: str, covered: bool = True) -> Promise:
    return Promise(number, text, frozenset(needs), covered)


ROOMS: Final = {
    "A": "Publishing",
    "B": "Consuming",
    "C": "Outcomes",
    "D": "Retries",
    "E": "Dead letters",
    "F": "Envelope",
    "G": "Time",
    "H": "Topology",
    "I": "Insight",
    "J": "Request and reply",
    "K": "Idempotency",
}
"""What the letters stand for."""

PROMISES: Final = (
    _promise("A1", "publish returns only when the broker has made the message safe"),
    _promise("A2", "a message that is refused, or that nothing would ever receive, raises"),
    _promise("A3", "an unknown outcome is sent again under the same id, and named at the time-out", covered=False),
    _promise("A4", "publish_many reports per message and keeps the order per key"),
    _promise("A5", "a payload that does not match its schema raises before anything is sent"),
    _promise("A6", "too large a message raises, naming both sizes, and is not tried again", "max_message_bytes"),
    _promise("A7", "while the broker blocks or is away, memory is bounded and publishes end in time", covered=False),
    _promise("A8", "one producer serves many tasks or threads at once"),
    _promise("B1", "what is published while a group exists is handled by it at least once"),
    _promise("B2", "every group gets every message; within a group one member has it at a time"),
    _promise("B3", "a killed worker loses nothing", "persistent", "shared"),
    _promise("B4", "concurrency and prefetch are bounds"),
    _promise("B5", "ordering by key: started in order, never overlapping, retries included", "ordering"),
    _promise("B6", "a handler may run longer than any of the broker's time-outs", covered=False),
    _promise("B7", "settling one message never settles another"),
    _promise("B8", "outages interrupt delivery and never end it", "interrupt"),
    _promise("B9", "SIGTERM: nothing new starts, what runs may end, the rest goes back; a second ends at once"),
    _promise("B10", "members come and go without loss; who lost its claim cannot settle", covered=False),
    _promise("B11", "after a clean stop nothing that was finished is delivered again"),
    _promise("C1", "a return settles as done, after the handler and never before"),
    _promise("C2", "an exception: the retry policy decides"),
    _promise("C3", "RetryLater: again after that time; counts as an attempt"),
    _promise("C4", "Reject: a dead letter at once"),
    _promise("C5", "Skip: settled as done, counted as skipped"),
    _promise("C6", "a handler over its time-out counts as failed"),
    _promise("C7", "an error of mqkit or of the broker is never blamed on the message"),
    _promise("C8", "handlers may publish; a returned result is confirmed before the message is settled"),
    _promise("D1", "attempts are counted across processes and restarts"),
    _promise("D2", "a retry is never early, and hardly late"),
    _promise("D3", "a waiting message blocks no other; with ordering by key its own key alone"),
    _promise("D4", "a waiting message survives every worker and the broker's restart", "persistent", "shared"),
    _promise("D5", "only the failing group sees the retry"),
    _promise("D6", "body, id, key and user headers are the same on every attempt"),
    _promise("D7", "the copy that waits is confirmed before the original is settled"),
    _promise("D8", "a million messages may wait without growing a worker", covered=False),
    _promise("E1", "what cannot succeed becomes a dead letter that tells why"),
    _promise("E2", "the dead letter is confirmed before the original is settled"),
    _promise("E3", "dead letters can be listed, filtered and shown without taking them out"),
    _promise("E4", "replay goes to the failing group only, confirmed before removal; limited, dry, interrupted"),
    _promise("E5", "a message that kills its worker becomes a dead letter", "persistent", "shared"),
    _promise("E6", "no limit of the broker discards what mqkit has not stored elsewhere", covered=False),
    _promise("F1", "CloudEvents in binary mode: plain clients can read it"),
    _promise("F2", "messages of strangers are handled; broken ones are dead letters and stall nothing"),
    _promise("F3", "unknown headers survive retries, dead-lettering and replay"),
    _promise("F4", "bookkeeping cannot be forged"),
    _promise("G1", "a delayed message is never early, and hardly late", "delay"),
    _promise("G2", "expired messages are not handled", covered=False),
    _promise("H1", "declaring is idempotent and safe from many processes at once"),
    _promise("H2", "what exists with other settings raises, and is left alone", covered=False),
    _promise("H3", "plan shows what apply would do; declare=False touches nothing", covered=False),
    _promise("I1", "inspect tells how a group stands; an empty one is empty"),
    _promise("I2", "every verdict and change of state is an event, and a line in the log"),
    _promise("I3", "health tells a stuck worker from an idle one", covered=False),
    _promise("J1", "request returns the answer or raises", covered=False),
    _promise("J2", "late replies are dropped and counted", covered=False),
    _promise("K1", "ids are stable across retries, replays and repetitions", covered=False),
    _promise("K2", "dedupe settles what was finished without calling the handler", covered=False),
)  # fmt: skip

BY_NUMBER: Final = {promise.number: promise for promise in PROMISES}
MARK: Final = "promise"
"""The name of pytest's mark; its arguments are numbers, its `needs` a frozenset."""


def kept(promise: Promise, capabilities: Capabilities) -> bool:
    """Whether a backend with these capabilities declares to keep it. What else a test of it needs, such as a limit of
    size or a broker that can be stopped, is that test's affair.
    """
    return not capabilities.lacking(
        promise.needs & {field.name for field in fields(Capabilities) if field.type is bool}
    )


def markdown(columns: Sequence[Column], cell: Callable[[Promise, Column], str]) -> str:
    """The covered promises as a table in Markdown, by room; `cell` says what stands in a column."""
    heads = " | ".join(f"{backend} {colour}" for backend, colour in columns)
    lines = [f"| | Promise | {heads} |", f"| --- | --- | {' | '.join('---' for _ in columns)} |"]
    room = ""
    for promise in PROMISES:
        if not promise.covered:
            continue
        if promise.number[0] != room:
            room = promise.number[0]
            lines.append(f"| **{room}** | **{ROOMS[room]}** | {' | '.join('' for _ in columns)} |")
        cells = " | ".join(cell(promise, column) for column in columns)
        lines.append(f"| {promise.number} | {promise.text} | {cells} |")
    return "\n".join(lines)


def promise(*numbers: str, needs: str = "") -> Callable[[Test], Test]:
    """Mark a test as a proof of these promises.

    Args:
        numbers: of the contract: "D2".
        needs: names of further capabilities or abilities that this test alone needs, separated by spaces.

    Raises:
        KeyError: there is no such promise.
    """
    import pytest

    wanted = frozenset(needs.split()).union(*(BY_NUMBER[number].needs for number in numbers))
    mark = getattr(pytest.mark, MARK)(*numbers, needs=wanted)

    def apply(test: Test) -> Test:
        marked: Test = mark(test)
        return marked

    return apply
