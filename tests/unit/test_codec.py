"""Payloads and bytes: wrong ones are refused on both sides, with the fields that are wrong."""

import gzip
import json
import math
import pickle
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, Json, field_validator, model_validator, v1
from pydantic.errors import PydanticUserError
from typing_extensions import TypedDict

from mqkit.bodies import RAW
from mqkit.codec import JSON, Codecs, JSONBinding
from mqkit.errors import (
    ConfigurationError,
    DecodeError,
    EncodeError,
    MessageError,
    MessageTooLarge,
    SchemaError,
    ServiceError,
)
from mqkit.topic import Topic


class Item(BaseModel):
    name: str
    price: Annotated[Decimal, Field(gt=0)]


class Order(BaseModel):
    customer: str
    cds: Annotated[int, Field(ge=1)] = 1
    items: list[Item] = []
    note: Annotated[str | None, Field(alias="remark")] = None


@dataclass
class Point:
    x: int
    y: float | None = None


class Row(TypedDict):
    id: int


def codec(schema: Any, content_type: str | None = None, codecs: Codecs | None = None) -> Any:
    return (codecs or Codecs()).bind(Topic("t", schema, content_type=content_type))


def paths(error: SchemaError) -> list[str]:
    return [field.path for field in error.fields]


def mutated() -> Order:
    order = Order(customer="ann")
    order.cds = "many"  # type: ignore[assignment] # that is the point
    return order


def constraint_violated() -> Order:
    order = Order(customer="ann")
    order.cds = 0
    return order


def nested() -> Order:
    order = Order(customer="ann", items=[Item(name="x", price=Decimal(1))])
    order.items[0].price = Decimal(-1)
    return order


def constructed(**fields: Any) -> Order:
    return Order.model_construct(**fields)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (mutated, "cds"),
        (constraint_violated, "cds"),
        (nested, "items.0.price"),
        (lambda: constructed(customer=5), "customer"),
        (lambda: constructed(cds=3), "customer"),
        (lambda: {"customer": "ann", "cds": "x"}, "cds"),
        (lambda: {"customer": "ann", "items": [{"name": "a"}]}, "items.0.price"),
        (lambda: Item(name="a", price=Decimal(1)), ""),
        (lambda: None, ""),
    ],
    ids=["mutated", "constraint", "nested", "constructed", "missing", "dict", "deep dict", "other model", "None"],
)
def test_a_wrong_payload_is_refused_with_its_fields_before_anything_is_sent(make: Any, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        codec(Order).encode(make())
    assert path in paths(caught.value)
    assert str(caught.value).startswith("does not match Order: ")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"customer": "ann", "cds": "many"}', "cds"),
        (b'{"cds": 1}', "customer"),
        (b'{"customer": "ann", "items": [{"name": "a", "price": "-1"}]}', "items.0.price"),
        (b"[]", ""),
        (b"null", ""),
    ],
)
def test_a_wrong_body_is_refused_with_its_fields(body: bytes, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        codec(Order).decode(body, JSON)
    assert path in paths(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b'{"customer": "\xc3"}', b'"\\ud800"', b"[" * 100_000, b"{}{}", b"1" * 5000,
        b'{"customer":' * 1000, b"\xef\xbb\xbf",
    ],
    ids=["empty", "cut", "no UTF-8", "broken UTF-8", "surrogate", "deep", "two", "huge int", "deep object", "BOM"],
)  # fmt: skip
@pytest.mark.parametrize("schema", [None, Order, dict[str, Any]], ids=["any", "model", "dict"])
def test_a_body_that_is_no_json_cannot_be_read(schema: Any, body: bytes) -> None:
    with pytest.raises(DecodeError, match="not JSON"):
        codec(schema).decode(body, JSON)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_payload_or_an_error_of_the_message(body: bytes) -> None:
    for schema in (None, Order, Point, bytes, Row):
        try:
            codec(schema).decode(body, None)
        except MessageError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
)  # fmt: skip


