"""The AMQP frames that mqkit reads and writes itself: what travels with every message. Pure.

Everything rare (handshake, declaring, consuming) is the client library's. Method numbers are class << 16 | method.
"""

from functools import lru_cache
from struct import Struct

from mqkit.backends.rabbitmq.fields import encode_short

HEAD = Struct(">BHI")
"""Type of the frame, channel, size of the payload."""
END = b"\xce"
METHOD, HEADER, BODY = 1, 2, 3
OVERHEAD = 8
"""Bytes of a frame that are not payload."""
LARGEST = 131_072
"""Bytes of a frame, at most, if neither side says something else: RabbitMQ's default."""

CONNECTION_CLOSE = 0x000A0032
CONNECTION_BLOCKED = 0x000A003C
CONNECTION_UNBLOCKED = 0x000A003D
CHANNEL_CLOSE = 0x00140028
BASIC_PUBLISH = 0x003C0028
BASIC_RETURN = 0x003C0032
BASIC_DELIVER = 0x003C003C
BASIC_CANCEL = 0x003C001E
BASIC_ACK = 0x003C0050
BASIC_NACK = 0x003C0078

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
CONNECTION_CLOSE_OK = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"

UINT16 = Struct(">H")
UINT32 = Struct(">I")
TAGGED = Struct(">QB")
CONTENT = Struct(">HHQ")
SETTLING = Struct(">BHIIQBB")
MANDATORY, MULTIPLE, REQUEUE = 1, 1, 2


def short(data: bytes, at: int) -> tuple[str, int]:
    """The short string at `at`, and where the next field begins."""
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "surrogateescape"), end


def reason(data: bytes, at: int) -> tuple[int, str]:
    """Code and text of a Close or Return whose arguments begin at `at`."""
    return UINT16.unpack_from(data, at)[0], short(data, at + 2)[0]


def content(data: bytes, at: int, channel: int) -> tuple[bytes, bytes, int] | None:
    """Header and body of a message whose header frame begins at `at`, and where they end.

    None if not all is there yet, or not in two frames.
    """
    if len(data) - at < OVERHEAD + CONTENT.size:
        return None
    kind, number, size = HEAD.unpack_from(data, at)
    begin = at + size + OVERHEAD
    if kind != HEADER or number != channel or begin > len(data):
        return None
    header = data[at + 7 : begin - 1]
    length = CONTENT.unpack_from(header)[2]
    if not length:
        return header, b"", begin
    end = begin + length + OVERHEAD
    if end > len(data) or HEAD.unpack_from(data, begin) != (BODY, channel, length):
        return None
    return header, data[begin + 7 : end - 1], end


def publish(channel: int, where: tuple[str, str], header: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """The frames of one message, mandatory; `where` is exchange and routing key.

    Raises:
        EncodeError: one of them is no short string.
    """
    parts = [_publish(channel, where), HEAD.pack(HEADER, channel, len(header)), header, END]
    size = len(body)
    most = frame_max - OVERHEAD
    if size <= most:
        if size:
            parts += (HEAD.pack(BODY, channel, size), body, END)
        return parts
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (HEAD.pack(BODY, channel, len(piece)), piece, END)
    return parts


@lru_cache(1024)
def _publish(channel: int, where: tuple[str, str]) -> bytes:
    exchange, routing_key = encode_short(where[0], "exchange"), encode_short(where[1], "routing key")
    method = b"".join((UINT32.pack(BASIC_PUBLISH), b"\0\0", exchange, routing_key, bytes((MANDATORY,))))
    return HEAD.pack(METHOD, channel, len(method)) + method + END


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Done with `tag`, or with all that are out up to it."""
    return SETTLING.pack(METHOD, channel, 13, BASIC_ACK, tag, MULTIPLE if multiple else 0, 0xCE)


def give_back(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Requeue `tag`, or all that are out up to it. A nack: RabbitMQ 4.3 counts a reject as a failure, not this."""
    return SETTLING.pack(METHOD, channel, 13, BASIC_NACK, tag, REQUEUE | (MULTIPLE if multiple else 0), 0xCE)
