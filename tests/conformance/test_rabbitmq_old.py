"""The contract on the oldest RabbitMQ that mqkit supports.

It is not stopped and started here: RabbitMQ 4.0's dead-lettering worker can crash for good when a queue is deleted
soon after a start, and then every later declaration fails. That is tried on the newest, in test_rabbitmq.py, and so is
App: what an old broker may do otherwise is done by the topology, which both apps share.
"""

import pytest

from mqkit.testing.conformance import Conformance, Harness
from tests.brokers import Broker
from tests.conformance.test_rabbitmq import RabbitHarness


class OldRabbitHarness(RabbitHarness):
    name = "rabbitmq 4.0"
    abilities = RabbitHarness.abilities - {"interrupt"}


@pytest.mark.parametrize("colour", ["AsyncApp"])
class TestOldRabbitMQ(Conformance):
    @pytest.fixture
    def harness(self, rabbitmq_old_broker: Broker) -> Harness:
        return OldRabbitHarness(rabbitmq_old_broker)
