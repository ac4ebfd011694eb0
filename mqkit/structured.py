"""CloudEvents in structured mode: the whole event, attributes and data, as one JSON object in the body. Pure.

mqkit writes binary mode alone (envelope.py), and reads both: a content type of `application/cloudevents+json` decides.
The data stays the very text that was sent, so that no number in it is rounded.
"""

import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

from mqkit.bodies import media_type, without_mark
from mqkit.errors import DecodeError, EnvelopeError

FAMILY: Final = "application/cloudevents"
JSON_TYPE: Final = "application/json"
BLANK: Final = re.compile(r"[ \t\r\n]*")
READER: Final = json.JSONDecoder()
LONGEST_EXTENSION: Final = 1024
"""Characters of an attribute."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a structured event says."""

    attributes: dict[str, str]
    """All but the data, as text."""
    data: bytes | None
    """None if it has none."""
    content_type: str
    """Of the data."""


def is_structured(content_type: str | None) -> bool:
    """Whether a body of this content type holds attributes too: an event, or a batch of them."""
    return content_type is not None and len(content_type) >= len(FAMILY) and FAMILY in content_type[:64].lower()


def read_event(body: bytes, content_type: str) -> Event:
    """The event in `body`.

    Raises:
        DecodeError: the body is not JSON, or its data is not what it is said to be.
        EnvelopeError: a batch, a format other than JSON, or attributes that are no text.
    """
    form = content_type.strip().strip('"').partition(";")[0].strip().lower().removeprefix(FAMILY)
    if form.startswith("-batch"):
        raise EnvelopeError("a batch of CloudEvents is not read: send each event as a message of its own")
    if form not in ("+json", ""):
        raise EnvelopeError(f"CloudEvents in the format {form[:40]!r} are not read: send JSON, or binary mode")
    try:
        members, texts = _members(without_mark(body).decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the body is not a CloudEvent in JSON: {error}") from error
    attributes = {
        name: _text(name, value)
        for name, value in members.items()
        if name not in ("data", "data_base64") and value is not None
    }
    described = attributes.pop("datacontenttype", "") or JSON_TYPE
    return Event(attributes, _data(members, texts, described), described)


def _data(members: dict[str, Any], texts: dict[str, str], described: str) -> bytes | None:
    if members.get("data_base64") is not None:
        try:
            return b64decode(members["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise DecodeError(f"data_base64 of the CloudEvent is not base64: {error}") from error
    data = members.get("data")
    if isinstance(data, str) and media_type(described)[0] != JSON_TYPE:
        return data.encode("utf-8", "surrogatepass")
    return texts["data"].encode("utf-8", "surrogatepass") if data is not None else None


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise EnvelopeError(f"the attribute {name[:80]!r} of the CloudEvent is {type(value).__name__}, not text")
    text = str(value)
    if len(text) > LONGEST_EXTENSION or len(name) > LONGEST_EXTENSION:
        raise EnvelopeError(f"the attribute {name[:80]!r} of the CloudEvent has {len(text):,} characters")
    return text


def _members(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a JSON object holds, as values and as the text they were.

    Raises:
        ValueError: it is none.
    """
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    at = _after(text, _skip(text, 0), "{")
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise ValueError(f"a name was expected at character {at}")
            name, at = READER.raw_decode(text, at)
            begin = _after(text, _skip(text, at), ":")
            values[name], end = READER.raw_decode(text, begin)
            texts[name] = text[begin:end]
            at = _skip(text, end)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _after(text, at, ",")
    if _skip(text, at) != len(text):
        raise ValueError(f"there is more after the object, at character {at}")
    return values, texts


def _skip(text: str, at: int) -> int:
    found = BLANK.match(text, at)
    return at if found is None else found.end()


def _after(text: str, at: int, sign: str) -> int:
    """Behind `sign`, which must stand at `at`, and what is blank."""
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} was expected at character {at}")
    return _skip(text, at + 1)
