"""Message <-> bytes and headers: CloudEvents 1.0 in binary mode, and mqkit's own bookkeeping. Pure.

CloudEvents attributes are headers with the prefix of the broker's protocol binding; all known prefixes are read. What
mqkit keeps about a message is in headers that begin with `mqkit-`; it is believed only on a delivery that came by the
group's own way back, so a publisher can forge nothing (F4). All else belongs to the user and survives untouched (F3).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from mqkit.errors import EncodeError, EnvelopeError
from mqkit.message import Delivery, Headers, HeaderValue, WireMessage, passing
from mqkit.verdict import Failure

PREFIXES = ("ce_", "cloudEvents_", "cloudEvents:", "ce-")
"""Kafka's binding; AMQP's, in both spellings it allows; HTTP's, for bridges that keep it."""
ATTRIBUTES = frozenset({"specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "subject"})
SPELLED = {prefix + attribute: attribute for prefix in PREFIXES for attribute in ATTRIBUTES}
"""Attributes by header, as they are mostly written; their case does not matter."""
OWN = "mqkit-"
LONGEST_NAME = 255
"""Bytes of an id or a header's name: AMQP's short string."""
LONGEST_ATTRIBUTE = 1024
"""Characters. An id or type longer than this is an attack, not a name."""
FURTHEST = 10 * 365 * 86_400.0
"""Seconds ahead that a message may be due."""

ATTEMPTS = "mqkit-attempts"
DUE = "mqkit-due"
"""Seconds since the epoch, by the clock of who wrote it; for people, and for versions that know no LEFT."""
LEFT = "mqkit-left"
"""Seconds that are left of a delay when the broker hands the message out. Clocks need not agree on them."""
FIRST_FAILED = "mqkit-first-failed"
LAST_FAILED = "mqkit-last-failed"
ERROR_TYPE = "mqkit-error-type"
ERROR = "mqkit-error"
TRACEBACK = "mqkit-traceback"
REASON = "mqkit-reason"
ORIGIN = "mqkit-origin"
TOPIC = "mqkit-topic"
GROUP = "mqkit-group"
HANDLER = "mqkit-handler"
SERVICE = "mqkit-service"


@passing
class Envelope:
    """What stands on the outside of a message."""

    id: str
    headers: Headers
    """The user's own."""
    type: str | None = None
    source: str | None = None
    time: datetime | None = None
    content_type: str | None = None
    attempts: int = 0
    """Spent before this delivery."""
    due: float | None = None
    """Seconds since the epoch before which it is not to be handled, by the clock of who said so."""
    left: float = 0.0
    """Seconds that it has still to wait."""


def timestamp(now: float) -> str:
    """`now` (seconds since the epoch) as RFC 3339 in UTC."""
    second = int(now)
    return f"{_until_second(second)}.{min(round((now - second) * 1e6), 999_999):06d}Z"


@lru_cache(2)
def _until_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def check_headers(headers: Mapping[str, str]) -> None:
    """Make sure that a publisher's headers are text and not in a space of names that is taken.

    Raises:
        EncodeError: one is; the text names it.
    """
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):  # type: ignore[redundant-expr] # callers may be untyped
            raise EncodeError(f"header {name!r}: names and values are text, not {type(value).__name__}")
        if not name or name.startswith(OWN) or name.startswith(PREFIXES) or name.lower() == "content-type":
            raise EncodeError(f"header {name!r}: this name is kept for the envelope; choose another")
        _check_name("the name of header", name)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"header {name!r}: not valid text: {error.reason}") from error


