"""Lines of JSON and what is wrong with them."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from mqkit import Topic
from mqkit.cli.payloads import Line, Reader, lines_of
from mqkit.codec import Codecs
from mqkit.errors import ConfigurationError


class Purchase(BaseModel):
    customer: str
    cds: int


def test_empty_lines_are_left_out_and_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\r\n\n  \n 2\n3')
    assert lines_of(file) == [Line(1, b'{"a": 1}'), Line(4, b"2"), Line(5, b"3")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope cannot be read: No such file"):
        lines_of(tmp_path / "nope")


@pytest.mark.parametrize(
    ("topic", "text", "why"),
    [
        (Topic("t", Purchase), b"{", "line 7: the body is not JSON"),
        (Topic("t", Purchase), b'{"customer": "a"}', "line 7: does not match Purchase: cds: Field required"),
        (Topic("t", Purchase, key="customer"), b'{"customer": "a", "cds": 1}', None),
        (Topic("t", key="customer"), b'{"cds": 1}', "line 7: no key"),
        (Topic("t", key="customer"), b"[1]", "line 7: no key"),
        (Topic("t"), b"\xff", "line 7: the body is not JSON"),
        (Topic("t"), b'{"any": [1, null]}', None),
        (Topic("t", bytes), b"not JSON at all", None),
    ],
)
def test_a_line_is_read_as_its_receivers_would(topic: Topic[object], text: bytes, why: str | None) -> None:
    wrong = Reader(topic, Codecs()).wrong([Line(7, text)])
    assert [str(w).startswith(why or "") for w in wrong] == [True] * (why is not None)


def test_a_payload_that_was_an_argument_has_no_number() -> None:
    assert Line(0, b"").where == "the payload"
