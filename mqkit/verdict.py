"""What an attempt came to. The handler's side decides it, the pump acts on it, and nobody else does either."""

from dataclasses import dataclass
from typing import TypeAlias

from mqkit.message import Outgoing


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed, as it is kept in headers."""

    error: str
    """The error's type: `module.Name`."""
    text: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """Settle it. First publish what the handler returned, if its subscription says where to."""

    publish: tuple[Outgoing, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Try it again after `delay` seconds; one more attempt is then spent."""

    delay: float
    failure: Failure
    counted: bool = True
    """False: it was not the message's fault, so no attempt is spent; it is repeated in place."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Its time has not come (a long delay goes in steps): send it on its way back, no attempt is spent."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Put it among the dead letters."""

    reason: str
    """One of: exhausted, rejected, envelope, undecodable, schema, too-large, not-retryable, worker-lost, result."""
    failure: Failure


@dataclass(frozen=True, slots=True)
class Release:
    """Give it back unattempted."""


Verdict: TypeAlias = Done | Again | Postpone | DeadLetter | Release