def _check_name(what: str, name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise EncodeError(f"{what} {name[:80]!r}: not valid text: {error.reason}") from error
    if not 0 < size <= LONGEST_NAME:
        raise EncodeError(f"{what} {name[:80]!r} has {size:,} bytes; it may have 1 to {LONGEST_NAME}")


def seal(
    body: bytes,
    *,
    prefix: str,
    id: str,
    source: str,
    type: str,
    now: float,
    content_type: str,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    due: float | None = None,
    left: float = 0.0,
) -> WireMessage:
    """A publisher's message as it goes to the broker.

    Args:
        now: seconds since the epoch.
        due: before which it is not to be handled.
        left: seconds of the delay that are left when the broker hands it out.

    Raises:
        EncodeError: the id, the key or a header could not be carried by every broker; the text names it.
    """
    _check_name("id", id)
    sealed: dict[str, HeaderValue] = {
        prefix + "specversion": "1.0",
        prefix + "id": id,
        prefix + "source": source,
        prefix + "type": type[:LONGEST_NAME],
        prefix + "time": timestamp(now),
    }
    if headers:
        check_headers(headers)
        sealed.update(headers)
    if due is not None:
        sealed[DUE] = repr(due)
        sealed[LEFT] = repr(left)
    return WireMessage(body, sealed, key_bytes(key), content_type, id)


def key_bytes(key: str | None) -> bytes | None:
    """A key as a broker carries it.

    Raises:
        EncodeError: it is not valid text.
    """
    try:
        return None if key is None else key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"key {key!r}: not valid text: {error.reason}") from error


def key_text(key: bytes | None) -> str | None:
    """A broker's key as a handler sees it; `key_bytes` turns it back into the same bytes."""
    return None if key is None else key.decode("utf-8", "surrogateescape")


def _attribute(name: str) -> str | None:
    """Which attribute a header is, if it is one."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            attribute = name[len(prefix) :].lower()
            return attribute if attribute in ATTRIBUTES else None
    return None


def _text(name: str, value: HeaderValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise EnvelopeError(f"header {name!r} is not UTF-8") from error
    if isinstance(value, bool) or not isinstance(value, (str, int, float, datetime)):
        raise EnvelopeError(f"header {name!r} is {type(value).__name__}, not text")
    try:
        text = value.isoformat() if isinstance(value, datetime) else str(value)
    except ValueError as error:  # an int with more digits than Python writes
        raise EnvelopeError(f"header {name!r} is too large a number") from error
    if len(text) > LONGEST_ATTRIBUTE:
        raise EnvelopeError(f"header {name!r} has {len(text):,} characters; at most {LONGEST_ATTRIBUTE:,} are read")
    return text


def _time(name: str, text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except ValueError as error:
        raise EnvelopeError(f"header {name!r} is {text[:80]!r}, not a time as in RFC 3339") from error


def _number(name: str, text: str, largest: float) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise EnvelopeError(f"header {name!r} is {text[:80]!r}, not a number") from error
    if not 0 <= number <= largest:
        raise EnvelopeError(f"header {name!r} is {text[:80]!r}, out of range")
    return number


def fallback_id(delivery: Delivery) -> str | None:
    """An id for a message whose publisher gave none: the broker's own, or where it lay, if that names only it."""
    return delivery.message.id or (delivery.origin if delivery.unique else None)


def unseal(delivery: Delivery, *, new_id: str, now: float) -> Envelope:
    """What stands on the outside of a delivery; `new_id` is used if nothing else identifies it.

    Raises:
        EnvelopeError: an attribute, or bookkeeping that is to be believed, cannot be read.
    """
    found: dict[str, str] = {}
    user: dict[str, HeaderValue] = {}
    own: dict[str, HeaderValue] = {}
    for name, value in delivery.message.headers.items():
        attribute = SPELLED.get(name) or _attribute(name)
        if attribute:
            text = value if type(value) is str and len(value) <= LONGEST_ATTRIBUTE else _text(name, value)
            if text:
                found[attribute] = text
        elif name.startswith(OWN):
            own[name] = value
        else:
            user[name] = value
    version = found.get("specversion", "1.0")
    if version != "1.0" and version.split(".")[0] != "1":
        raise EnvelopeError(f"CloudEvents version {version[:20]!r} is not known; 1.0 is")
    time = found.get("time")
    attempts = 0.0
    if delivery.returned and own.get(ATTEMPTS) is not None:
        attempts = _number(ATTEMPTS, _text(ATTEMPTS, own[ATTEMPTS]), 1e9)
    due = None
    if own and own.get(DUE) is not None:
        due = _number(DUE, _text(DUE, own[DUE]), now + FURTHEST)
    left = 0.0
    if own and own.get(LEFT) is not None:
        left = _number(LEFT, _text(LEFT, own[LEFT]), FURTHEST)
    elif due is not None:
        left = max(0.0, due - now)
    return Envelope(
        id=found.get("id") or fallback_id(delivery) or new_id,
        headers=user,
        type=found.get("type"),
        source=found.get("source"),
        time=_time("time", time) if time else None,
        content_type=delivery.message.content_type or found.get("datacontenttype"),
        attempts=int(attempts),
        due=due,
        left=left,
    )


