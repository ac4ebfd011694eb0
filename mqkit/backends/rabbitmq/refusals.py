"""What RabbitMQ means when it closes a channel over something published: whose fault, and how to say it. Pure."""

import re
from dataclasses import dataclass

from mqkit.backends.rabbitmq.places import Place
from mqkit.errors import AuthenticationFailed, MessageTooLarge, MqkitError, Unroutable
from mqkit.message import Outgoing

REFUSED, NOT_FOUND, PRECONDITION = 403, 404, 406
EXCHANGE = re.compile(r"exchange '(?P<exchange>.*)' in vhost")
SIZE = re.compile(r"message size (?P<size>\d+) (?:is )?larger than (?:configured )?max size (?P<limit>\d+)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a channel was closed."""

    code: int
    text: str
    exchange: str | None = None
    size: int | None = None
    limit: int | None = None

    def of(self, outgoing: Outgoing, place: Place) -> MqkitError | None:
        """What to say of `outgoing`, if it is (like) the one that was refused; else None."""
        if self.exchange is not None and place.exchange == self.exchange:
            if self.code == NOT_FOUND:
                return no_exchange(self.exchange)
            return AuthenticationFailed(f"RabbitMQ does not let this user publish: {self.text}")
        if self.limit is not None and len(outgoing.message.body) > self.limit:
            return MessageTooLarge(
                len(outgoing.message.body), self.limit, "RabbitMQ (max_message_size in rabbitmq.conf)"
            )
        return None


def publishing(code: int, text: str) -> Refusal:
    """What `code` and `text` of a closed channel say."""
    if code in {REFUSED, NOT_FOUND} and (match := EXCHANGE.search(text)):
        return Refusal(code, text, exchange=match["exchange"])
    if code == PRECONDITION and (match := SIZE.search(text)):
        return Refusal(code, text, size=int(match["size"]), limit=int(match["limit"]))
    return Refusal(code, text)


def no_exchange(exchange: str) -> Unroutable:
    """Nobody has declared it."""
    return Unroutable(
        f"there is no exchange {exchange!r}: declare the topic (start its subscriber, or mqkit topology apply)"
    )
