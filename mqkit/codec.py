"""Payload <-> bytes: the Codec protocol, raw bytes, JSON validated by pydantic, and lookup by content type.

Errors name what is wrong: a publisher gets them before any I/O, a consumer's message is dead-lettered with them.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from traceback import walk_tb
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from mqkit.bodies import CHARSETS, RAW, looks_like, media_type, unpacked, without_mark
from mqkit.errors import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    FieldError,
    MessageError,
    SchemaError,
    ServiceError,
)
from mqkit.legible import in_line
from mqkit.round_trip import difference, fields_again, is_json, not_finite, same_json, valueless
from mqkit.schemas import WAY_OUT, adapter_of, certain, one_way, takes_anything
from mqkit.topic import Topic, schema_name

T = TypeVar("T")

JSON = "application/json"
NOTHING = b"null"
"""What JSON writes for None."""

SERVICES: tuple[type[Exception], ...] = (
    PydanticUserError,
    ImportError,
    NameError,
    MemoryError,
    SyntaxError,
    SystemError,
)
"""What code of the service raises when it is broken itself, whatever body it reads."""
BODIES: tuple[type[Exception], ...] = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RecursionError,
)  # fmt: skip
"""What is raised over a body that nobody expected, if no code of the service raised it."""
ABSENT = FieldError("", "is missing: the record is null (a tombstone), or the event has no data")

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
    return [FieldError(in_line(".".join(str(part) for part in e["loc"])), in_line(e["msg"])) for e in shown]


class JSONBinding:
    """JSON of what pydantic validates. A payload is checked on both sides, as it would be read."""

    def __init__(self, schema: object) -> None:
        self.name = schema_name(schema)
        self.adapter: TypeAdapter[Any] = adapter_of(Any if schema is None else schema, self.name)
        core = self.adapter.core_schema
        # what TypeAdapter's methods of these names call, without the way there, which is as long for a small payload
        self._validate = self.adapter.validator.validate_python
        self._dump = self.adapter.serializer.to_json
        self._read = self.adapter.validator.validate_json
        self._certain = certain(core)
        self._loose = takes_anything(core)

    def encode(self, payload: Any) -> bytes:
        """As Binding.encode."""
        return self.write(payload)[0]

    def write(self, payload: Any, *, round_trip: bool = True) -> tuple[bytes, Any]:
        """`payload` as bytes, and as it was validated.

        Args:
            round_trip: whether the bytes must read back as what was given.

        Raises:
            SchemaError: the payload does not match; names the fields.
            EncodeError: it cannot be written, or what is written would not read back; says what to do.
        """
        try:
            try:
                given = self._validate(payload)
            except ValidationError:
                given = self._validated_as_json(payload)
            body = self._dump(given, by_alias=True, warnings="error")
        except ValidationError as error:
            raise SchemaError(self.name, _fields(error)) from error
        except PydanticSerializationError as error:
            raise self._unwritable(payload, error) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodeError(f"{self.name} cannot be written as JSON: {error}") from error
        try:
            read = self._read(body) if round_trip else given
        except ValidationError as error:
            raise self._unread(given, error, proven=given is not payload) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodeError(f"{self.name} cannot be written as JSON: {error}") from error
        if b"null" in body and (lost := not_finite(self.adapter.dump_python(payload, by_alias=True, warnings=False))):
            raise EncodeError(f"{self.name} cannot be written as JSON: {'.'.join(lost)} is NaN or infinite")
        if round_trip and not (self._certain is not None and self._certain(given)):
            self._compare(given, read, body)
        return body, given

    def require_round_trip(self) -> None:
        """Raise ConfigurationError if no payload at all would read back as it is written; names the fields."""
        if found := [str(one) for one in one_way(self.adapter.core_schema) if one.certain]:
            raise ConfigurationError(f"{self.name} does not read back what it writes: {'; '.join(found)}; {WAY_OUT}")

    def _validated_as_json(self, payload: Any) -> Any:
        """A strict model takes of JSON what it does not take of Python, as dates in text. Raises ValidationError."""
        if is_json(payload):
            with suppress(ValueError):
                return self._read(json.dumps(payload))
        return self._validate(payload)

    def _unread(self, given: Any, error: ValidationError, *, proven: bool) -> SchemaError | EncodeError:
        """Why what was written does not read back: the payload is wrong, or its model.

        Args:
            proven: the payload was validated, and not only taken for what it claims to be.
        """
        wrong = _fields(error)
        known = one_way(self.adapter.core_schema)
        at = {name for field in wrong for name in field.path.split(".")}
        if not (proven or any(one.certain or one.written in at for one in known) or self._is_valid(given)):
            return SchemaError(self.name, wrong)
        return self._one_way("; ".join(map(str, known or wrong)))

    def _is_valid(self, given: Any) -> bool:
        try:
            self.adapter.validate_python(fields_again(given))
        except Exception:  # noqa: BLE001 - whatever a validator raises, it does not take it
            return False
        return True

    def _compare(self, given: Any, read: Any, body: bytes) -> None:
        if self._loose and same_json(given, read):
            return
        lost = difference(given, read, body, loose=self._loose)
        if lost is None:
            return
        explained = [one for one in one_way(self.adapter.core_schema) if one.written == lost.path.rpartition(".")[2]]
        raise self._one_way(str(explained[0] if explained else lost))

    def _one_way(self, why: str) -> EncodeError:
        return EncodeError(f"{self.name} does not read back what it writes: {in_line(why)}; {WAY_OUT}")

    def _unwritable(self, payload: Any, error: PydanticSerializationError) -> SchemaError | EncodeError:
        try:
            self.adapter.validate_python(self.adapter.dump_python(payload, by_alias=True, warnings=False))
        except ValidationError as wrong:
            return SchemaError(self.name, _fields(wrong))
        except Exception as deeper:  # noqa: BLE001 - only the first error matters
            return EncodeError(
                f"{self.name} cannot be written as JSON: {valueless(str(error))} ({valueless(str(deeper))})"
            )
        return EncodeError(f"{self.name} cannot be written as JSON: {valueless(str(error))}")

    def decode(self, body: bytes) -> Any:
        """As Binding.decode.

        Raises also:
            ServiceError: the schema itself fails, whatever the body is.
            Exception: what a validator raised that is not about the body, as it is.
        """
        try:
            return self._read(without_mark(body))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["type"] == "json_invalid" and not first["loc"]:
                raise DecodeError(f"the body is not JSON{looks_like(body)}: {first['msg']}") from error
            raise SchemaError(self.name, _fields(error)) from error
        except SERVICES as error:
            raise ServiceError(f"{self.name} cannot read anything: {type(error).__name__}: {error}") from error
        except (UnicodeError, RecursionError) as error:
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
        self.schema_name = schema_name(topic.schema)
        """As it travels in the envelope."""
        self._round_trip = topic.round_trip
        self._lookup = lookup
        self.content_type = topic.content_type or (RAW if topic.schema is bytes else JSON)
        self._bindings: dict[str, Binding] = {self.content_type: lookup(self.content_type).bind(topic.schema)}
        self._own = self._bindings[self.content_type]
        self._json = self._own if isinstance(self._own, JSONBinding) else None

    def encode(self, payload: T) -> bytes:
        """`payload` as bytes of the topic's content type. Raises EncodeError, SchemaError."""
        return self.write(payload)[0]

    def write(self, payload: T) -> tuple[bytes, T]:
        """`payload` as bytes, and as the schema validated it: what a dict of it and a model of it have in common.

        Raises:
            SchemaError: it does not match the schema; names the fields.
            EncodeError: it cannot be written, or would not read back as it is.
        """
        if self._json is not None:
            return self._json.write(payload, round_trip=self._round_trip)
        return self._own.encode(payload), payload

    def writes_nothing(self, payload: T, body: bytes) -> bool:
        """Whether `body`, which was written for `payload`, says no more than that there is nothing."""
        return payload is None and body == NOTHING and isinstance(self._own, JSONBinding)

    def require_writable(self) -> None:
        """Raise ConfigurationError if no payload of the topic could be published; says why and what to do."""
        if self._round_trip and self._json is not None:
            self._json.require_round_trip()

    def decode(
        self, body: bytes, content_type: str | None, encoding: str | None = None, largest: int | None = None
    ) -> T:
        """The payload in `body`; without a content type, the topic's own is taken.

        Args:
            encoding: how the body was compressed (`gzip`), if it was.
            largest: bytes that the body may have when it is unpacked.

        Raises:
            DecodeError: no codec for that content type or encoding, or the body cannot be read.
            SchemaError: it does not match the schema; names the fields.
            ServiceError: the service's own code fails, whatever the body is.
            Exception: what a validator of the schema raised that is not about the body, as it is.
        """
        if self._schema is bytes:
            return self._read(self._own, body)
        if encoding:
            body = unpacked(body, encoding, largest)
        if content_type is None or content_type == self.content_type:
            return self._read(self._own, body)
        plain_type, charset = media_type(content_type)
        if charset.replace("_", "-") not in CHARSETS:
            raise DecodeError(f"bodies in {charset[:40]!r} cannot be read; send UTF-8")
        binding = self._bindings.get(plain_type)
        if binding is None:
            try:
                codec = self._lookup(plain_type)
            except ConfigurationError as error:
                raise DecodeError(f"{error}{looks_like(body)}") from error
            try:
                binding = codec.bind(self._schema)
            except ConfigurationError as error:
                raise DecodeError(str(error)) from error
            self._bindings[plain_type] = binding
        return self._read(binding, body)

    def absent(self) -> T:
        """What a message that has no body at all says: None, where the schema takes it; no bytes, of raw ones.

        Raises:
            SchemaError: the schema takes no None.
            DecodeError, ServiceError: as in decode.
        """
        if self._json is None:
            return self._read(self._own, b"")
        try:
            return self._read(self._own, NOTHING)
        except SchemaError as error:
            raise SchemaError(error.schema, [ABSENT, *error.fields]) from error
        except BODIES as error:
            raise SchemaError(schema_name(self._schema), [ABSENT, FieldError("", in_line(repr(error)))]) from error

    def _read(self, binding: Binding, body: bytes) -> T:
        try:
            payload: T = binding.decode(body)
        except (MessageError, ServiceError):
            raise
        except SERVICES as error:
            raise ServiceError(f"the codec cannot read anything: {type(error).__name__}: {error}") from error
        except Exception as error:  # a validator of the schema; or a plugin's codec, that a hostile body brought down
            if isinstance(binding, JSONBinding) and (not isinstance(error, BODIES) or _in_service(error)):
                raise
            raise DecodeError(f"the body cannot be read{looks_like(body)}: {type(error).__name__}: {error}") from error
        return payload


def _in_service(error: Exception) -> bool:
    """Whether code of the service raised it: what that says of a body, pydantic gathers in a ValidationError."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return not {str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames} <= {"mqkit", "pydantic"}


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
