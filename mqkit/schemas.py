"""What can be seen on a schema without a payload: whether it is ready, and what it never reads back as it writes it.

Reads pydantic's core schema, and makes the one TypeAdapter of a topic. Payloads are compared in `round_trip.py`.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias, TypeGuard, cast

from pydantic import TypeAdapter

from mqkit.errors import ConfigurationError

Node: TypeAlias = Mapping[str, Any]
"""A part of pydantic's core schema."""
Check: TypeAlias = Callable[[Any], bool]
WAY_OUT: Final = "or say Topic(..., round_trip=False) if receivers need not get it back"


SAFE: Final = frozenset(
    (
        "model",
        "model-fields",
        "model-field",
        "default",
        "nullable",
        "list",
        "dict",
        "definitions",
        "definition-ref",
        "str",
        "int",
        "float",
        "bool",
        "none",
        "decimal",
        "date",
        "time",
        "datetime",
        "uuid",
    )
)
"""Parts of a schema whose values read back as they were written, whatever they are."""
NO_PARTS: Final = frozenset(("metadata", "default", "serialization", "expected", "members"))
"""What is in a part and not one itself."""


REWRITES: Final = ("strip_whitespace", "to_lower", "to_upper")
"""What text is made to be when it is read, and is not yet where nobody validated it."""


@dataclass(frozen=True, slots=True)
class OneWay:
    """A field that is never read back as it is written."""

    field: str
    """`Model.field`."""
    why: str
    certain: bool
    """Whatever its value is; else a field that is left at its default may be right."""
    written: str = ""
    """What the field is called where it is written."""

    def __str__(self) -> str:
        return f"{self.field} {self.why}"


def nodes(schema: object) -> Iterator[Node]:
    """Every part of a core schema, itself included."""
    if _is_node(schema):
        yield schema
    for inner in _inside(schema):
        yield from nodes(inner)


def _is_node(schema: object) -> TypeGuard[Node]:
    """Whether it is a part itself, and not a mapping of names (`type` may be one of them) to parts."""
    return isinstance(schema, Mapping) and isinstance(schema.get("type"), str)


def _inside(schema: object) -> Iterable[object]:
    if isinstance(schema, Mapping):
        skipped = NO_PARTS if _is_node(schema) else ()
        return [inner for name, inner in schema.items() if name not in skipped]
    return schema if isinstance(schema, (list, tuple)) else ()


def certain(schema: Node) -> Check | None:
    """What tells of a payload, quickly, that it reads back as it was: its records are of the schema's own classes.

    None if the schema has parts that must be compared: serializers, validators, secrets, unions, what takes anything.
    """
    if not all(map(_is_safe, nodes(schema))):
        return None
    checks: dict[str, Check | None] = {}
    if schema["type"] == "definitions":
        for definition in schema["definitions"]:
            checks[definition["ref"]] = _check(definition, checks)
        return _check(schema["schema"], checks) or _anything
    return _check(schema, checks) or _anything


def _is_safe(node: Node) -> bool:
    config = node.get("config", {})
    return (
        node["type"] in SAFE
        and "serialization" not in node
        and not node.get("root_model")
        and not node.get("computed_fields")
        and not node.get("serialization_exclude")
        and "serialization_exclude_if" not in node
        and node.get("validation_alias") == node.get("serialization_alias")
        and node.get("extra_behavior", config.get("extra_fields_behavior")) != "allow"
        and not any(name.startswith(("ser_", "val_")) for name in config)
        and not any(node.get(name) or config.get(f"str_{name}") for name in REWRITES)
        and not (node["type"] == "dict" and node.get("keys_schema", {}).get("type") != "str")
    )


def _anything(_: Any) -> bool:
    return True


def _in_whole_minutes(value: Any) -> bool:
    """Whether the offset of a time is what is written of it, hours and minutes: before 1900 it had seconds."""
    offset = None if value.tzinfo is None else value.utcoffset()
    return not offset or not (offset.seconds % 60 or offset.microseconds)


def _all(check: Check, values: Iterable[Any]) -> bool:
    return all(map(check, values))


def _check(node: Node, checks: dict[str, Check | None]) -> Check | None:
    """Looks for records of other classes; None where there are no records."""
    match node["type"]:
        case "definition-ref":
            name = node["schema_ref"]

            def defined(value: Any) -> bool:
                check = checks[name]  # not known before all definitions are
                return check is None or check(value)

            return defined
        case "model":
            cls, fields = node["cls"], _fields_of(node["schema"])
            inside = [(name, check) for name, field in fields if (check := _check(field["schema"], checks))]
            if not inside:
                return lambda value: type(value) is cls
            return lambda value: type(value) is cls and all(check(vars(value)[name]) for name, check in inside)
        case "datetime" | "time":
            return _in_whole_minutes
        case "default":
            return _check(node["schema"], checks)
        case "nullable":
            inner = _check(node["schema"], checks)
            return inner and (lambda value: value is None or inner(value))
        case "list":
            each = _check(node["items_schema"], checks) if "items_schema" in node else None
            return each and partial(_all, each)
        case "dict":
            item = _check(node["values_schema"], checks) if "values_schema" in node else None
            return item and (lambda value: _all(item, value.values()))
    return None


