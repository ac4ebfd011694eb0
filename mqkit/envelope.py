"""Message <-> bytes and headers: CloudEvents 1.0 in binary mode, and mqkit's own bookkeeping. Pure.

CloudEvents attributes are headers with the prefix of the broker's protocol binding; all known prefixes are read. What
mqkit keeps about a message is in headers that begin with `mqkit-`; it is believed only on a delivery that came by the
group's own way back, so a publisher can forge nothing (F4). All else belongs to the user and survives untouched (F3).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from mqkit.attributes import (
    ATTRIBUTES,
    OWN,
    PREFIXES,
    SPELLED,
    are_plain,
    attribute_of,
    attribute_text,
    identity,
    moment,
    number,
    texts,
)
from mqkit.bodies import RAW, unpacked
from mqkit.errors import EncodeError, EnvelopeError, MessageTooLarge
from mqkit.message import NO_BODY, Delivery, Headers, HeaderValue, WireMessage, passing
from mqkit.structured import JSON_TYPE, Event, is_structured, read_event
from mqkit.verdict import Failure

LONGEST_NAME = 255
"""Bytes of an id or a header's name: AMQP's short string."""
FURTHEST = 10 * 365 * 86_400.0
"""Seconds ahead that a message may be due."""

BROKERS = frozenset({"CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count"})
BROKERS_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-rabbitmq-")
"""Names of headers that RabbitMQ acts upon or overwrites: nothing of a publisher's would arrive by them."""
ENCODINGS = ("content-encoding", "Content-Encoding")
"""Headers, where a broker has no place of its own for it."""
KOMBU = "compression"
"""kombu's header for it, with a media type as its value."""
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
    encoding: str | None = None
    """How the body is packed (`gzip`), if the publisher said so."""
    body: bytes | None = None
    """The payload's bytes; None if there is no payload: a record that is null, an event without data."""
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
    if not isinstance(headers, Mapping):
        raise EncodeError(f"headers are a mapping of names to text, not {type(headers).__name__}")
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):  # type: ignore[redundant-expr] # callers may be untyped
            odd = type(value if isinstance(name, str) else name).__name__
            raise EncodeError(f"header {name!r}: names and values are text, not {odd}; write str(...)")
        if not name or name.startswith((OWN, *PREFIXES)) or name.lower() == "content-type":
            raise EncodeError(f"header {name!r}: this name is kept for the envelope; choose another")
        if name in BROKERS or name.startswith(BROKERS_PREFIXES):
            raise EncodeError(f"header {name!r}: RabbitMQ keeps this name for itself; choose another")
        _check_name("the name of header", name)
        if "\0" in name:
            raise EncodeError(f"header {name!r}: Kafka's client would end the name at the NUL; leave it out")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"header {name!r}: not valid text: {error.reason}") from error


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str):
        raise EncodeError(f"{what} is text, not {type(name).__name__}: write str(...)")
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
    if not (isinstance(id, str) and id.isascii() and 0 < len(id) <= LONGEST_NAME):  # type: ignore[redundant-expr] # callers may be untyped
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
        if content_type != RAW and _encoding({}, headers) is not None:
            packed = next(name for name in (KOMBU, *ENCODINGS) if name in headers)
            raise EncodeError(
                f"header {packed!r}: this body is not packed; only topics of bytes may say that theirs is"
            )
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
    if not (key is None or isinstance(key, str)):
        hint = "decode it" if isinstance(key, bytes) else "write str(...)"
        raise EncodeError(f"key is text, not {type(key).__name__}: {hint}")
    try:
        return None if key is None else key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"key {key!r}: not valid text: {error.reason}") from error


def key_text(key: bytes | None) -> str | None:
    """A broker's key as a handler sees it; `key_bytes` turns it back into the same bytes."""
    return None if key is None else key.decode("utf-8", "surrogateescape")


def unseal(delivery: Delivery, *, now: float, largest: int | None = None) -> Envelope:
    """What stands on the outside of a delivery; of a CloudEvent in structured mode, what stands in its body.

    Args:
        now: seconds since the epoch.
        largest: bytes that a body may have which must be read for that.

    Raises:
        EnvelopeError: an attribute, or bookkeeping that is to be believed, cannot be read.
        DecodeError: the body of a structured event is none.
        MessageTooLarge: it is larger than `largest`.
    """
    message = delivery.message
    properties = message.properties
    given: dict[str, HeaderValue] = {}
    user: dict[str, HeaderValue] = {}
    own: dict[str, HeaderValue] = {}
    for name, value in message.headers.items():
        if name in SPELLED:
            given[SPELLED[name]] = value
        elif name.startswith(OWN):
            own[name] = value
        elif name.startswith(PREFIXES) and (attribute := attribute_of(name)):
            given[attribute] = value
        else:
            user[name] = value
    found = given if are_plain(given) else texts(message.headers)
    content_type = message.content_type or found.get("datacontenttype")
    encoding = _encoding(properties, user) if properties or user else None
    body = None if properties and properties.get(NO_BODY) else message.body
    if content_type != JSON_TYPE and is_structured(content_type):
        event = _structured(message, content_type or "", encoding, largest)
        for name, text in event.attributes.items():
            if name in ATTRIBUTES:
                found[name] = text
            else:
                user.setdefault(PREFIXES[0] + name, text)
        content_type, encoding, body = event.content_type, None, event.data
    version = found.get("specversion", "1.0")
    if version != "1.0" and version.split(".")[0] != "1":
        raise EnvelopeError(f"CloudEvents version {version[:20]!r} is not known; 1.0 is")
    time = found.get("time")
    attempts, due, left = _believed(own, returned=delivery.returned, now=now) if own else (0, None, 0.0)
    return Envelope(
        found.get("id") or identity(delivery),
        user,
        found.get("type"),
        found.get("source"),
        moment("time", time) if time else None,
        content_type, encoding, body, attempts, due, left,
    )  # fmt: skip


def _believed(own: Headers, *, returned: bool, now: float) -> tuple[int, float | None, float]:
    """Attempts, when it is due, and the seconds that are left, of what mqkit's own headers say and is to be believed.

    Raises:
        EnvelopeError: one of them cannot be read.
    """
    attempts, due, left = 0.0, None, 0.0
    if returned and own.get(ATTEMPTS) is not None:
        attempts = number(ATTEMPTS, attribute_text(ATTEMPTS, own[ATTEMPTS]), 1e9)
    if own.get(DUE) is not None:
        due = number(DUE, attribute_text(DUE, own[DUE]), now + FURTHEST)
    if own.get(LEFT) is not None:
        left = number(LEFT, attribute_text(LEFT, own[LEFT]), FURTHEST)
    elif due is not None:
        left = max(0.0, due - now)
    return int(attempts), due, left


def _encoding(properties: Headers, headers: Mapping[str, HeaderValue]) -> str | None:
    """AMQP's property, or the header that stands for it elsewhere."""
    if headers and str(headers.get(KOMBU, "")).startswith("application/"):
        return str(headers[KOMBU])  # beside a content_encoding that tells the charset
    found = properties.get("content_encoding") if properties else None
    if found is None and headers:
        found = next((headers[name] for name in ENCODINGS if name in headers), None)
    return found if isinstance(found, str) else None


def _structured(message: WireMessage, content_type: str, encoding: str | None, largest: int | None) -> Event:
    body = message.body
    if largest is not None and len(body) > largest:
        raise MessageTooLarge(len(body), largest, "this app (max_body_bytes)")
    return read_event(unpacked(body, encoding, largest) if encoding else body, content_type)


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
