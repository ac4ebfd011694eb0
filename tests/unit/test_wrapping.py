"""Wrapping: nothing of a message is lost inside of its own body, and nobody else's body is taken for one."""

import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.message import Delivery, WireMessage
from mqkit.wrapping import CONTENT_TYPE, WRAPPED, Compression, unwrapped, wrap

TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates, too
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = TEXT.filter(lambda name: not name.startswith("mqkit-"))
MESSAGES = st.builds(
    WireMessage,
    st.binary(),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.none() | st.binary(max_size=300),
    st.none() | TEXT,
    st.none() | TEXT,
    st.dictionaries(TEXT, VALUES, max_size=2),
)


def delivery(message: WireMessage, *, returned: bool = True) -> Delivery:
    return Delivery(message, 1, "orders", "billing", returned=returned)


@given(MESSAGES, st.sampled_from(["zlib", "xz"]))
def test_what_was_wrapped_is_the_same_again(message: WireMessage, compression: Compression) -> None:
    assert unwrapped(delivery(wrap(message, compression))).message == message


def test_bookkeeping_and_id_stay_outside_and_all_else_goes_in() -> None:
    headers = {"ce_id": "7", "x": "y" * 1000, "mqkit-reason": "rejected"}
    wrapped = wrap(WireMessage(b"body", headers, b"key", "text/plain", "7", {"priority": 1}), "zlib")
    assert wrapped.headers == {"ce_id": "7", "mqkit-reason": "rejected", WRAPPED: "zlib"}
    assert (wrapped.key, wrapped.content_type, wrapped.id, wrapped.properties) == (b"key", CONTENT_TYPE, "7", {})
    head, _, body = zlib.decompress(wrapped.body).partition(b"\n")
    assert body == b"body"
    assert json.loads(head)[0] == ["map", [["ce_id", "7"], ["x", "y" * 1000]]]


def test_headers_of_any_size_leave_little_outside() -> None:
    bomb: dict[str, Any] = {"h": "x" * 200_000, "ce_id": "i" * 100_000, "when": datetime.now(UTC), "how": Decimal(1)}
    wrapped = wrap(WireMessage(b"", bomb, b"k" * 70_000), "zlib")
    assert sum(len(str(value)) for value in wrapped.headers.values()) < 100
    assert wrapped.key is None
    assert unwrapped(delivery(wrapped)).message.headers == bomb


@pytest.mark.parametrize(
    "body",
    [b"", b"no", zlib.compress(b""), zlib.compress(b"[]\n"), zlib.compress(b'[["no","x"],1,1,1,1]\n'), b"\xfd7zXZ"],
)
@pytest.mark.parametrize("compression", ["zlib", "xz", "zstd"])
def test_what_was_not_wrapped_is_left_as_it_is(body: bytes, compression: str) -> None:
    made_up = delivery(WireMessage(body, {WRAPPED: compression}))
    assert unwrapped(made_up) is made_up


def test_a_publisher_cannot_have_its_message_unwrapped() -> None:
    wrapped = delivery(wrap(WireMessage(b"body"), "zlib"), returned=False)
    assert unwrapped(wrapped) is wrapped
    assert unwrapped(replace(wrapped, returned=True)).message.body == b"body"