@given(json_values)
def test_what_json_can_say_comes_back_as_it_was(payload: Any) -> None:
    written = codec(None).encode(payload)
    assert codec(None).decode(written, JSON) == payload == json.loads(written)


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (Order, Order(customer="ann", items=[Item(name="x", price=Decimal("1.10"))], remark="é")),
        (Point, Point(1, 2.5)),
        (Row, {"id": 1}),
        (dict[str, int], {"a": 10**30}),
        (list[Order], [Order(customer="a")]),
        (int | None, None),
        (bytes, b"\x00\xff"),
    ],
)
def test_what_is_encoded_is_decoded(schema: Any, payload: Any) -> None:
    bound = codec(schema)
    assert bound.decode(bound.encode(payload), bound.content_type) == payload


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("schema", "wrap"),
    [
        (None, lambda n: n),
        (None, lambda n: {"a": [1, n]}),
        (float, lambda n: n),
        (Point, lambda n: Point(1, n)),
        (float | None, lambda n: n),
        (dict[str, float | None], lambda n: {"a": None, "b": n}),
    ],
)
def test_a_number_that_json_cannot_write_is_refused_and_never_turned_into_null(
    schema: Any, wrap: Any, number: float
) -> None:
    with pytest.raises((EncodeError, SchemaError)):
        codec(schema).encode(wrap(number))


def test_where_such_a_number_stands_is_told() -> None:
    with pytest.raises(EncodeError, match=r"a\.1 is NaN"):
        codec(None).encode({"a": [None, math.nan]})


def test_none_is_still_null() -> None:
    assert codec(Point).encode(Point(1)) == b'{"x":1,"y":null}'


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def round_about() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "payload",
    [object(), "\ud800", b"\xff", deep(250), deep(100_000), round_about(), 10**5000, {"a": {1, object()}}],
    ids=["object", "surrogate", "bytes", "deep", "very deep", "cycle", "huge int", "nested object"],
)
def test_what_cannot_be_written_is_refused(payload: Any) -> None:
    with pytest.raises((EncodeError, SchemaError)):
        codec(None).encode(payload)


@pytest.mark.parametrize(
    "content_type",
    [
        None, "application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"',
        "application/vnd.shop.order+json", "application/json; version=2; charset=utf8", " application/json ",
        "text/json", "Text/JSON; charset=UTF-8", '"application/json"', '"application/json;charset=UTF-8"', "text/x-json",
        "application/json; charset='utf-8'", "application/json;\tCharset = UTF_8", "application/json; charset=utf-8-sig",
        "application/json; charset=ascii", "model/gltf+json", "image/svg+JSON; charset=utf-8",
    ],
)  # fmt: skip
def test_json_goes_by_many_names(content_type: str | None) -> None:
    assert codec(Order).decode(b'{"customer": "ann"}', content_type) == Order(customer="ann")


@pytest.mark.parametrize(
    ("content_type", "named"),
    [
        ("application/avro", "application/avro"),
        ("text/plain", "application/json"),
        ("application/json; charset=latin-1", "latin-1"),
        ("x" * 10_000, "no codec"),
        ("", "no codec"),
    ],
)
def test_an_unknown_content_type_or_charset_is_named_and_bounded(content_type: str, named: str) -> None:
    bound = codec(Order)
    with pytest.raises(DecodeError, match=named) as caught:
        bound.decode(b"{}", content_type)
    assert len(str(caught.value)) < 400
    assert len(bound._bindings) == 1, "hostile types are not kept"


def test_raw_bodies_are_bytes_whatever_they_claim_to_be() -> None:
    bound = codec(bytes)
    assert bound.content_type == RAW
    assert bound.decode(b"\xff", "application/json") == b"\xff"
    assert bound.encode(bytearray(b"a")) == b"a"
    with pytest.raises(SchemaError, match="str, not bytes"):
        bound.encode("a")


def test_a_json_topic_does_not_take_raw_bodies_for_its_schema() -> None:
    with pytest.raises(DecodeError):
        codec(Order).decode(b"{}", RAW)


class Validated(BaseModel):
    value: Any

    @field_validator("value")
    @classmethod
    def check(cls, value: Any) -> Any:
        return value["inside"]


def test_what_fails_in_the_code_of_a_validator_is_not_blamed_on_the_message() -> None:
    with pytest.raises(KeyError, match="inside"):
        codec(Validated).decode(b'{"value": {}}', JSON)
    with pytest.raises(TypeError, match="subscriptable"):
        codec(Validated).decode(b'{"value": 1}', JSON)


