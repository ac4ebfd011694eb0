"""Which image runs each broker: asks provision.sh, which gets what is missing and is the one place that decides.

Images only; containers are started in broker_containers.py.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

BrokerName = Literal["rabbitmq", "rabbitmq-old", "kafka"]

PROVISION = Path(__file__).with_name("provision.sh")


class BrokersUnavailable(RuntimeError):
    """No broker can be had on this machine; the text is one sentence that says why and what to do."""


def provide(*brokers: BrokerName, report: Callable[[str], None] | None = None) -> dict[BrokerName, str]:
    """Makes sure of an engine and of one image for each broker, and returns the images.

    Takes 0.1 s when all is there and minutes when it is not; `report` is given each line of progress (standard error
    when it is left out).

    Raises:
        BrokersUnavailable: The engine or an image cannot be had.
    """
    line = ""
    with subprocess.Popen(
        [PROVISION, *brokers], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for text in process.stderr:
            line = text.rstrip()
            if report is None:
                print(line, file=sys.stderr, flush=True)
            else:
                report(line)
        answer = process.stdout.read()
    if process.returncode != 0:
        _, _, reason = line.partition("  ")  # each line begins with the time
        raise BrokersUnavailable(reason or f"{PROVISION.name} failed without a word")
    images = dict(each.split("=", 1) for each in answer.splitlines())
    return {broker: images[broker] for broker in brokers}
