"""The messages that must be safe before another is settled: what waits, what is dead, what a handler returned. Pure."""

from dataclasses import dataclass

from mqkit.envelope import buried, postponed, retried
from mqkit.errors import MessageTooLarge, MqkitError
from mqkit.handler import Outcome
from mqkit.message import Outgoing
from mqkit.retry import failure
from mqkit.verdict import Again, DeadLetter, Done, Failure, Postpone, Release


@dataclass(frozen=True, slots=True)
class Copies:
    """Makes them."""

    prefix: str
    """Of attributes in headers, at this broker."""
    handler: str
    """Whose failure it is; stands in dead letters."""
    service: str

    def of(self, outcome: Outcome, now: float) -> tuple[Outgoing, ...]:
        """The messages that must be safe before this one is settled."""
        verdict, delivery = outcome.verdict, outcome.delivery
        if isinstance(verdict, Done):
            return verdict.publish
        if isinstance(verdict, Again):
            wire = retried(
                delivery, self.prefix, outcome.id,
                attempts=outcome.attempt, failure=verdict.failure, now=now, delay=verdict.delay,
            )  # fmt: skip
            return (Outgoing(wire, delivery.topic, delivery.group, delay=verdict.delay),)
        if isinstance(verdict, Postpone):
            assert outcome.envelope is not None
            wire = postponed(delivery, self.prefix, outcome.envelope)
            return (Outgoing(wire, delivery.topic, delivery.group, delay=verdict.delay),)
        if isinstance(verdict, DeadLetter):
            wire = buried(
                delivery, self.prefix, outcome.id,
                reason=verdict.reason, attempts=outcome.attempt, failure=verdict.failure, now=now,
                handler=self.handler, service=self.service,
            )  # fmt: skip
            return (Outgoing(wire, delivery.topic, delivery.group, dead=True),)
        return ()


def needs_copy(outcome: Outcome) -> bool:
    """Whether a message must be safe before this one is settled."""
    verdict = outcome.verdict
    return bool(verdict.publish) if isinstance(verdict, Done) else not isinstance(verdict, Release)


def instead(outcome: Outcome, error: MqkitError) -> None:
    """What cannot be stored as it is: a dead letter goes without its traceback, all else becomes a dead letter."""
    verdict = outcome.verdict
    if isinstance(verdict, DeadLetter) and isinstance(error, MessageTooLarge):
        slim = Failure(verdict.failure.error, verdict.failure.text[:100])
        outcome.verdict = DeadLetter(verdict.reason, slim)
    elif isinstance(verdict, (Again, Postpone)) and isinstance(error, MessageTooLarge):
        outcome.verdict = DeadLetter("too-large", failure(error))
    elif isinstance(verdict, Done) and not getattr(error, "retryable", False):
        outcome.verdict = DeadLetter("result", failure(error))


def what(outcome: Outcome) -> str:
    """What is stored for an outcome, in a word for people."""
    return {Again: "retry", Postpone: "delay", DeadLetter: "dead letter", Done: "result"}[type(outcome.verdict)]