def test_what_fails_over_a_body_without_any_code_of_the_service_is_the_messages_fault() -> None:
    bound = codec(int)
    bound._own._read = {}.__getitem__  # pydantic's code in C has no frame either
    with pytest.raises(DecodeError, match="KeyError: b'1'"):
        bound.decode(b"1", JSON)


@pytest.mark.parametrize(
    ("schema", "payload", "nothing"),
    [(None, None, True), (int | None, None, True), (int | None, 0, False), (str, "null", False), (Any, [None], False)],
)
def test_none_alone_says_nothing(schema: Any, payload: Any, nothing: bool) -> None:
    bound = codec(schema)
    body, validated = bound.write(payload)
    assert bound.writes_nothing(validated, body) is nothing


def test_a_body_that_is_not_there_is_the_messages_fault_whatever_a_validator_makes_of_it() -> None:
    class Whole(BaseModel):
        @model_validator(mode="before")
        @classmethod
        def check(cls, value: Any) -> Any:
            return value["inside"]

    with pytest.raises(SchemaError, match="tombstone") as caught:
        codec(Whole).absent()
    assert "not subscriptable" in str(caught.value)


class WithJson(BaseModel):
    inner: Json[dict[str, int]]


def test_json_inside_of_a_field_is_that_fields_fault() -> None:
    with pytest.raises(SchemaError) as caught:
        codec(WithJson).decode(b'{"inner": "{"}', JSON)
    assert paths(caught.value) == ["inner"]


def test_many_wrong_fields_are_told_in_part() -> None:
    with pytest.raises(SchemaError) as caught:
        codec(list[int]).decode(json.dumps(["x"] * 1000).encode(), JSON)
    assert len(caught.value.fields) == 20


class Reversed:
    content_type = "application/reversed"

    def bind(self, schema: object) -> "Reversed":
        return self

    def encode(self, payload: Any) -> bytes:
        return bytes(reversed(payload))

    def decode(self, body: bytes) -> Any:
        if not body:
            raise ZeroDivisionError
        return bytes(reversed(body))


def test_a_registered_codec_serves_its_content_type_and_its_failures_are_the_messages() -> None:
    codecs = Codecs([Reversed()])
    bound = codec(None, "application/reversed", codecs)
    assert bound.encode(b"abc") == b"cba"
    assert bound.decode(b"cba", None) == b"abc"
    assert codec(None, None, codecs).decode(b"cba", "application/reversed") == b"abc"
    with pytest.raises(DecodeError, match="ZeroDivisionError"):
        bound.decode(b"", None)


def test_a_topic_that_nobody_can_write_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="application/avro"):
        codec(Order, "application/avro")
    with pytest.raises(ConfigurationError, match="Order"):
        codec(Order, RAW)
    with pytest.raises(ConfigurationError, match="Handle"):
        JSONBinding(Handle)


class Waiting(BaseModel):
    item: "DefinedNever"  # type: ignore[name-defined] # noqa: F821 # that is the point


