"""What RabbitMQ is asked to have, where messages go in it, and what its refusals mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqkit.backend import Settlement
from mqkit.backends.rabbitmq import refusals
from mqkit.backends.rabbitmq.acknowledgements import acknowledgements
from mqkit.backends.rabbitmq.options import RabbitTopic, parse_url
from mqkit.backends.rabbitmq.places import (
    DELAYED,
    DUE,
    UNCLAIMED,
    Place,
    delay_exchange,
    due_queue,
    entry_exchange,
    kept_exchange,
    nowhere,
    place,
    routing_key,
)
from mqkit.backends.rabbitmq.topology import Binding, Exchange, Queue, difference, differences, wanted
from mqkit.errors import AuthenticationFailed, ConfigurationError, MessageTooLarge, Unroutable
from mqkit.message import Outgoing, WireMessage
from mqkit.topology import STEPS, TopicNeed, Topology

NEED = Topology((TopicNeed("shop.cds", frozenset({"billing"})),))


def test_no_queue_can_drop_a_message() -> None:
    for queue in (*wanted(NEED).queues, *wanted(NEED).later):
        arguments = dict(queue.arguments)
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-overflow"] == "reject-publish", queue.name
        if queue.name.endswith(".notes"):
            assert int(arguments["x-message-ttl"]) > int(arguments["x-consumer-timeout"])
            assert "x-dead-letter-exchange" not in arguments
        elif not queue.name.endswith(".dlq"):
            assert arguments["x-dead-letter-strategy"] == "at-least-once", queue.name
        if "x-message-ttl" not in arguments or queue.name.endswith(".notes"):
            assert arguments["x-delivery-limit"] == 1_000_000_000, queue.name


def test_a_group_has_its_queue_its_dead_letters_its_notes_and_a_queue_for_the_first_step() -> None:
    names = {queue.name for queue in wanted(NEED).queues if queue.name.startswith("shop.cds.")}
    names.remove("shop.cds.delay.due")
    assert names == {f"shop.cds.billing{part}" for part in ("", ".dlq", ".retry.notes", ".retry.500ms")}


def test_the_queues_of_longer_steps_are_made_later_each_as_it_would_be_with_all() -> None:
    found = wanted(NEED)
    assert [queue.name for queue in found.later] == [
        f"shop.cds.billing.retry.{step * 1000:.0f}ms" for step in STEPS[1:]
    ]
    alone = wanted(NEED.waiting({60.0, 2.0}))
    assert alone.queues == tuple(queue for queue in found.later if queue.name.endswith((".2000ms", ".60000ms")))
    assert (alone.exchanges, alone.bindings, alone.later) == ((), (), ())
    first = [queue for queue in found.queues if queue.name.endswith(".500ms") and "retry" in queue.name]
    assert list(wanted(NEED.waiting(STEPS)).queues) == [*first, *found.later]
    sized = Topology((TopicNeed("shop.cds", frozenset({"billing"}), (RabbitTopic(quorum_group_size=5),)),))
    for queue in wanted(sized.waiting(STEPS)).queues:
        assert ("x-quorum-initial-group-size", 5) in queue.arguments


def test_what_waits_goes_back_to_its_group_alone() -> None:
    for queue in (*wanted(NEED).queues, *wanted(NEED).later):
        if ".retry." in queue.name and not queue.name.endswith(".notes"):
            arguments = dict(queue.arguments)
            assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == (
                "",
                "shop.cds.billing",
            )
    into = [
        binding.exchange
        for binding in wanted(NEED).bindings
        if binding.target.endswith("ms") and "retry" in binding.target
    ]
    assert into == [kept_exchange("shop.cds", "billing")]


def test_what_comes_while_a_groups_queue_is_missing_is_kept_for_it() -> None:
    found = wanted(NEED)
    entry, kept = entry_exchange("shop.cds", "billing"), kept_exchange("shop.cds", "billing")
    exchanges = {exchange.name: exchange for exchange in found.exchanges}
    assert exchanges[entry] == Exchange(entry, "fanout", (("alternate-exchange", kept),))
    assert exchanges[kept].type == "fanout"
    assert [b for b in found.bindings if b.exchange in {"shop.cds", entry, kept}] == [
        Binding(kept, "shop.cds.billing.retry.500ms", "queue"),
        Binding(entry, "shop.cds.billing", "queue"),
        Binding("shop.cds", entry, "exchange"),
    ]


def test_what_a_publisher_delays_comes_to_the_topics_exchange() -> None:
    bindings = wanted(NEED).bindings
    assert Binding(DELAYED, "shop.cds", "exchange", "shop.cds") in bindings
    for step in STEPS:
        assert Binding(delay_exchange(step), delay_exchange(step), "queue", "shop.cds") in bindings


def test_a_delay_that_is_over_always_has_a_queue_to_go_to_so_none_holds_back_those_of_other_topics() -> None:
    found = wanted(NEED)
    queues = {queue.name: dict(queue.arguments) for queue in found.queues}
    exchanges = {exchange.name: exchange for exchange in found.exchanges}
    for step in STEPS:
        shared = queues[delay_exchange(step)]
        assert shared["x-dead-letter-exchange"] == DUE
        assert "x-dead-letter-routing-key" not in shared, "which is the topic"
    assert Binding(DUE, due_queue("shop.cds"), "queue", "shop.cds") in found.bindings
    assert dict(exchanges[DUE].arguments) == {"alternate-exchange": UNCLAIMED}
    assert exchanges[UNCLAIMED].type == "fanout"
    assert Binding(UNCLAIMED, UNCLAIMED, "queue") in found.bindings
    assert queues[due_queue("shop.cds")]["x-message-ttl"] == 0
    for last in (due_queue("shop.cds"), UNCLAIMED):
        assert queues[last]["x-dead-letter-exchange"] == DELAYED
        assert "x-message-ttl" in queues[last]


def test_a_topic_without_a_group_is_not_known_to_the_delays() -> None:
    bindings = wanted(Topology((TopicNeed("shop.cds"),))).bindings
    assert bindings == (Binding(UNCLAIMED, UNCLAIMED, "queue"),)


@pytest.mark.parametrize(("topic", "group"), [("t" * 119, "g" * 119), ("t" * 120, "g" * 118), ("shop.cds", "billing")])
def test_names_are_as_long_as_rabbitmq_takes_and_all_different(topic: str, group: str) -> None:
    found = wanted(Topology((TopicNeed(topic, frozenset({group})), TopicNeed(topic[:-1] + "x", frozenset({group})))))
    exchanges, queues = [one.name for one in found.exchanges], [one.name for one in found.queues]
    assert max(map(len, exchanges)) <= 127
    assert max(map(len, queues)) <= 255
    assert len({*exchanges}) == len(exchanges)
    assert len({*queues}) == len(queues)


@pytest.mark.parametrize(
    ("topic", "group", "options", "said"),
    [
        ("t" * 120, "g" * 120, (), "2 characters too long"),
        ("amq.orders", "g", (), "'amq.' are its own"),
        ("amq", "foo", (), "'amq.' are its own"),
        ("mqkit.delayed", "g", (), "mqkit's own"),
        ("mqkit", "unclaimed", (), "mqkit's own"),
        ("orders", "g", (RabbitTopic(exchange="mqkit.due"),), "mqkit's own"),
        ("orders", "g", (RabbitTopic(exchange="x" * 128),), "up to 127"),
    ],
)
def test_a_name_that_rabbitmq_does_not_take_is_refused(
    topic: str, group: str, options: tuple[object, ...], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        wanted(Topology((TopicNeed(topic, frozenset({group}), options),)))


def test_nothing_needed_is_nothing_made() -> None:
    found = wanted(Topology())
    assert (found.exchanges, found.queues, found.bindings) == ((), (), ())


def test_an_exchange_of_an_existing_system_is_used_as_it_is() -> None:
    options = RabbitTopic(exchange="legacy", exchange_type="topic", binding_keys=("cd.*",), quorum_group_size=5)
    found = wanted(Topology((TopicNeed("cds", frozenset({"g"}), (options,)),)))
    assert Exchange("legacy", "topic") in found.exchanges
    assert {binding.key for binding in found.bindings if binding.exchange == "legacy"} == {"cd.*", "cds"}
    assert Binding(DELAYED, "legacy", "exchange", "cds") in found.bindings
    assert {
        dict(queue.arguments).get("x-quorum-initial-group-size") for queue in found.queues if "cds.g" in queue.name
    } == {5}


def test_a_delivery_limit_ends_among_the_dead_letters() -> None:
    found = wanted(Topology((TopicNeed("cds", frozenset({"g"}), (RabbitTopic(delivery_limit=7),)),)))
    arguments = next(dict(queue.arguments) for queue in found.queues if queue.name == "cds.g")
    assert arguments["x-delivery-limit"] == 7
    assert arguments["x-dead-letter-routing-key"] == "cds.g.dlq"


def out(group: str | None = None, *, key: bytes | None = None, delay: float = 0, dead: bool = False) -> Outgoing:
    return Outgoing(WireMessage(b"12345", key=key), "cds", group, dead=dead, delay=delay)


@pytest.mark.parametrize(
    ("outgoing", "expected"),
    [
        (out(), Place("cds", "")),
        (out(key=b"k"), Place("cds", "k")),
        (out("g", key=b"k"), Place("", "cds.g")),
        (out("g", dead=True), Place("", "cds.g.dlq")),
        (out("g", delay=0.7), Place("", "cds.g.retry.1000ms")),
        (out("g", delay=100), Place("", "cds.g.retry.60000ms")),
        (out(key=b"k", delay=2), Place("mqkit.delays.2000ms", "cds")),
    ],
)
def test_a_message_goes_where_it_belongs(outgoing: Outgoing, expected: Place) -> None:
    assert place(outgoing, {}) == expected


def test_a_topic_may_have_an_exchange_of_another_name() -> None:
    assert place(out(), {"cds": "legacy"}) == Place("legacy", "")


def test_every_place_that_is_used_is_declared() -> None:
    found = wanted(Topology((TopicNeed("cds", frozenset({"g"})),)))
    queues = {queue.name for queue in (*found.queues, *found.later)}
    exchanges = {exchange.name for exchange in found.exchanges}
    for delay in (0, *STEPS, 0.1, 7, 1e6):
        for group in ("g", None):
            where = place(out(group, delay=delay), {})
            assert where.routing_key in queues if where.exchange == "" else where.exchange in exchanges


@pytest.mark.parametrize(
    ("key", "expected"), [(None, ""), (b"", ""), (b"\xff", ""), (b"x" * 256, ""), ("ä".encode() * 127, "ä" * 127)]
)
def test_a_routing_key_is_the_key_where_it_can_be(key: bytes | None, expected: str) -> None:
    assert routing_key(key) == expected


def test_a_message_to_nowhere_says_what_is_missing() -> None:
    assert "'cds.g'" in nowhere(Place("", "cds.g"), "cds")
    assert "a group" in nowhere(Place("cds", ""), "cds")
    assert "knows no topic 'cds'" in nowhere(Place("mqkit.delays.500ms", "cds"), "cds")


REFUSALS = [
    (
        "arg 'x-delivery-limit' for queue 'a.b' in vhost '/': received the value '5' of type 'long' but current is the value '-1' of type 'long'",
        ("x-delivery-limit", "5", "-1"),
    ),
    (
        "arg 'x-dead-letter-exchange' for queue 'a' in vhost '/': received 'foo' but current is ''",
        ("x-dead-letter-exchange", "foo", "''"),
    ),
    (
        "arg 'x-message-ttl' for queue 'a' in vhost '/': received none but current is the value '1000' of type 'long'",
        ("x-message-ttl", "not set", "1000"),
    ),
    (
        "arg 'type' for exchange 'e' in vhost '/': received 'fanout' but current is 'topic'",
        ("type", "fanout", "topic"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSALS)
def test_a_refusal_to_declare_names_setting_wanted_and_found(text: str, expected: tuple[str, str, str]) -> None:
    found = difference(f"PRECONDITION_FAILED - inequivalent {text}", "queue", "a")
    assert (found.setting, found.wanted, found.found) == expected
    assert "delete" in found.remedy


def test_a_refusal_that_nobody_knows_is_told_as_it_is() -> None:
    assert "something new" in str(difference("something new", "queue", "a"))


def test_all_arguments_that_differ_are_named() -> None:
    queue = Queue("q", (("x-queue-type", "quorum"), ("x-delivery-limit", -1)))
    found = differences(queue, {"x-queue-type": "classic", "x-max-length": 5})
    assert [(one.setting, one.wanted, one.found) for one in found] == [
        ("x-queue-type", "quorum", "classic"),
        ("x-delivery-limit", "-1", "not set"),
        ("x-max-length", "not set", "5"),
    ]
    assert differences(queue, dict(queue.arguments)) == ()


def test_a_missing_exchange_is_the_fault_of_what_was_published_to_it() -> None:
    refusal = refusals.publishing(404, "NOT_FOUND - no exchange 'cds' in vhost '/'")
    assert isinstance(refusal.of(out(), Place("cds", "")), Unroutable)
    assert refusal.of(out(), Place("other", "")) is None


def test_a_message_that_is_too_large_for_the_broker_names_both_sizes() -> None:
    refusal = refusals.publishing(406, "PRECONDITION_FAILED - message size 5 is larger than configured max size 4")
    error = refusal.of(out(), Place("cds", ""))
    assert isinstance(error, MessageTooLarge)
    assert (error.size, error.limit) == (5, 4)


def test_a_refused_permission_is_the_fault_of_its_exchange() -> None:
    refusal = refusals.publishing(403, "ACCESS_REFUSED - write access to exchange 'cds' in vhost '/' refused for user")
    assert isinstance(refusal.of(out(), Place("cds", "")), AuthenticationFailed)
    assert refusal.of(out(), Place("", "")) is None


settlements = st.sampled_from(Settlement)


@given(st.dictionaries(st.integers(1, 40), st.none() | settlements, max_size=30))
def test_acknowledgements_settle_what_was_asked_and_nothing_else(wish: dict[int, Settlement | None]) -> None:
    out = sorted(wish)
    settled = {tag: settlement for tag, settlement in wish.items() if settlement is not None}
    left = dict.fromkeys(out)
    found: dict[int, Settlement] = {}
    for one in acknowledgements(out, settled):  # as the broker does it
        reached = [tag for tag in left if tag == one.tag or (one.multiple and tag < one.tag)]
        found |= dict.fromkeys(reached, one.settlement)
        for tag in reached:
            del left[tag]
    assert found == settled
    assert list(left) == [tag for tag in out if wish[tag] is None]


def test_a_burst_in_order_is_one_acknowledgement() -> None:
    assert len(acknowledgements(range(1, 101), dict.fromkeys(range(1, 101), Settlement.DONE))) == 1
    assert len(acknowledgements(range(1, 101), dict.fromkeys(range(2, 101), Settlement.DONE))) == 99


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://h/?heartbeet=3", "unknown option 'heartbeet'"),
        ("amqp://h/?heartbeat=soon", "heartbeat is a number"),
        ("amqp://h/?heartbeat=-1", "heartbeat is a number"),
        ("amqp://h/?connection_timeout=0", "connection_timeout"),
        ("amqp://h/?management=h:15672", "management=http"),
        ("amqp://h:port/", "cannot be read"),
        ("amqp://h/a/b", "%2F"),
        ("http://h/", "amqp://"),
    ],
)
def test_a_url_that_makes_no_sense_says_where(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_url(url)


def test_an_unknown_option_lists_those_that_there_are_and_hides_the_password() -> None:
    with pytest.raises(ConfigurationError, match="heartbeat, keyfile, management, max_message_bytes") as caught:
        parse_url("amqp://u:secret@h/?x=1")
    assert "secret" not in str(caught.value)


def test_a_url_is_read_with_all_it_says() -> None:
    url = parse_url(
        "amqps://u%40x:p%2Fw@h/team%2Fa?heartbeat=5&connection_timeout=2.5&max_message_bytes=99"
        "&cafile=ca.pem&auth=EXTERNAL&name=shop&management=https://a:b@h:15671/rabbit/"
    )
    assert (url.host, url.port, url.user, url.password, url.vhost) == ("h", 5671, "u@x", "p/w", "team/a")
    assert (url.heartbeat, url.connection_timeout, url.max_message_bytes) == (5, 2.5, 99)
    assert url.management == "https://a:b@h:15671/rabbit"
    assert (url.auth, url.name, url.tls) == ("external", "shop", (("cafile", "ca.pem"),))
    assert url.amqp == "amqps://u%40x:p%2Fw@h:5671/team%2Fa?heartbeat=5&auth=external&name=shop"
    assert "p/w" not in repr(url)
    assert "a:b" not in repr(url)


def test_a_bare_url_has_the_brokers_defaults() -> None:
    url = parse_url("amqp://")
    assert (url.host, url.port, url.user, url.vhost, url.max_message_bytes) == (
        "localhost",
        5672,
        "guest",
        "/",
        16_777_216,
    )


@pytest.mark.parametrize(
    "options",
    [{"quorum_group_size": 0}, {"delivery_limit": 0}, {"exchange": ""}, {"exchange_type": "topic", "binding_keys": ()}],
)
def test_topic_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="RabbitTopic"):
        RabbitTopic(**options)  # type: ignore[arg-type]  # that is the case
