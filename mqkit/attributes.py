"""Which headers are attributes of a CloudEvent, what they say, and what a message is called. Pure.

All known prefixes are read, whatever broker a header came by. What stands on a message as a whole is in `envelope.py`.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha1
from typing import TypeGuard
from uuid import UUID

from mqkit.errors import EnvelopeError
from mqkit.message import Delivery, Headers, HeaderValue, WireMessage

PREFIXES = ("ce_", "cloudEvents_", "cloudEvents:", "ce-")
"""Kafka's binding; AMQP's, in both spellings it allows; HTTP's, for bridges that keep it."""
ATTRIBUTES = frozenset({"specversion", "id", "source", "type", "time", "datacontenttype"})
"""Those that mqkit reads; others (subject, dataschema, extensions) are headers like the user's."""
SPELLED = {prefix + attribute: attribute for prefix in PREFIXES for attribute in ATTRIBUTES}
"""Attributes by header, as they are mostly written; their case does not matter."""
OWN = "mqkit-"
LONGEST_ATTRIBUTE = 1024
"""Characters. An id or type longer than this is an attack, not a name."""
UNNAMED = UUID("6f0c5f0e-5b0e-5d51-9c0a-1f2f3b6f7d11")
"""The namespace of ids of messages that have none."""
LEAP = re.compile(r"(T\d\d:\d\d:)60")


def attribute_of(name: str) -> str | None:
    """Which attribute a header is, if it is one."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            attribute = name[len(prefix) :].lower()
            return attribute if attribute in ATTRIBUTES else None
    return None


def attribute_text(name: str, value: HeaderValue) -> str:
    """The value of a header that is to be text. Raises EnvelopeError, naming it."""
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


def texts(headers: Headers) -> dict[str, str]:
    """The attributes among `headers`, as text; not those that are empty. Raises EnvelopeError, naming the header."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        attribute = SPELLED.get(name) or attribute_of(name)
        if attribute and (text := attribute_text(name, value)):
            found[attribute] = text
    return found


def are_plain(given: dict[str, HeaderValue]) -> TypeGuard[dict[str, str]]:
    """Whether these attributes are what `texts` would make of them: mostly so, and quickly seen.

    None is empty, and all of them together are no longer than one may be.
    """
    try:
        return all(given.values()) and len("".join(given.values())) <= LONGEST_ATTRIBUTE  # type: ignore[arg-type]
    except TypeError:  # some are not text
        return False


def moment(name: str, text: str) -> datetime:
    """The time that a header tells, by RFC 3339. Raises EnvelopeError, naming it."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(LEAP.sub(r"\g<1>59", text.upper()))  # RFC 3339 allows t, z, leap seconds
        except ValueError as error:
            raise EnvelopeError(f"header {name!r} is {text[:80]!r}, not a time as in RFC 3339") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def number(name: str, text: str, largest: float) -> float:
    """The number from 0 to `largest` in a header. Raises EnvelopeError, naming it."""
    try:
        found = float(text)
    except ValueError as error:
        raise EnvelopeError(f"header {name!r} is {text[:80]!r}, not a number") from error
    if not 0 <= found <= largest:
        raise EnvelopeError(f"header {name!r} is {text[:80]!r}, out of range")
    return found


def identity(delivery: Delivery) -> str:
    """The id of a message, the same at each delivery, in every group and process, also if nobody gave it one.

    The publisher's, or else the broker's, or else where it lay, if that names only this message. Where a broker has no
    such place (a queue), it is made of all that the message is: two that are alike in every byte have the same.
    """
    message = delivery.message
    if message.headers:
        for prefix in PREFIXES:
            given = message.headers.get(prefix + "id")
            if given is None:
                continue
            with suppress(EnvelopeError):
                if text := attribute_text(prefix + "id", given):
                    return text
    return message.id or (delivery.origin if delivery.unique and delivery.origin else _likeness(message))


def _likeness(message: WireMessage) -> str:
    """A UUID of version 5 of all that a message is, without what brokers and mqkit wrote on it."""
    headers = sorted((name, value) for name, value in message.headers.items() if not name.startswith(OWN))
    properties = sorted((name, value) for name, value in message.properties.items() if not name.startswith("x-"))
    digest = sha1(UNNAMED.bytes, usedforsecurity=False)
    for part in (message.key, message.content_type, headers, properties, len(message.body)):
        try:
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):  # a number with more digits than Python writes, or nested too deeply
            digest.update(b"?")
    digest.update(message.body)
    return str(UUID(bytes=digest.digest()[:16], version=5))