class Old(v1.BaseModel):
    a: int


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (list["Elsewhere"], "name 'Elsewhere' is not defined: import it"),  # type: ignore[name-defined] # noqa: F821
        ("Elsewhere", "'Elsewhere' is not defined"),
        (Waiting, "'DefinedNever' is not defined"),
        (dict[str, Waiting], "'DefinedNever' is not defined"),
        (Old, "V1 models"),
        (list[Old], "V1 models"),
    ],
    ids=["list of a name", "name", "field", "inside", "pydantic.v1", "inside pydantic.v1"],
)
def test_a_schema_that_is_not_ready_is_a_configuration_error_by_name(schema: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        codec(schema)


class Late(BaseModel):
    item: "Item"
    other: "Later"


class Later(BaseModel):
    id: int


def test_a_schema_whose_parts_were_defined_meanwhile_is_ready() -> None:
    late = codec(Late).decode(b'{"item": {"name": "x", "price": "1"}, "other": {"id": 2}}', None)
    assert late.other == Later(id=2)


def raising(error: BaseException) -> Any:
    def check(_: Any) -> Any:
        raise error

    return Annotated[int, AfterValidator(check)]


@pytest.mark.parametrize(
    "error",
    [
        ImportError("no module"), NameError("x"), MemoryError(), SystemError(),
        PydanticUserError("not fully defined", code="class-not-fully-defined"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_schema_that_fails_whatever_it_reads_is_the_services_fault(error: BaseException) -> None:
    with pytest.raises(ServiceError, match=type(error).__name__):
        codec(raising(error)).decode(b"1", JSON)


@pytest.mark.parametrize(
    "error",
    [
        OSError("the database"), RuntimeError("x"), TimeoutError(), KeyError("a table of ours"), TypeError("ours"),
        AttributeError("a rename"), ZeroDivisionError(),
    ],
    ids=repr,
)  # fmt: skip
def test_what_a_validator_raises_that_is_not_about_the_body_is_raised_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        codec(raising(error)).decode(b"1", JSON)
    assert caught.value is error


def test_a_codec_that_is_broken_itself_is_the_services_fault() -> None:
    class Broken(Reversed):
        def bind(self, schema: object) -> "Broken":
            return self

        def decode(self, body: bytes) -> Any:
            raise ImportError("avro")

    with pytest.raises(ServiceError, match="avro"):
        codec(None, "application/reversed", Codecs([Broken()])).decode(b"", None)


def test_a_byte_order_mark_is_not_part_of_the_json() -> None:
    assert codec(Order).decode(b'\xef\xbb\xbf{"customer": "ann"}', JSON) == Order(customer="ann")
    assert codec(bytes).decode(b"\xef\xbb\xbf", JSON) == b"\xef\xbb\xbf", "raw bodies stay as they are"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-16; send UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16; send UTF-8"),
        ('["a"]'.encode("utf-16-be"), "UTF-16; send UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "UTF-32; send UTF-8"),
        (b"\0\0\xfe\xff" + '{"a": 1}'.encode("utf-32-be"), "UTF-32; send UTF-8"),
        (gzip.compress(b"{}", mtime=0), "gzip; say so by content-encoding"),
        (zlib.compress(b"{}"), "zlib"),
        (b"\x28\xb5\x2f\xfd...", "zstd"),
        (pickle.dumps({}), "a pickle"),
        (b"\x00\x00\x00\x00*\x0eada", "schema registry"),
        (b"<order/>", "XML"),
    ],
)
def test_a_body_that_is_no_json_is_told_by_its_looks(body: bytes, named: str) -> None:
    with pytest.raises(DecodeError, match=f"not JSON .*looks like.*{named}"):
        codec(Order).decode(body, JSON)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress), ("GZIP", gzip.compress), ("x-gzip", gzip.compress), ("application/x-gzip", zlib.compress), ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]), ("gzip", lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:])),
        ("identity", bytes), ("utf-8", bytes), ("", bytes), (None, bytes), ("binary", bytes),
    ],
)  # fmt: skip
def test_a_packed_body_is_unpacked(encoding: str | None, pack: Any) -> None:
    assert codec(Order).decode(pack(b'{"customer": "ann"}'), JSON, encoding) == Order(customer="ann")
    assert codec(bytes).decode(pack(b"{}"), None, encoding) == pack(b"{}"), "raw bodies stay as they are"


@pytest.mark.parametrize(
    ("body", "encoding", "told"),
    [
        (b"{}", "zstd", "'zstd' cannot be read; send gzip, deflate, or none"),
        (b"{}", "br", "'br'"),
        (b"{}", "gzip, br", "'br'"),
        (b"{}", "gzip", "not in gzip"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "gzip", "ends too early"),
        (b"", "gzip", "not JSON"),
    ],
)
def test_a_content_encoding_that_cannot_be_undone_is_named(body: bytes, encoding: str, told: str) -> None:
    with pytest.raises(DecodeError, match=told) as caught:
        codec(Order).decode(body, JSON, encoding)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body_is_unpacked_no_further_than_it_may_be(encoding: str, pack: Any) -> None:
    bomb = pack(b" " * 1_000_000)
    with pytest.raises(MessageTooLarge, match="1,001 bytes"):
        codec(Order).decode(bomb, JSON, encoding, 1_000)
    with pytest.raises(MessageTooLarge):
        codec(Order).decode(pack(b" " * 600) * 2, JSON, "gzip", 1_000) if encoding == "gzip" else codec(Order).decode(
            pack(b" " * 1_001), JSON, encoding, 1_000
        )


class Handle:
    """Nothing that pydantic knows."""
