"""What a body is, by its labels and by its looks: media types, content encodings, byte order marks. Pure.

What these bytes mean is the codec's; here they are only unpacked, within bounds, and named for people.
"""

import re
import zlib
from typing import Final

from mqkit.errors import DecodeError, MessageTooLarge

RAW: Final = "application/octet-stream"
"""The content type of bytes as they are."""
JSON_NAMES: Final = frozenset(("text/json", "text/x-json", "application/x-json", "application/javascript+json"))
"""What JSON was called before it had a name of its own (RFC 8259), by clients that still do."""
QUOTES: Final = re.compile(r"[\s\"']")
CHARSETS: Final = frozenset(("", "utf-8", "utf8", "utf-8-sig", "us-ascii", "ascii"))
"""Names of what is UTF-8, or a part of it."""
MARK: Final = b"\xef\xbb\xbf"
"""UTF-8's byte order mark: a reader of JSON may ignore it (RFC 8259, 8.1)."""
LARGEST: Final = 64 * 1024 * 1024
LAYERS: Final = 3
"""Encodings that a body is read through."""
PACKED: Final = frozenset(
    ("br", "zstd", "compress", "lz4", "snappy", "bzip2", "bz2", "xz", "lzma", "base64", "aes128gcm")
)
"""Encodings that cannot be undone here. What else stands in their place is none: `utf-8`, or `binary` of kombu."""
EITHER: Final = zlib.MAX_WBITS | 32
"""zlib's word for gzip and zlib alike: kombu writes the one and names the other."""
LOOKS: Final = (
    (b"\x1f\x8b", "gzip; say so by content-encoding"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x78\x9c", "zlib"),
    (b"\xff\xfe\x00\x00", "UTF-32; send UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32; send UTF-8"),
    (b"\xff\xfe", "UTF-16; send UTF-8"),
    (b"\xfe\xff", "UTF-16; send UTF-8"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    *((form, "UTF-16; send UTF-8") for sign in (b"{", b"[", b'"') for form in (b"\x00" + sign, sign + b"\x00")),
    (b"\x00", "framed for a schema registry (Avro, Protobuf), which takes a codec of its own"),
    (b"<", "XML or HTML"),
)


def media_type(content_type: str) -> tuple[str, str]:
    """(type, charset) of a content type as it really comes: quoted, in capitals, with parameters; JSON by one name."""
    plain, _, parameters = content_type.strip().strip('"').partition(";")
    plain = plain.strip().strip('"').lower()
    charset = QUOTES.sub("", parameters.lower()).partition("charset=")[2].split(";")[0]
    if plain in JSON_NAMES or plain.endswith("+json"):
        plain = "application/json"
    return plain, charset


def without_mark(body: bytes) -> bytes:
    """`body` without a byte order mark."""
    return body.removeprefix(MARK)


def looks_like(body: bytes) -> str:
    """`; it looks like gzip`, if it does: what to add to an error. Empty if it looks like nothing known."""
    return next((f" (it looks like {name})" for start, name in LOOKS if body.startswith(start)), "")


def unpacked(body: bytes, encoding: str, largest: int | None = None) -> bytes:
    """`body` as it was before it was packed by a content encoding.

    Args:
        largest: bytes that it may have then.

    Raises:
        DecodeError: the encoding is none of gzip and deflate, or the body is not in it; the text names it.
        MessageTooLarge: it would be larger than that; not a byte more is unpacked.
    """
    most = LARGEST if largest is None else largest
    for one in reversed(encoding.split(",")[:LAYERS]):
        name = one.strip().strip('"').lower().removeprefix("application/").removeprefix("x-")
        if name in PACKED:
            raise DecodeError(f"bodies with the content encoding {name!r} cannot be read; send gzip, deflate, or none")
        if name in ("gzip", "deflate"):
            body = _inflated(body, name, most)
    return body


def _inflated(body: bytes, name: str, most: int) -> bytes:
    bare = name == "deflate" and body[:1] != b"\x78"  # some leave out the frame that RFC 9110 asks for
    form = -zlib.MAX_WBITS if bare else EITHER
    parts: list[bytes] = []
    size = 0
    while body:  # gzip may have several members
        machine = zlib.decompressobj(form)
        try:
            parts.append(machine.decompress(body, most - size + 1))
        except zlib.error as error:
            raise DecodeError(f"the body is not in {name}, as its content encoding says: {error}") from error
        size += len(parts[-1])
        if size > most:
            raise MessageTooLarge(size, most, "this app (max_body_bytes, when unpacked)")
        if not machine.eof:
            raise DecodeError(f"the body in {name} ends too early")
        body = machine.unused_data if name == "gzip" else b""
    return b"".join(parts)
