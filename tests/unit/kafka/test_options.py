"""What a user can set for Kafka."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from mqkit.backends.kafka import KafkaTopic
from mqkit.backends.kafka.client import KafkaBackend, consumer_config
from mqkit.backends.kafka.options import Settings, client_config, parse_url
from mqkit.backends.kafka.sender import producer_config
from mqkit.errors import ConfigurationError


def test_naming_the_backend_imports_no_driver() -> None:
    code = "import sys, mqkit.backends.kafka; sys.exit('confluent_kafka' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://localhost", "localhost:9092"),
        ("kafka://a:1,b:2/", "a:1,b:2"),
        ("kafka://a,b:2", "a:9092,b:2"),
        ("kafka://[::1]:9092/", "[::1]:9092"),
        ("kafka://[::1]", "[::1]:9092"),
    ],
)
def test_servers_are_read(url: str, servers: str) -> None:
    assert parse_url(url).servers == servers


def test_credentials_are_read_and_never_shown() -> None:
    settings = parse_url("kafka://me:p%40ss@a:1/?security=sasl_ssl&mechanism=SCRAM-SHA-256&ca=/ca.pem")
    config = client_config(settings)
    assert config["sasl.username"] == "me"
    assert config["sasl.password"] == "p@ss"
    assert config["sasl.mechanism"] == "SCRAM-SHA-256"
    assert config["security.protocol"] == "sasl_ssl"
    assert config["ssl.ca.location"] == "/ca.pem"
    assert "p@ss" not in repr(settings)
    assert client_config(parse_url("kafka://me:x@a:1"))["security.protocol"] == "sasl_plaintext"


def test_settings_of_the_driver_pass_through() -> None:
    settings = parse_url("kafka://a/?rdkafka.linger.ms=7&rdkafka.session.timeout.ms=6000")
    assert producer_config(settings)["linger.ms"] == "7"
    assert consumer_config(settings, "g")["session.timeout.ms"] == "6000"


@pytest.mark.parametrize("make", [client_config, producer_config, lambda settings: consumer_config(settings, "g")])
def test_no_client_makes_a_topic_by_asking_for_it(make: Callable[[Settings], dict[str, object]]) -> None:
    assert make(parse_url("kafka://a/"))["allow.auto.create.topics"] is False
    with pytest.raises(ConfigurationError, match="not yours to set"):
        parse_url("kafka://a/?rdkafka.allow.auto.create.topics=true")


def test_partitions_that_are_added_are_found_in_seconds() -> None:
    assert int(str(consumer_config(parse_url("kafka://a/"), "g")["topic.metadata.refresh.interval.ms"])) <= 5000


def test_the_new_group_protocol_is_given_none_of_the_settings_that_it_refuses() -> None:
    config = consumer_config(parse_url("kafka://a/?protocol=consumer"), "g")
    assert config["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & config.keys()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("kafka://", "is not HOST or HOST:PORT"),
        ("kafka://a:b", "a port as a number"),
        ("kafka://a:70000", "is not HOST or HOST:PORT"),
        ("kafka://a,,b", "'' in the Kafka URL"),
        ("kafka://a/topic", "'/topic' behind the hosts"),
        ("kafka://a/?retries=3", "'retries' is unknown; there is ca, client_id, commit_interval"),
        ("kafka://a/?partitions=0", "partitions='0' must be a whole number of at least 1"),
        ("kafka://a/?commit_interval=-1", "commit_interval='-1' must be a number of seconds"),
        ("kafka://a/?protocol=auto", "protocol='auto' must be one of classic, consumer"),
        ("kafka://a/?rdkafka.enable.auto.commit=true", "is not yours to set"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_and_says_why(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text.replace("?", r"\?")):
        KafkaBackend(url)


def test_topic_options_become_settings() -> None:
    option = KafkaTopic(retention=timedelta(hours=1), max_message_bytes=5, config={"cleanup.policy": "compact"})
    assert option.settings() == {"retention.ms": "3600000", "max.message.bytes": "5", "cleanup.policy": "compact"}
    assert KafkaTopic(retention=-1).settings() == {"retention.ms": "-1"}


@pytest.mark.parametrize("wrong", [{"partitions": 0}, {"replication": -1}, {"max_message_bytes": 0}, {"retention": -2}])
def test_topic_options_that_no_kafka_takes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        KafkaTopic(**wrong)  # type: ignore[arg-type]  # which is the point


@pytest.mark.parametrize("url", ["kafka://a:1", "kafka://a:1?rdkafka.linger.ms=5"])
def test_a_message_is_safe_when_every_replica_in_sync_has_it_and_it_is_there_once(url: str) -> None:
    config = producer_config(parse_url(url))
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True


@pytest.mark.parametrize("option", ["rdkafka.acks=1", "rdkafka.enable.idempotence=false"])
def test_no_option_makes_publishing_less_safe(option: str) -> None:
    try:
        config = producer_config(parse_url(f"kafka://a:1?{option}"))
    except ConfigurationError:
        return
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True
