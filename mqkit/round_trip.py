"""Whether a payload reads back as it was given: what is written is compared with what a receiver would make of it.

`difference` finds what was lost or changed. What a schema loses, whatever the payload is, is told by `schemas.py`.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import Enum
from math import isfinite, isnan
from typing import Any, Final, TypeAlias, cast

from pydantic import BaseModel, SecretBytes, SecretStr

from mqkit.errors import FieldError
from mqkit.schemas import loose_fields

Path: TypeAlias = tuple[str | int, ...]

INPUT: Final = re.compile(r"input_value=.*?, (?=input_type=\w+\])", re.DOTALL)
"""Where pydantic shows a value."""
ATOMS: Final = frozenset((str, int, bool, bytes, type(None)))


def difference(given: object, read: object, body: bytes, *, loose: bool) -> FieldError | None:
    """Where `read`, which a receiver makes of `body`, is not what was `given`; None if it is.

    Args:
        loose: the schema takes anything, so a date may come back as text; nothing may be left out all the same.
    """
    return _Comparison(body).compare(given, read, (), loose)


def same_json(given: object, read: object) -> bool:
    """Whether `given` is nothing but JSON and equals `read`: the quick answer for most of what has no schema."""
    return type(given) in (dict, list, str, int, float, bool, type(None)) and _equal(given, read)


def _equal(given: object, read: object) -> bool:
    try:
        return bool(given == read)
    except Exception:  # noqa: BLE001 - arrays compare to arrays, and a user's __eq__ may do anything
        return False


def _same_moment(given: datetime, read: datetime) -> bool:
    """Whether two times with offsets are the same: Python says no in the hour that a zone's clocks repeat."""
    return None not in (given.utcoffset(), read.utcoffset()) and given.astimezone(UTC) == read.astimezone(UTC)


def _is_record(value: object) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _names(value: object) -> list[str]:
    if isinstance(value, BaseModel):
        return list(type(value).model_fields)
    return [field.name for field in dataclasses.fields(cast("Any", value))]


def _written_as(value: object, name: str) -> str:
    if isinstance(value, BaseModel):
        return type(value).model_fields[name].serialization_alias or name
    return name


def _left_out_on_purpose(value: object, name: str) -> bool:
    """A field that is never written, and that nobody set."""
    if not isinstance(value, BaseModel):
        return False
    return bool(type(value).model_fields[name].exclude) and name not in value.model_fields_set


