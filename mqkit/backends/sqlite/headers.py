"""Headers as text and back, without loss: JSON, with a tag around what JSON has no word for.

Text alone, as mqkit writes it, is a JSON object. Anything else is a JSON list of pairs, in which every JSON object is
a tag: `{"bytes": "AAE="}`. So nothing that a client sends can be taken for a tag.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from mqkit.errors import EncodeError
from mqkit.message import NO_HEADERS, Headers, HeaderValue

_SMALL = 1 << 63
"""Integers from here on are written in hexadecimal: Python refuses to read very long decimal ones."""


def dump(headers: Headers) -> str | None:
    """Headers as text; None for no headers.

    Raises:
        EncodeError: a value of a type that headers cannot have.
    """
    if not headers:
        return None
    if all(type(value) is str for value in headers.values()):
        text = json.dumps(dict(headers))
        if "\\ud" not in text:
            return text
    try:
        return json.dumps([[_pack(name), _pack(value)] for name, value in headers.items()])
    except RecursionError as error:
        raise EncodeError("a header is nested too deeply") from error


def load(text: str | None) -> Headers:
    """What `dump` was given."""
    if text is None:
        return NO_HEADERS
    found = json.loads(text)
    return found if isinstance(found, dict) else {_unpack(name): _unpack(value) for name, value in found}


def _pack(value: HeaderValue) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -_SMALL < value < _SMALL else {"int": hex(value)}
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # lone surrogates: JSON would join two of them into one character
            return {"str": b64encode(value.encode("utf-8", "surrogatepass")).decode()}
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, Mapping):
        return {"map": [[_pack(name), _pack(item)] for name, item in value.items()]}
    if isinstance(value, Sequence):
        return [_pack(item) for item in value]
    raise EncodeError(f"a header cannot be of type {type(value).__name__}")


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    match tag:
        case "int":
            return int(inner, 16)
        case "str":
            return b64decode(inner).decode("utf-8", "surrogatepass")
        case "bytes":
            return b64decode(inner)
        case "datetime":
            return datetime.fromisoformat(inner)
        case "decimal":
            return Decimal(inner)
        case "map":
            return {_unpack(name): _unpack(item) for name, item in inner}
    raise ValueError(f"unknown tag {tag!r} in a stored header")