def _copy(delivery: Delivery, prefix: str, id: str, own: Mapping[str, str]) -> WireMessage:
    """The same message with only this bookkeeping, and its id written down if it had none."""
    message = delivery.message
    headers: dict[str, HeaderValue] = {n: v for n, v in message.headers.items() if not n.startswith(OWN)}
    if not any(headers.get(p + "id") for p in PREFIXES):
        headers[prefix + "id"] = id
    headers.update(own)
    return WireMessage(message.body, headers, message.key, message.content_type, message.id, message.properties)


def _kept(delivery: Delivery, *names: str) -> dict[str, str]:
    """Bookkeeping that is to be believed and goes on."""
    if not delivery.returned:
        return {}
    headers = delivery.message.headers
    return {n: str(value) for n in names if isinstance(value := headers.get(n), str)}


def _failures(delivery: Delivery, failed: tuple[float, float]) -> dict[str, str]:
    """When the message failed first, in this delivery or before it, and last."""
    first, last = failed
    return {FIRST_FAILED: timestamp(first), **_kept(delivery, FIRST_FAILED), LAST_FAILED: timestamp(last)}


def postponed(delivery: Delivery, prefix: str, envelope: Envelope, *, left: float) -> WireMessage:
    """The copy of a message whose time has not come, and has not when it is `left` seconds away."""
    own = _kept(delivery, ATTEMPTS, FIRST_FAILED, LAST_FAILED, ERROR_TYPE, ERROR)
    if envelope.due is not None:
        own[DUE] = repr(envelope.due)
    own[LEFT] = repr(left)
    return _copy(delivery, prefix, envelope.id, own)


def retried(
    delivery: Delivery,
    prefix: str,
    id: str,
    *,
    attempts: int,
    failure: Failure,
    now: float,
    delay: float,
    left: float,
    failed: tuple[float, float] | None = None,
) -> WireMessage:
    """The copy that waits for the next attempt.

    Args:
        attempts: those spent by now.
        left: as in `seal`.
        failed: when this delivery failed first and last, in seconds since the epoch; `now` if not given.
    """
    own = _failures(delivery, failed or (now, now))
    own |= {ATTEMPTS: str(attempts), ERROR_TYPE: failure.error, ERROR: failure.text[:500]}
    if delay:
        own |= {DUE: repr(now + delay), LEFT: repr(left)}
    return _copy(delivery, prefix, id, own)


def buried(
    delivery: Delivery,
    prefix: str,
    id: str,
    *,
    reason: str,
    attempts: int,
    failure: Failure,
    now: float,
    handler: str,
    service: str,
    failed: tuple[float, float] | None = None,
) -> WireMessage:
    """The dead letter: original bytes and headers, and all that is known about why. `failed` as in retried."""
    own = _failures(delivery, failed or (now, now))
    own |= {
        REASON: reason,
        ATTEMPTS: str(attempts),
        ERROR_TYPE: failure.error,
        ERROR: failure.text,
        TRACEBACK: failure.traceback,
        ORIGIN: delivery.origin,
        TOPIC: delivery.topic,
        GROUP: delivery.group,
        HANDLER: handler,
        SERVICE: service,
    }
    return _copy(delivery, prefix, id, own)


def replayed(delivery: Delivery, prefix: str, id: str) -> WireMessage:
    """The copy of a dead letter that goes back to its group: all bookkeeping gone, attempts counted anew."""
    return _copy(delivery, prefix, id, {})


def bookkeeping(delivery: Delivery) -> dict[str, str]:
    """mqkit's own headers on a dead letter, without their prefix."""
    return {n[len(OWN) :]: str(v) for n, v in delivery.message.headers.items() if n.startswith(OWN)}