class _Comparison:
    """One payload against what it reads back as."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def compare(self, given: object, read: object, path: Path, loose: bool) -> FieldError | None:  # noqa: FBT001
        """What differs, at the first place."""
        kind = type(given)
        if kind is type(read):
            if kind in ATOMS:
                return None if given == read else self._changed(given, read, path)
            if _is_record(given):
                return self._records(given, read, path)
        elif _is_record(given):
            return (
                self._as_json(given, read, path)
                if loose and isinstance(read, Mapping)
                else self._kinds(given, read, path)
            )
        return self._values(given, read, path, loose)

    def _values(self, given: object, read: object, path: Path, loose: bool) -> FieldError | None:  # noqa: FBT001
        """What is not made of fields."""
        if isinstance(given, Mapping) and isinstance(read, Mapping):
            return self._mappings(given, read, path, loose)
        if _listed(given) and _listed(read):
            return self._lists(cast("Sequence[object]", given), cast("Sequence[object]", read), path, loose)
        if isinstance(given, float) and isinstance(read, float) and isnan(given) and isnan(read):
            return None
        if _equal(given, read):
            return None
        if isinstance(given, datetime) and isinstance(read, datetime) and _same_moment(given, read):
            return None
        if isinstance(given, (SecretStr, SecretBytes)):
            return FieldError(_text(path), "is a secret, and written as asterisks: give it a field_serializer")
        if isinstance(given, (AbstractSet, Iterator)) or type(given).__name__ == "ValidatorIterator":
            return self._unordered(given, read, path, loose)
        if type(given) is type(read):
            return self._objects(given, read, path)
        if loose:
            return self._as_json(given, read, path)
        return self._changed(given, read, path)

    def _records(self, given: object, read: object, path: Path) -> FieldError | None:
        loose = loose_fields(cast("Hashable", type(given)))
        for name in _names(given):
            if not hasattr(given, name):
                continue
            if not hasattr(read, name):
                return FieldError(_text((*path, name)), "does not come back")
            here = (*path, _written_as(given, name))
            wrong = self.compare(getattr(given, name), getattr(read, name), here, name in loose)
            if wrong is not None and not _left_out_on_purpose(given, name):
                return wrong
        more = getattr(given, "__pydantic_extra__", None) or {}
        came = getattr(read, "__pydantic_extra__", None) or {}
        for name, value in more.items():
            if name not in came:
                return FieldError(_text((*path, name)), "does not come back")
            if wrong := self.compare(value, came[name], (*path, name), True):  # noqa: FBT003
                return wrong
        return None

    def _kinds(self, given: object, read: object, path: Path) -> FieldError | None:
        """Records of two classes: the same only if the one adds nothing to the other, or the body has it all."""
        name, other = type(given).__name__, type(read).__name__
        if isinstance(given, type(read)) and _is_record(read):
            lost = [field for field in _names(given) if field not in _names(read)]
            written = self._at(path)
            if lost and not (isinstance(written, dict) and all(_written_as(given, field) in written for field in lost)):
                return FieldError(
                    _text(path),
                    f"is {name}, and only written as {other}, without {', '.join(lost)}: "
                    f"use SerializeAsAny[{other}] or a union of the classes with a discriminator as the schema",
                )
            return self._shared(given, read, path)
        return FieldError(
            _text(path), f"is {name}, and comes back as {other}: use a union with a discriminator as the schema"
        )

    def _shared(self, given: object, read: object, path: Path) -> FieldError | None:
        for name in _names(read):
            wrong = self.compare(getattr(given, name, None), getattr(read, name, None), (*path, name), False)  # noqa: FBT003
            if wrong is not None and not _left_out_on_purpose(given, name):
                return wrong
        return None

    def _mappings(
        self,
        given: Mapping[Any, object],
        read: Mapping[Any, object],
        path: Path,
        loose: bool,  # noqa: FBT001
    ) -> FieldError | None:
        if len(given) != len(read):
            return FieldError(_text(path), f"has {len(given)} entries, of which {len(read)} come back")
        for key, value in given.items():
            at = str(key.value if isinstance(key, Enum) else key)
            if key not in read and not (loose and not isinstance(key, str)):
                return FieldError(_text((*path, at)), "does not come back")
            if key in read and (wrong := self.compare(value, read[key], (*path, at), loose)):
                return wrong
        if loose and any(key not in read for key in given):  # keys that JSON makes text of, in their order
            return self._lists(list(given.values()), list(read.values()), path, loose)
        return None

    def _lists(self, given: Sequence[object], read: Sequence[object], path: Path, loose: bool) -> FieldError | None:  # noqa: FBT001
        if len(given) != len(read):
            return FieldError(_text(path), f"has {len(given)} items, of which {len(read)} come back")
        for i, (one, other) in enumerate(zip(given, read, strict=True)):
            if wrong := self.compare(one, other, (*path, i), loose):
                return wrong
        return None

    def _unordered(self, given: object, read: object, path: Path, loose: bool) -> FieldError | None:  # noqa: FBT001
        if not isinstance(given, AbstractSet):
            return None  # used up by writing it: nothing is left to compare
        if loose and _listed(read):
            return self._lists(list(given), cast("Sequence[object]", read), path, loose)
        return self._changed(given, read, path)

    def _objects(self, given: object, read: object, path: Path) -> FieldError | None:
        """Values of one class that are not equal; where equality is identity, what is in them counts."""
        if type(given).__eq__ is not object.__eq__:
            return self._changed(given, read, path)
        return (
            None
            if _equal(getattr(given, "__dict__", None), getattr(read, "__dict__", None))
            else self._changed(given, read, path)
        )

    def _as_json(self, given: object, read: object, path: Path) -> FieldError | None:
        """What JSON has no word for came back as what it was written as: all of it must be there."""
        if isinstance(given, Enum):
            return self.compare(given.value, read, path, True)  # noqa: FBT003
        if _is_record(given):
            written = cast("Mapping[str, object]", read)
            for name in _names(given):
                at = _written_as(given, name)
                if at not in written:
                    if _left_out_on_purpose(given, name):
                        continue
                    return FieldError(_text((*path, name)), "is not written")
                if wrong := self.compare(getattr(given, name), written[at], (*path, at), True):  # noqa: FBT003
                    return wrong
            return None
        if isinstance(given, (str, int, float, type(None))) or isinstance(read, (Mapping, type(None))):
            return self._changed(given, read, path)
        return None

    @staticmethod
    def _changed(given: object, read: object, path: Path) -> FieldError:
        """Names no value: errors are logged, and payloads are nobody's business there."""
        one, other = type(given).__name__, type(read).__name__
        return FieldError(
            _text(path), f"is {one}, and comes back as {other}" if one != other else f"comes back as another {one}"
        )

    def _at(self, path: Path) -> object:
        """What stands in the body at `path`."""
        try:
            found: Any = json.loads(self._body)
            for part in path:
                found = found[part]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return cast("object", found)


def _listed(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _text(path: Path) -> str:
    return ".".join(map(str, path))


def fields_again(value: Any) -> Any:
    """`value` with every record in it as a mapping of what it reads: to see whether it is valid as it is."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        if type(value).__pydantic_root_model__:
            return fields_again(cast("Any", value).root)
        found = {_input_name(name, field.validation_alias): getattr(value, name) for name, field in fields.items()}
        return {name: fields_again(inner) for name, inner in {**found, **(value.__pydantic_extra__ or {})}.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: fields_again(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, dict):
        return {name: fields_again(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        make: Callable[[Iterable[Any]], Any] = list if isinstance(value, list) else tuple
        return make(fields_again(inner) for inner in value)
    return value


def _input_name(name: str, alias: object) -> str:
    return alias if isinstance(alias, str) else name


def is_json(value: object) -> bool:
    """Whether `value` is made of nothing but what JSON has words for."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_json(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return type(value) in (str, int, float, bool, type(None))


def not_finite(value: object, path: tuple[str, ...] = ("the payload",)) -> tuple[str, ...]:
    """Where in `value` there is a float that JSON cannot write and pydantic would silently make null."""
    if isinstance(value, float):
        return () if isfinite(value) else path
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = enumerate(value)
    return next((found for name, item in items if (found := not_finite(item, (*path, str(name))))), ())


def valueless(said: str) -> str:
    """What pydantic said, in a line, without the values that it shows: errors are logged, and payloads are not."""
    return " ".join(INPUT.sub("", said).split())
