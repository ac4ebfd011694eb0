"""The README as a reader follows it: its files are written, its commands typed, its output compared.

A `python` or `toml` block begins with `# name` and becomes that file; a pyproject.toml is installed. A `console` block
has commands after `$ ` and below each what it prints, `...` for what differs from run to run and spaces not counted. A
service is left running, as in a terminal of its own; at the end it is interrupted. What has to come true, such as a
dead letter, is looked for again until it has. `make` builds environments and brokers, so of that only the target is
checked: test_demo.py runs what it starts.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.brokers import Broker

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE = 20.0
BROKER_URLS = ("amqp://guest:guest@localhost/", "kafka://localhost:9092")


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str

    @property
    def needs_brokers(self) -> bool:
        return self.language == "console" and any(url in self.text for url in BROKER_URLS)


def blocks() -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what it prints."""
    lines = block.text.splitlines()
    assert lines[0].startswith("$ ")
    for i, line in enumerate(lines):
        if line.startswith("$ "):
            yield line[2:], "\n".join(takewhile(lambda text: not text.startswith("$ "), lines[i + 1 :]))


def fits(wanted: str, found: str) -> bool:
    """Whether `found` is what `wanted` shows."""
    pattern = re.escape(f" {' '.join(wanted.split())} ").replace(r"\.\.\.", ".*").replace(r"\ .*\ ", " (.* )?")
    return re.fullmatch(pattern, f" {' '.join(found.split())} ") is not None


class Reader:
    """Somebody who follows the README in a folder of their own."""

    def __init__(self, folder: Path, urls: dict[str, str]) -> None:
        self.folder = folder
        self.urls = urls
        self.left_running: list[tuple[str, subprocess.Popen[str], Path, str]] = []
        bin_folder = Path(sys.executable).parent
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MQKIT_")}
        self.environment = clean | {
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process, _, _ in self.left_running:
            process.kill()
            process.wait()

    def follow(self, block: Block) -> None:
        if block.language == "console":
            for command, output in commands(block):
                self.type(command, output)
        elif block.language in ("python", "toml"):
            self.write(block)
        else:
            pytest.fail(f"a block of language {block.language!r}: nobody checks it")

    def write(self, block: Block) -> None:
        named = re.match(r"# ([\w.]+\.(?:py|toml))\n", block.text)
        assert named, f"the block does not begin with the name of its file: {block.text[:80]!r}"
        path = self.folder / named[1]
        path.write_text(block.text)
        if path.suffix == ".py":
            self.type(f"python -W error -c 'import {path.stem}'", "")
        elif path.name == "pyproject.toml":
            self.install(tomllib.loads(block.text)["project"])

    def install(self, project: dict[str, object]) -> None:
        """What an installer leaves behind: a distribution's name and entry points."""
        name, version = project["name"], project["version"]
        points = project["entry-points"]
        assert isinstance(points, dict)
        info = self.folder / f"{str(name).replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        sections = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in these.items()) for group, these in points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(sections))

    def type(self, command: str, output: str) -> None:
        for shown, real in self.urls.items():
            command = command.replace(shown, real)
        if command.startswith("make "):
            ended = subprocess.run(shlex.split(f"{command} -n"), cwd=ROOT, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, f"{command}: {ended.stderr}"
        elif command.startswith("mqkit run "):
            self.leave_running(command, output)
        else:
            deadline = time.monotonic() + PATIENCE
            while not fits(output, found := self.printed(command)):
                assert time.monotonic() < deadline, f"$ {command}\n{found}\nand not\n{output}"
                time.sleep(0.2)

    def printed(self, command: str) -> str:
        ended = subprocess.run(
            shlex.split(command), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"$ {command}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def leave_running(self, command: str, output: str) -> None:
        path = self.folder / f"terminal-{len(self.left_running)}"
        with path.open("w") as file, (path.with_suffix(".log")).open("w") as log:
            process = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self.environment, stdout=file, stderr=log, text=True
            )
        self.left_running.append((command, process, path, output))
        ready = output.partition("Ctrl-C")[0] + "..."
        self.wait_for(process, path, ready)

    def wait_for(self, process: "subprocess.Popen[str]", path: Path, output: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not fits(output, found := path.read_text()):
            log = path.with_suffix(".log").read_text()
            assert process.poll() is None, f"it ended by itself: {found}{log}"
            assert time.monotonic() < deadline, f"{found}\nand not\n{output}\n{log}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C in each terminal, after it has printed what the README shows."""
        for command, process, path, output in self.left_running:
            self.wait_for(process, path, output + " ...")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0, f"$ {command}\n{path.with_suffix('.log').read_text()}"


def test_every_block_does_what_it_shows(tmp_path: Path) -> None:
    with Reader(tmp_path, {}) as reader:
        for block in blocks():
            if not block.needs_brokers:
                reader.follow(block)
        reader.interrupt()


def test_the_blocks_for_brokers_do_what_they_show(
    tmp_path: Path, rabbitmq_broker: Broker, kafka_broker: Broker
) -> None:
    urls = dict(zip(BROKER_URLS, (rabbitmq_broker.url, kafka_broker.url), strict=True))
    asked = [block for block in blocks() if block.needs_brokers]
    assert asked
    with Reader(tmp_path, urls) as reader:
        reader.follow(next(block for block in blocks() if block.text.startswith("# shop.py\n")))
        for block in asked:
            reader.follow(block)


def test_the_service_is_the_quickstart_among_the_examples() -> None:
    service = next(block.text for block in blocks() if block.text.startswith("# shop.py\n"))
    assert service.removeprefix("# shop.py\n") == (ROOT / "examples/quickstart.py").read_text()


@pytest.mark.parametrize(
    ("wanted", "found", "verdict"),
    [
        ("published ... to purchases", "published 4c5b to purchases\n", True),
        ("head\n...\ntail\n...", "head\ntail", True),
        ("key  attempts", "key     attempts", True),
        ("attempts 3", "attempts 4", False),
        ("created ...", "nothing was created", False),
        ("", "a warning", False),
    ],
)
def test_output_is_compared_but_for_dots_and_spaces(wanted: str, found: str, *, verdict: bool) -> None:
    assert fits(wanted, found) == verdict


@pytest.mark.parametrize("target", re.findall(r"\]\((?!#|http)([^)]+)\)", README))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
