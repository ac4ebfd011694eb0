"""Payload <-> bytes: the Codec protocol, raw bytes, JSON validated by pydantic, and lookup by content type.

Errors name what is wrong: a publisher gets them before any I/O, a consumer's message is dead-lettered with them.
"""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from mqkit.errors import ConfigurationError, DecodeError, EncodeError, FieldError, MessageError, SchemaError
from mqkit.topic import Topic, schema_name

T = TypeVar("T")

RAW = "application/octet-stream"
JSON = "application/json"

# The first time pydantic writes or reads anything it takes a lock for a moment. A process forked by another thread just
# then would wait for it for ever: so that time is now, and not in the first publish.
TypeAdapter(int).validate_json(TypeAdapter(int).dump_json(TypeAdapter(int).validate_python(0)))


class Binding(Protocol):
    """A codec bound to one schema."""

    def encode(self, payload: Any) -> bytes:
        """`payload` as bytes. Raises EncodeError, SchemaError."""
        ...

    def decode(self, body: bytes) -> Any:
        """The payload in `body`. Raises DecodeError, SchemaError."""
        ...


class Codec(Protocol):
    """Writes and reads the payloads of one content type."""

    content_type: str

    def bind(self, schema: object) -> Binding:
        """For payloads of `schema`; None takes anything. Raises ConfigurationError if it cannot serve that."""
        ...


class RawBinding:
    """Bytes as they are."""

    def encode(self, payload: Any) -> bytes:
        """As Binding.encode."""
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return bytes(payload)
        raise SchemaError("bytes", [FieldError("", f"is {type(payload).__name__}, not bytes")])

    def decode(self, body: bytes) -> Any:
        """As Binding.decode."""
        return body


class RawCodec:
    """Bytes as they are, for topics whose schema is `bytes`."""

    content_type = RAW

    def bind(self, schema: object) -> Binding:
        """As Codec.bind."""
        if schema is not bytes and schema is not None:
            raise ConfigurationError(f"raw bodies are bytes; schema {schema_name(schema)} needs another content type")
        return RawBinding()


def _fields(error: ValidationError) -> list[FieldError]:
    shown = error.errors(include_url=False, include_context=False, include_input=False)[:20]
    return [FieldError(".".join(str(part) for part in e["loc"]), e["msg"]) for e in shown]


def _not_finite(value: object, path: tuple[str, ...] = ("the payload",)) -> tuple[str, ...]:
    """Where in `value` there is a float that JSON cannot write and pydantic would silently make null."""
    if isinstance(value, float):
        return () if isfinite(value) else path
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = enumerate(value)
    return next((found for name, item in items if (found := _not_finite(item, (*path, str(name))))), ())


class JSONBinding:
    """JSON of what pydantic validates. A payload is checked on both sides, as it would be read."""

    def __init__(self, schema: object) -> None:
        self.name = schema_name(schema)
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(cast("type[Any]", Any if schema is None else schema))
        except Exception as error:
            raise ConfigurationError(f"schema {self.name} cannot be used: {error}") from error

    def encode(self, payload: Any) -> bytes:
        """As Binding.encode."""
        try:
            body = self.adapter.dump_json(self.adapter.validate_python(payload), by_alias=True, warnings="error")
            self.adapter.validate_json(body)
        except ValidationError as error:
            raise SchemaError(self.name, _fields(error)) from error
        except PydanticSerializationError as error:
            raise self._unwritable(payload, error) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodeError(f"{self.name} cannot be written as JSON: {error}") from error
        if b"null" in body and (lost := _not_finite(self.adapter.dump_python(payload, by_alias=True, warnings=False))):
            raise EncodeError(f"{self.name} cannot be written as JSON: {'.'.join(lost)} is NaN or infinite")
        return body

    def _unwritable(self, payload: Any, error: PydanticSerializationError) -> SchemaError | EncodeError:
        try:
            self.adapter.validate_python(self.adapter.dump_python(payload, by_alias=True, warnings=False))
        except ValidationError as wrong:
            return SchemaError(self.name, _fields(wrong))
        except Exception as deeper:  # noqa: BLE001 - only the first error matters
            return EncodeError(f"{self.name} cannot be written as JSON: {error} ({deeper})")
        return EncodeError(f"{self.name} cannot be written as JSON: {error}")

    def decode(self, body: bytes) -> Any:
        """As Binding.decode."""
        try:
            return self.adapter.validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["type"] == "json_invalid" and not first["loc"]:
                raise DecodeError(f"the body is not JSON: {first['msg']}") from error
            raise SchemaError(self.name, _fields(error)) from error
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"the body is not JSON: {error}") from error


class JSONCodec:
    """JSON, validated by pydantic where the topic has a schema."""

    content_type = JSON

    def bind(self, schema: object) -> Binding:
        """As Codec.bind."""
        return JSONBinding(schema)


class TopicCodec(Generic[T]):
    """How the payloads of one topic are written, and read in whatever content type they come."""

    def __init__(self, topic: Topic[T], lookup: Callable[[str], Codec]) -> None:
        self._schema = topic.schema
        self._lookup = lookup
        self.content_type = topic.content_type or (RAW if topic.schema is bytes else JSON)
        self._bindings: dict[str, Binding] = {self.content_type: lookup(self.content_type).bind(topic.schema)}
        self._own = self._bindings[self.content_type]

    def encode(self, payload: T) -> bytes:
        """`payload` as bytes of the topic's content type. Raises EncodeError, SchemaError."""
        return self._own.encode(payload)

    def decode(self, body: bytes, content_type: str | None) -> T:
        """The payload in `body`; without a content type, the topic's own is taken.

        Raises:
            DecodeError: no codec for that content type, or the body cannot be read.
            SchemaError: it does not match the schema; names the fields.
        """
        if content_type is None or content_type == self.content_type or self._schema is bytes:
            return self._read(self._own, body)
        plain, _, parameters = content_type.partition(";")
        plain = plain.strip().lower()
        charset = parameters.lower().replace('"', "").partition("charset=")[2].split(";")[0].strip()
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise DecodeError(f"bodies in {charset[:40]!r} cannot be read; send UTF-8")
        if plain.startswith("application/") and plain.endswith("+json"):
            plain = JSON
        binding = self._bindings.get(plain)
        if binding is None:
            try:
                binding = self._lookup(plain).bind(self._schema)
            except ConfigurationError as error:
                raise DecodeError(str(error)) from error
            self._bindings[plain] = binding
        return self._read(binding, body)

    def _read(self, binding: Binding, body: bytes) -> T:
        try:
            payload: T = binding.decode(body)
        except MessageError:
            raise
        except Exception as error:  # a validator of the schema, or a plugin's codec, that a hostile body brought down
            raise DecodeError(f"the body cannot be read: {type(error).__name__}: {error}") from error
        return payload


class Codecs:
    """The codecs that were registered, by content type."""

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        self.by_type: dict[str, Codec] = {}
        built_in: tuple[Codec, ...] = (RawCodec(), JSONCodec())
        for codec in (*built_in, *codecs):
            self.by_type[codec.content_type] = codec

    def lookup(self, content_type: str) -> Codec:
        """The codec for `content_type`.

        Raises:
            ConfigurationError: there is none; the text lists those that are there.
        """
        codec = self.by_type.get(content_type)
        if codec is None:
            known = ", ".join(sorted(self.by_type))
            raise ConfigurationError(f"no codec for content type {content_type[:100]!r}; there is {known}")
        return codec

    def bind(self, topic: Topic[T]) -> TopicCodec[T]:
        """How the payloads of `topic` are written and read."""
        return TopicCodec(topic, self.lookup)