def one_way(schema: Node) -> list[OneWay]:
    """What of a schema never reads back as it is written, for reasons that can be seen without a payload."""
    found: list[OneWay] = []
    for model in nodes(schema):
        if model["type"] not in ("model", "dataclass", "typed-dict") or "serialization" in model:
            continue
        name = getattr(model.get("cls"), "__name__", "the payload")
        config: Node = model.get("config", {})
        fields = next((n for n in nodes(model) if n["type"] in ("model-fields", "dataclass-args", "typed-dict")), None)
        if fields is None or "serialization" in fields:
            continue
        for field, node in _fields_of(fields):
            written = node.get("serialization_alias") or field
            found += [OneWay(f"{name}.{field}", *problem, written) for problem in _problems(field, node, config)]
        if fields.get("extra_behavior", config.get("extra_fields_behavior")) == "forbid":
            found += [
                OneWay(
                    f"{name}.{computed.get('alias') or computed['property_name']}",
                    f'is computed and written, and refused when it is read: {name} has extra="forbid"',
                    certain=True,
                )
                for computed in fields.get("computed_fields", ())
            ]
    return found


def _fields_of(fields: Node) -> Iterable[tuple[str, Node]]:
    listed = fields["fields"]
    return listed.items() if isinstance(listed, Mapping) else ((node["name"], node) for node in listed)


def _problems(field: str, node: Node, config: Node) -> Iterator[tuple[str, bool]]:
    inner: Node = node["schema"]
    required = inner["type"] not in ("default", "nullable") and node.get("required", True)
    written = node.get("serialization_alias") or field
    read = _names_read(field, node, config)
    if node.get("serialization_exclude"):
        if required:
            yield "is not written (exclude=True), and required when it is read: give it a default", True
        return
    if written not in read:
        yield (
            f"is written as {written!r} and read as {' or '.join(map(repr, read))}: give it one alias for both",
            required,
        )
    for part in _own_words(inner):
        if _masks(part):
            yield "is a secret, and written as asterisks: give it a field_serializer", required
        if part["type"] == "json":
            yield "is Json, written as what it holds and read as text: annotate it as what it holds", required
        writes, reads = config.get("ser_json_bytes", "utf8"), config.get("val_json_bytes", "utf8")
        if part["type"] == "bytes" and writes != reads:
            yield f"is written in {writes} and read in {reads}: set ser_json_bytes and val_json_bytes alike", required


def _names_read(field: str, node: Node, config: Node) -> list[str]:
    alias = node.get("validation_alias")
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    if alias is None:
        return [field]
    paths = [[alias]] if isinstance(alias, str) else alias if isinstance(alias[0], list) else [alias]
    return [*(".".join(map(str, path)) for path in paths), *([field] if by_name else [])]


def _own_words(schema: object) -> Iterator[Node]:
    """The parts of a field that decide how it is written: not those of models in it, or below a serializer."""
    if _is_node(schema):
        yield schema
        if "serialization" in schema or schema["type"] in ("model", "dataclass", "typed-dict"):
            return
    for inner in _inside(schema):
        yield from _own_words(inner)


def _masks(node: Node) -> bool:
    """Whether pydantic writes asterisks here."""
    function = node.get("serialization", {}).get("function")
    return getattr(function, "__module__", "") == "pydantic.types" and "secret" in getattr(function, "__name__", "")


def takes_anything(schema: Node) -> bool:
    """Whether there is a part that JSON alone describes (`Any`): dates and the like come back as text there."""
    return any(node["type"] == "any" for node in _own_words(schema))


@lru_cache(1024)
def loose_fields(cls: Hashable) -> frozenset[str]:
    """The fields that take anything, of a model or dataclass."""
    try:
        schema: Node = getattr(cls, "__pydantic_core_schema__", None) or TypeAdapter(cast("type[Any]", cls)).core_schema
    except Exception:  # noqa: BLE001 - a dataclass that pydantic cannot read by itself
        return frozenset()
    fields = next(
        (n for n in nodes(schema) if n["type"] in ("model-fields", "dataclass-args") and _of(schema, n, cls)), {}
    )
    return frozenset(name for name, node in (_fields_of(fields) if fields else ()) if takes_anything(node["schema"]))


def _of(schema: Node, fields: Node, cls: object) -> bool:
    """Whether these are the fields of `cls`, and not of a class inside of it."""
    for node in nodes(schema):
        if node["type"] in ("model", "dataclass") and node.get("cls") is cls:
            return next((n for n in nodes(node) if n["type"] in ("model-fields", "dataclass-args")), None) is fields
    return False


def adapter_of(schema: object, name: str) -> TypeAdapter[Any]:
    """What reads and writes `schema`, ready.

    Raises:
        ConfigurationError: pydantic cannot use it, or not yet; the text says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Mixing V1 models")
            adapter: TypeAdapter[Any] = TypeAdapter(cast("type[Any]", schema))
            if not adapter.pydantic_complete:
                adapter.rebuild(force=True, raise_errors=True)
    except Exception as error:
        why = str(error).partition("\n")[0]
        if isinstance(error, NameError) or "not defined" in why:
            why += ": import it, define it before, or give the class and not its name"
        raise ConfigurationError(f"schema {name} cannot be used: {why}") from error
    old = next((owner for node in nodes(adapter.core_schema) if (owner := _old_model(node))), None)
    if old is not None:
        raise ConfigurationError(
            f"schema {name} cannot be used: {old} is a model of pydantic.v1; derive it from pydantic.BaseModel"
        )
    return adapter


def _old_model(node: Mapping[str, Any]) -> str | None:
    """The name of the class whose validation this is, if it is one of pydantic.v1's."""
    function = node.get("function")
    validate = function.get("function") if isinstance(function, Mapping) else function
    owner = getattr(validate, "__self__", None)
    if isinstance(owner, type) and any(base.__module__.startswith("pydantic.v1.") for base in owner.__mro__):
        return owner.__name__
    return None
