"""Payloads that would not read back as they were are refused, with the field and the way out; all others are sent."""

import dataclasses
import datetime as dt
import enum
import math
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    StringConstraints,
    TypeAdapter,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
)
from typing_extensions import TypedDict

from mqkit.codec import Codecs, TopicCodec
from mqkit.errors import ConfigurationError, EncodeError, SchemaError
from mqkit.schemas import certain
from mqkit.topic import Topic

T = TypeVar("T")
MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def codec(schema: Any, **options: Any) -> TopicCodec[Any]:
    return Codecs().bind(Topic("t", schema, **options))


def named(value: object) -> str:
    """A test's id, the same in each process."""
    return value.__name__ if isinstance(value, type) else type(value).__name__


class Event(BaseModel):
    id: int


class OrderPlaced(Event):
    total: str


class Renamed(Event):
    """Adds nothing."""


class Batch(BaseModel):
    type: str = "batch"
    default: int = 0
    first: Event
    more: dict[str, list[Event]] = {}


class Login(BaseModel):
    user: str
    password: SecretStr


class Revealed(BaseModel):
    password: SecretStr
    raw: SecretBytes = SecretBytes(b"")

    @field_serializer("password")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()

    @field_serializer("raw")
    def reveal_raw(self, value: SecretBytes) -> str:
        return value.get_secret_value().decode()


class Optional(BaseModel):
    token: SecretStr | None = None
    tokens: list[SecretStr] = []


