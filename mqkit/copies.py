"""The messages that must be safe before another is settled: what waits, what is dead, what a handler returned. Pure.

A copy that cannot be stored as it is takes another form, of which the last keeps every byte in the least room.
"""

from dataclasses import dataclass
from typing import Final

from mqkit.envelope import buried, postponed, retried
from mqkit.errors import MqkitError
from mqkit.handler import Form, Outcome
from mqkit.message import Outgoing
from mqkit.retry import failure
from mqkit.topology import left_over, step
from mqkit.verdict import Again, DeadLetter, Done, Failure, Postpone, Release
from mqkit.wrapping import Compression, lies_in_the_form, wrap

SHORT: Final = 100
"""Characters of an error's text in a slim copy."""
DEAD_FORMS: Final[tuple[Form, ...]] = ("full", "slim", "wrapped", "squeezed")
WAITING_FORMS: Final[tuple[Form, ...]] = ("full", "wrapped", "squeezed")
COMPRESSION: Final[dict[Form, Compression]] = {"wrapped": "zlib", "squeezed": "xz"}


@dataclass(frozen=True, slots=True)
class Copies:
    """Makes them."""

    prefix: str
    """Of attributes in headers, at this broker."""
    handler: str
    """Whose failure it is; stands in dead letters."""
    service: str
    exact_delay: bool = True
    """As in the backend's capabilities."""

    def of(self, outcome: Outcome, now: float) -> tuple[Outgoing, ...]:
        """The messages that must be safe before this one is settled."""
        verdict, delivery = outcome.verdict, outcome.delivery
        if isinstance(verdict, Done):
            return verdict.publish
        delay = 0.0
        if isinstance(verdict, Again):
            delay = verdict.delay
            wire = retried(
                delivery, self.prefix, outcome.id,
                attempts=outcome.attempt, failure=slim(verdict.failure, outcome.form), now=now,
                delay=delay, left=left_over(delay, exact=self.exact_delay),
                failed=outcome.failed,
            )  # fmt: skip
        elif isinstance(verdict, Postpone):
            assert outcome.envelope is not None
            delay = verdict.delay
            left = left_over(delay, exact=self.exact_delay)
            wire = postponed(delivery, self.prefix, outcome.envelope, left=left)
        elif isinstance(verdict, DeadLetter):
            wire = buried(
                delivery, self.prefix, outcome.id,
                reason=verdict.reason, attempts=outcome.attempt, failure=slim(verdict.failure, outcome.form), now=now,
                handler=self.handler, service=self.service, failed=outcome.failed,
            )  # fmt: skip
        else:
            return ()
        if outcome.form in COMPRESSION:
            wire = wrap(wire, COMPRESSION[outcome.form])
        dead = isinstance(verdict, DeadLetter)
        return (Outgoing(wire, delivery.topic, delivery.group, dead=dead, delay=delay),)


def slim(why: Failure, form: Form) -> Failure:
    """`why` as a copy of this form says it."""
    return why if form == "full" else Failure(why.error, why.text[:SHORT])


def needs_copy(outcome: Outcome) -> bool:
    """Whether a message must be safe before this one is settled."""
    verdict = outcome.verdict
    return bool(verdict.publish) if isinstance(verdict, Done) else not isinstance(verdict, Release)


def instead(outcome: Outcome, error: MqkitError) -> bool:
    """Give what could not be stored for `error` its next form; whether there is one that may be stored at once.

    A dead letter goes without its traceback, then wrapped (wrapping.py); what waits is wrapped, or else a dead letter;
    a result that nobody takes makes a dead letter of its message. Where no form is left, the first is next.
    """
    verdict = outcome.verdict
    if isinstance(verdict, Done):
        if getattr(error, "retryable", False):
            return False
        outcome.verdict = DeadLetter("result", failure(error))
        return True
    if not lies_in_the_form(error):
        return False
    forms = DEAD_FORMS if isinstance(verdict, DeadLetter) else WAITING_FORMS
    following = forms.index(outcome.form) + 1
    if following < len(forms):
        outcome.form = forms[following]
        return True
    outcome.form = "full"
    if isinstance(verdict, DeadLetter):
        return False
    outcome.verdict = DeadLetter("too-large", failure(error))
    return True


def what(outcome: Outcome) -> str:
    """What is stored for an outcome, in a word for people."""
    return {Again: "retry", Postpone: "delay", DeadLetter: "dead letter", Done: "result"}[type(outcome.verdict)]


def place(outcome: Outcome) -> tuple[str, object]:
    """Where its copies go, as far as what is full or missing there says nothing of other places."""
    verdict = outcome.verdict
    match verdict:
        case Done():
            return what(outcome), frozenset(outgoing.topic for outgoing in verdict.publish)
        case Again() | Postpone():
            return what(outcome), step(verdict.delay) if verdict.delay > 0 else 0.0
        case _:
            return what(outcome), None
