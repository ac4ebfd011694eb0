"""What untyped callers give by mistake is told in words, and nothing is sent."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from mqkit import App, ConfigurationError, EncodeError, SchemaError, Topic
from mqkit.arguments import in_batch, many, name_of, topic_of
from mqkit.durations import seconds


class Order(BaseModel):
    id: int = 1


@pytest.mark.parametrize(
    ("given", "shown"), [("orders", "the text 'orders'"), (None, "NoneType"), (Order, "ModelMetaclass"), ([], "list")]
)
def test_what_is_no_topic_is_told(given: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=f"publish takes a Topic, not {shown}"):
        topic_of(given, "publish")


def test_a_topic_may_be_named_where_its_name_is_enough() -> None:
    assert name_of("orders") == name_of(Topic("orders")) == "orders"
    with pytest.raises(TypeError, match="not int"):
        name_of(5)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize("given", [5, None, {"a": 1}, "abc", b"abc", Order()], ids=repr)
def test_one_payload_is_not_many(given: Any) -> None:
    with pytest.raises(TypeError, match="publish_many takes many payloads, not one"):
        many(given)


@pytest.mark.parametrize("given", [[], (1, 2), {1}, iter([1]), range(3)], ids=lambda given: type(given).__name__)
def test_many_are_many(given: Any) -> None:
    assert many(given) is given


def test_which_of_many_is_wrong_is_told() -> None:
    assert str(in_batch(3, EncodeError("no"))) == "payload 3: no"
    wrong = in_batch(3, SchemaError("Order", []))
    assert isinstance(wrong, SchemaError)


@pytest.mark.parametrize("value", ["5 s", None, b"5", [5], True], ids=repr)
def test_a_length_of_time_is_a_number_or_a_timedelta(value: Any) -> None:
    with pytest.raises(TypeError, match="timeout is a number of seconds or a timedelta"):
        seconds(value, option="timeout")
    assert seconds(timedelta(seconds=2), option="timeout") == seconds(2, option="timeout") == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": 5}, "topic's name is text, not int"), ({"name": "t", "groups": "billing"}, r"groups=\['billing'\]"),
        ({"name": "t", "groups": [5]}, "group's name is text, not int"), ({"name": "t", "key": 5}, "name of a field or a function"),
        ({"name": "t", "groups": 5}, "groups is a list of names"), ({"name": "t", "content_type": 5}, "content type is text"),
        ({"name": "t", "options": 5}, "options is a list"), ({"name": "t", "options": "abc"}, "options is a list"),
    ],
)  # fmt: skip
def test_a_topic_that_makes_no_sense_is_a_configuration_error(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Topic(**arguments)


def test_subscribing_needs_topics() -> None:
    app: Any = App("memory://")
    with pytest.raises(ConfigurationError, match="subscribe takes a Topic, not the text 'orders'"):
        app.subscribe("orders", group="g")
    with pytest.raises(ConfigurationError, match=r"subscribe\(publish=\.\.\.\) takes a Topic"):
        app.subscribe(Topic("orders"), group="g", publish="results")


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"retry": 3}, r"retry is a policy, as in Retry\(attempts=3\), not 3"),
    ({"retry": False}, "retry is a policy"),
    ({"concurrency": "10"}, "concurrency is a whole number, not str"),
    ({"concurrency": 2.5}, "concurrency is a whole number, not float"),
    ({"prefetch": "1"}, "prefetch is a whole number"),
    ({"prefetch_bytes": None}, "prefetch_bytes is a whole number"),
    ({"lost_workers": True}, "lost_workers is a whole number"),
    ({"middleware": print}, "middleware is a list of them"),
    ({"middleware": "ab"}, "middleware is a list of them"),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS, ids=[str(row[0]) for row in OPTIONS])
def test_subscribing_tells_which_option_is_wrong(options: dict[str, Any], told: str) -> None:
    app: Any = App("memory://")
    with pytest.raises(ConfigurationError, match=told):
        app.subscribe(Topic("orders"), group="g", **options)


def test_an_app_takes_lists() -> None:
    for option in ("middleware", "listeners", "plugins"):
        with pytest.raises(TypeError, match=f"{option} is a list of them"):
            App("memory://", **{option: print})  # type: ignore[arg-type]


PUBLISHING: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"topic": "orders"}, TypeError, "not the text 'orders'"),
    ({"topic": ["orders"]}, TypeError, "not list"),
    ({"key": 42}, EncodeError, "key is text, not int"),
    ({"key": b"k"}, EncodeError, "key is text, not bytes"),
    ({"id": UUID(int=1)}, EncodeError, "id is text, not UUID"),
    ({"id": 0}, EncodeError, "id is text, not int"),
    ({"id": ""}, EncodeError, "0 bytes"),
    ({"headers": {"n": 1}}, EncodeError, "'n'.*not int"),
    ({"headers": [("a", "b")]}, EncodeError, "mapping"),
    ({"timeout": "5 s"}, TypeError, "timeout is a number"),
    ({"delay": "5 s"}, TypeError, "delay is a number"),
]


@pytest.mark.parametrize(("arguments", "kind", "told"), PUBLISHING, ids=[str(row[0]) for row in PUBLISHING])
def test_publishing_tells_which_argument_is_wrong_before_anything_is_sent(
    arguments: dict[str, Any], kind: type[Exception], told: str
) -> None:
    topic = Topic("orders", Order, groups=["g"])
    with App("memory://") as app, app.consumer(topic, group="g") as consumer:
        publish: Any = app.publish
        with pytest.raises(kind, match=told):
            publish(**{"topic": topic, "payload": Order(), **arguments})
        assert not consumer.fetch(1, 0)


class Region(BaseModel):
    name: str
    id: UUID


def test_the_key_is_made_of_what_was_validated() -> None:
    given: list[Any] = [Region(name="eu", id=UUID(int=10)), {"name": "eu", "id": str(UUID(int=10)).upper()}]
    keys: tuple[Any, ...] = ("id", lambda region: f"{region.name}/{region.id}")
    with App("memory://") as app:
        for n, key in enumerate(keys):
            topic: Topic[Any] = Topic(f"regions-{n}", Region, key=key, groups=["g"])
            app.publish_many(topic, given)
            with app.consumer(topic, group="g") as consumer:
                found = consumer.fetch(2, 5)
            assert len({each.message.key for each in found}) == 1