class Picture(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64")
    data: bytes


class Photo(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Invoice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: Decimal

    @computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def total(self) -> Decimal:
        return self.net * 2


class Receipt(BaseModel):
    model_config = ConfigDict(extra="allow")
    net: Decimal

    @computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @property
    def total(self) -> Decimal:
        return self.net * 2


class TwoNames(BaseModel):
    user: str = Field(validation_alias="userId", serialization_alias="user_id")


class Choice(BaseModel):
    user: str = Field(validation_alias=AliasChoices("user_id", "userId"), serialization_alias="user_id")


class LostName(BaseModel):
    user: str = Field(default="nobody", validation_alias="userId", serialization_alias="user_id")


class Hidden(BaseModel):
    user: str
    token: str = Field(exclude=True)


class HiddenDefault(BaseModel):
    user: str
    made: float = Field(default_factory=time.time, exclude=True)


class German(BaseModel):
    when: dt.datetime

    @field_serializer("when")
    def german(self, value: dt.datetime) -> str:
        return value.strftime("%d.%m.%Y %H:%M")


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def cents(self, value: float) -> float:
        return round(value, 2)


class Cents(BaseModel):
    price: int

    @field_validator("price")
    @classmethod
    def in_cents(cls, value: int) -> int:
        return value * 100


class Inner(BaseModel):
    inner: Json[dict[str, int]]


class Colour(enum.Enum):
    RED = "red"


class Strange(enum.Enum):
    PAIR = (1, 2)


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class SameId(BaseModel):
    """Equal to whatever has its id."""

    id: int
    note: Annotated[str, PlainSerializer(lambda _: "gone")] = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameId) and self.id == other.id

    def __hash__(self) -> int:
        return self.id


class Anything(BaseModel):
    data: Any
    when: str | dt.datetime = ""


class Summary(BaseModel):
    id: int

    @model_serializer
    def short(self) -> dict[str, int]:
        return {"number": self.id}


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Private(BaseModel):
    id: int
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class Forms(BaseModel):
    n: float = math.nan
    model_config = ConfigDict(ser_json_inf_nan="strings", ser_json_timedelta="float")
    long: dt.timedelta = dt.timedelta(microseconds=1)
    url: AnyUrl = AnyUrl("https://example.org/a?b=c")
    path: Path = Path("/tmp/x")
    seq: Sequence[int] = (1, 2)
    fixed: tuple[int, str] = (1, "a")
    kinds: frozenset[Colour] = frozenset({Colour.RED})
    row: deque[int] = deque([1])
    by_number: dict[int, str] = {1: "a"}
    by_id: Mapping[uuid.UUID, Decimal] = {uuid.UUID(int=5): Decimal("1.10")}
    either: Literal["a", 1] = 1
    moment: dt.datetime = MOMENT.astimezone(dt.timezone(dt.timedelta(hours=2)))
    clock: dt.time = dt.time(1, 2, 3)


class Money:
    """A type of one's own, that is equal to nothing but itself."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, Money) else Money(int(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda money: money.cents),
        )


class Priced(BaseModel):
    money: Money


@dataclasses.dataclass
class Point:
    x: int
    y: float | None = None
    made: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Point3(Point):
    z: int = 0


class Row(TypedDict, total=False):
    id: int
    when: dt.datetime
    event: Event


BERLIN = ZoneInfo("Europe/Berlin")
REPEATED = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
"""Half past two comes twice in that night, and Python calls it unequal to the same moment in any other zone."""
OLD = dt.datetime(1890, 1, 1, tzinfo=BERLIN)
"""When clocks went by the sun: 53 minutes and 28 seconds ahead, of which ISO 8601 writes the minutes."""


class Timed(BaseModel):
    when: dt.datetime


class TimedPhoto(Timed):
    data: bytes = b""


class Daily(BaseModel):
    at: dt.time


class Lower(BaseModel):
    text: Annotated[str, StringConstraints(to_lower=True)]


class Bare(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    text: str = ""


class Deep(BaseModel):
    user: int = Field(validation_alias=AliasPath("users", 0))


class DeepOrNot(BaseModel):
    user: int = Field(validation_alias=AliasChoices(AliasPath("users", 0), "user"))


class Far(BaseModel):
    user: int = Field(0, validation_alias=AliasPath("users", 0))


class InnerOrNone(BaseModel):
    inner: Json[Any] | None = None


Pet = Annotated[Cat | Dog, Field()]


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (Event, Renamed(id=1)),
        (Event, {"id": 1}),
        (Batch, Batch(first=Event(id=1), more={"a": [Event(id=2)]})),
        (Revealed, Revealed(password=SecretStr("hunter2"), raw=SecretBytes(b"x"))),
        (Optional, Optional()),
        (Photo, Photo(data=b"\xff\x00")),
        (Receipt, Receipt(net=Decimal("1.10"), note="x")),
        (Choice, Choice(user_id="ada")),
        (LostName, LostName()),
        (HiddenDefault, HiddenDefault(user="ada")),
        (Rounded, Rounded(price=1.25)),
        (Page[Event], Page[Event](items=[Event(id=1)])),
        (Tree, Tree(name="a", children=[Tree(name="b")])),
        (Private, Private(id=1)),
        (Forms, Forms()),
        (Priced, Priced(money=Money(5))),
        (Point, Point(1, 2.5)),
        (list[Point], [Point(1)]),
        (Row, {"id": 1, "when": MOMENT}),
        (SameId, SameId(id=1, note="gone")),
        (RootModel[list[int]], RootModel[list[int]]([1, 2])),
        (Annotated[OrderPlaced | Event, Field(union_mode="left_to_right")], OrderPlaced(id=1, total="9")),
        (OrderPlaced | Event, OrderPlaced(id=1, total="9")),
        (Anything, Anything(data={"when": MOMENT, "more": (1, {2}), 5: Colour.RED, "event": OrderPlaced(id=1, total="9")})),
        (None, {"when": MOMENT, "of": [Decimal("1.10"), uuid.UUID(int=1), b"text"], 1: None}),
        (None, OrderPlaced(id=1, total="9")),
        (None, Point3(1, z=2)),
        (dict[str, Any], {"a": (1, 2), "b": {"c": MOMENT}}),
        (Iterable[int], [1, 2]),
        (Sequence[int], (1, 2)),
        (Colour, Colour.RED),
        (str | uuid.UUID, uuid.UUID(int=1)),
        (float | None, None),
        *((schema, schema(when=when)) for schema in (Timed, TimedPhoto) for when in
          (REPEATED, REPEATED.replace(fold=1), dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN))),
        (DeepOrNot, DeepOrNot(user=1)),
        (Far, Far()),
        (InnerOrNone, InnerOrNone()),
        (Lower, Lower(text="A")),
    ],
    ids=named,
)  # fmt: skip
def test_what_reads_back_is_sent(schema: Any, payload: Any) -> None:
    assert codec(schema).encode(payload)


wrong: dict[str, Any] = {"id": "many"}
missing: dict[str, Any] = {}


class Lists(BaseModel):
    events: list[Event]


@pytest.mark.parametrize(
    ("schema", "payload", "told"),
    [
        (Login, Login(user="ada", password=SecretStr("hunter2")), r"Login.password is a secret, .* field_serializer"),
        (Login, {"user": "ada", "password": "hunter2"}, r"Login.password is a secret"),
        (Optional, Optional(token=SecretStr("x")), r"token is a secret"),
        (Optional, Optional(tokens=[SecretStr("x")]), r"tokens.0: is a secret"),
        (dict[str, SecretBytes], {"a": SecretBytes(b"x")}, "a: is a secret"),
        (None, {"a": SecretStr("x")}, "a: is a secret"),
        (Anything, Anything(data=Login(user="ada", password=SecretStr("x"))), r"data.password: is a secret"),
        (Event, OrderPlaced(id=1, total="9.50"), r"the payload: is OrderPlaced, .* without total: use SerializeAsAny"),
        (Batch, Batch(first=OrderPlaced(id=1, total="9")), r"first: is OrderPlaced"),
        (Batch, Batch(first=Event(id=1), more={"a": [Event(id=1), OrderPlaced(id=1, total="9")]}), r"more.a.1: is OrderPl"),
        (Lists, Lists(events=[OrderPlaced(id=1, total="9")]), r"events.0: is OrderPlaced"),
        (Page[Event], Page[Event](items=[OrderPlaced(id=1, total="9")]), r"items.0: is OrderPlaced"),
        (Event | None, OrderPlaced(id=1, total="9"), "OrderPlaced"),
        (Row, {"event": OrderPlaced(id=1, total="9")}, "event: is OrderPlaced"),
        (Point, Point3(1, z=5), "is Point3, .* without z"),
        (dict[str, Point], {"a": Point3(1, z=5)}, "a: is Point3"),
        (Pet, Dog(name="rex"), "is Dog, and comes back as Cat: use a union with a discriminator"),
        (str | dt.datetime, MOMENT, "is datetime, and comes back as str"),
        (Anything, Anything(data=None, when=MOMENT), "when: is datetime, and comes back as str"),
        (Picture, Picture(data=b"\xff\x00"), r"Picture.data is written in base64 and read in utf8"),
        (Invoice, Invoice(net=Decimal(1)), r"Invoice.total is computed and written, and refused when it is read"),
        (TwoNames, TwoNames(userId="ada"), r"TwoNames.user is written as 'user_id' and read as 'userId'"),
        (LostName, LostName(userId="ada"), r"LostName.user is written as 'user_id'"),
        (Hidden, Hidden(user="ada", token="t"), r"Hidden.token is not written"),
        (HiddenDefault, HiddenDefault(user="ada", made=5.0), r"made: comes back as another float"),
        (German, German(when=MOMENT), r"when: .*datetime"),
        (German, {"when": MOMENT}, r"when: .*datetime"),
        (Rounded, Rounded(price=1.239), r"price: comes back as another float"),
        (Cents, Cents(price=1), r"price: comes back as another int"),
        (Inner, {"inner": '{"a": 1}'}, r"Inner.inner is Json, written as what it holds and read as text"),
        (Inner, Inner(inner='{"a": 1}'), r"Inner.inner is Json"),
        (InnerOrNone, InnerOrNone(inner="1"), r"InnerOrNone.inner is Json"),
        (Deep, Deep(users=[1]), r"Deep.user is written as 'user' and read as 'users.0'"),
        (Far, Far(users=[1]), r"Far.user is written as 'user' and read as 'users.0'"),
        (Timed, Timed(when=OLD), "when: comes back as another datetime"),
        (list[Timed], [Timed(when=OLD)], "0.when: comes back as another datetime"),
        (TimedPhoto, TimedPhoto(when=OLD), "when: comes back as another datetime"),
        (Daily, Daily(at=OLD.timetz().replace(tzinfo=dt.timezone(dt.timedelta(seconds=90)))), "at: comes back as another time"),
        (Lower, Lower.model_construct(text="A"), "text: comes back as another str"),
        (Bare, Bare.model_construct(text=" a "), "text: comes back as another str"),
        (Summary, Summary(id=1), r"id: Field required"),
        (SameId, SameId(id=1, note="kept"), "note: comes back as another str"),
        (Strange, Strange.PAIR, "."),
        (None, {1: "a", "1": "b"}, "2 entries, of which 1 come back"),
        (None, {"a": Hidden(user="ada", token="t")}, "a.token: is not written"),
    ],
    ids=named,
)  # fmt: skip
def test_what_would_be_lost_is_refused_by_name_and_never_sent(schema: Any, payload: Any, told: str) -> None:
    with pytest.raises(EncodeError, match=told) as caught:
        codec(schema).encode(payload)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (Event, OrderPlaced(id=1, total="9")),
        (Login, Login(user="ada", password=SecretStr("x"))),
        (Hidden, Hidden(user="ada", token="t")),
        (Invoice, Invoice(net=Decimal(1))),
        (German, German(when=MOMENT)),
        (TwoNames, TwoNames(userId="ada")),
    ],
    ids=named,
)
def test_a_topic_that_says_so_publishes_what_the_schema_writes(schema: Any, payload: Any) -> None:
    with pytest.raises(EncodeError, match=r"Topic\(\.\.\., round_trip=False\)"):
        codec(schema).encode(payload)
    assert codec(schema, round_trip=False).encode(payload)


def test_ways_out_for_subclasses() -> None:
    placed = OrderPlaced(id=1, total="9")
    assert codec(SerializeAsAny[Event]).encode(placed) == b'{"id":1,"total":"9"}'
    assert codec(OrderPlaced | Event).encode(placed) == b'{"id":1,"total":"9"}'
    assert codec(list[SerializeAsAny[Event]]).encode([placed]) == b'[{"id":1,"total":"9"}]'


@pytest.mark.parametrize(
    "make",
    [lambda: Event.model_construct(**wrong), lambda: {"id": "many"}, lambda: Batch.model_construct(first=Event.model_construct(**missing))],
)  # fmt: skip
def test_a_payload_that_is_wrong_itself_is_still_told_as_such(make: Any) -> None:
    payload = make()
    with pytest.raises(SchemaError):
        codec(Batch if isinstance(payload, Batch) else Event).encode(payload)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: uuid.UUID
    amount: Decimal
    when: list[dt.date] = []


def test_a_strict_schema_takes_what_came_as_json() -> None:
    document = {"id": str(uuid.UUID(int=1)), "amount": "1.50", "when": ["2024-01-02"]}
    assert codec(Strict).write(document)[1] == Strict(
        id=uuid.UUID(int=1), amount=Decimal("1.50"), when=[dt.date(2024, 1, 2)]
    )
    for wrong in ({**document, "amount": True}, {**document, "id": uuid.UUID(int=1), "amount": "1"}):
        with pytest.raises(SchemaError):
            codec(Strict).encode(wrong)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Login, "Login.password is a secret"),
        (list[Login], "Login.password is a secret"),
        (Invoice, "Invoice.total is computed"),
        (TwoNames, "TwoNames.user is written as"),
        (Hidden, "Hidden.token is not written"),
        (Picture, "Picture.data is written in base64"),
        (Inner, "Inner.inner is Json"),
        (Deep, r"Deep.user is written as 'user' and read as 'users.0'"),
    ],
)
def test_a_schema_that_never_reads_back_is_told_before_there_is_a_payload(schema: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        codec(schema).require_writable()
    codec(schema, round_trip=False).require_writable()


@pytest.mark.parametrize(
    "schema", [Optional, LostName, HiddenDefault, Event, Batch, Revealed, Photo, Receipt, Choice, None, bytes]
)
def test_a_schema_that_may_read_back_is_not(schema: Any) -> None:
    codec(schema).require_writable()


class Plain(BaseModel):
    text: str
    number: int
    ratio: float
    amount: Decimal = Field(max_digits=20, decimal_places=2)
    when: dt.datetime | None = None
    id: uuid.UUID = uuid.UUID(int=0)


@given(
    st.builds(
        Plain,
        text=st.text(st.characters(exclude_categories=["Cs"])),
        number=st.integers(-(10**30), 10**30),
        ratio=st.floats(allow_nan=False, allow_infinity=False),
        amount=st.decimals(-(10**9), 10**9, places=2),
        when=st.none() | st.datetimes(timezones=st.just(dt.UTC)),
        id=st.uuids(),
    )
)
def test_of_a_plain_schema_nothing_need_be_compared(payload: Plain) -> None:
    bound = codec(Plain)
    assert certain(bound._own.adapter.core_schema)  # type: ignore[attr-defined] # what the next line rests on
    assert bound.decode(bound.encode(payload), None) == payload


@pytest.mark.parametrize(
    "schema",
    [
        Login,
        Picture,
        Invoice,
        TwoNames,
        Hidden,
        German,
        Cents,
        Anything,
        Summary,
        SameId,
        Receipt,
        Pet,
        None,
        Point,
        Row,
    ],
    ids=named,
)
def test_a_schema_that_might_lose_something_is_compared(schema: Any) -> None:
    assert certain(TypeAdapter(Any if schema is None else schema).core_schema) is None


class Plains(BaseModel):
    first: Plain
    more: list[Plain] = []
    named: dict[str, list[Plain]] = {}
    type: Plain | None = None


class Richer(Plain):
    extra: int = 0


class RicherTree(Tree):
    extra: int = 0


PLAIN = Plain(text="a", number=1, ratio=0.5, amount=Decimal(1))
RICHER = Richer(**PLAIN.model_dump())


@pytest.mark.parametrize(
    ("schema", "payload", "expected"),
    [
        (Plain, PLAIN, True),
        (Plain, RICHER, False),
        (list[int], [1], True),
        (Plains, Plains(first=PLAIN, more=[PLAIN], named={"a": [PLAIN]}, type=PLAIN), True),
        (Plains, Plains(first=PLAIN), True),
        (Plains, Plains(first=RICHER), False),
        (Plains, Plains(first=PLAIN, more=[PLAIN, RICHER]), False),
        (Plains, Plains(first=PLAIN, named={"a": [PLAIN], "b": [RICHER]}), False),
        (Plains, Plains(first=PLAIN, type=RICHER), False),
        (Tree, Tree(name="a", children=[Tree(name="b")]), True),
        (Tree, Tree(name="a", children=[Tree(name="b", children=[RicherTree(name="c")])]), False),
        (list[Tree], [Tree(name="a", children=[RicherTree(name="b")])], False),
    ],
)
def test_only_records_of_the_schemas_own_classes_need_no_comparison(schema: Any, payload: Any, expected: bool) -> None:
    check = certain(TypeAdapter(schema).core_schema)
    assert check is not None
    assert check(payload) is expected


def strip(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


class Stripped(BaseModel):
    name: Annotated[str, BeforeValidator(strip)]


def test_what_a_validator_changes_the_same_way_again_is_no_loss() -> None:
    assert codec(Stripped).write({"name": "  ada "}) == (b'{"name":"ada"}', Stripped(name="ada"))


def test_what_cannot_be_written_is_told_in_one_line_without_its_value() -> None:
    with pytest.raises(EncodeError, match="cannot be written as JSON") as caught:
        codec(Tree).encode(Tree.model_construct(name="a", children=(Tree(name="hunter2"),)))  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "field_name='children', input_type=tuple" in str(caught.value)
