"""What the types promise is checked by both type checkers, each in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mqkit import App, AsyncApp, Topic

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT, WRONG = HERE / "right_uses.py", HERE / "wrong_uses.py"

pytestmark = pytest.mark.timeout(600)  # a type checker takes a minute of CPU, and there may be little of it


def by_mypy(path: Path) -> dict[int, str]:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--no-pretty", str(path)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode in (0, 1), out.stdout + out.stderr
    found = re.findall(rf"{path.name}:(\d+):(?:\d+:)? error: (.*)", out.stdout)
    assert found or not out.returncode, out.stdout
    return {int(line): text for line, text in found}


def by_pyright(path: Path) -> dict[int, str]:
    command = [sys.executable, "-m", "pyright", "--outputjson", str(path)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode in (0, 1), out.stdout + out.stderr
    report = json.loads(out.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


CHECKERS = pytest.mark.parametrize("check", [by_mypy, by_pyright], ids=["mypy", "pyright"])


@CHECKERS
def test_right_uses_are_accepted(check: object) -> None:
    assert callable(check)
    assert check(RIGHT) == {}


@CHECKERS
def test_wrong_uses_are_refused_each_on_its_line(check: object) -> None:
    assert callable(check)
    expected = {i for i, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("# error")}
    found = check(WRONG)
    assert found.keys() == expected, found


@pytest.mark.parametrize("app", [App, AsyncApp])
def test_who_has_no_checker_is_told_the_options_there_are(app: type[App] | type[AsyncApp]) -> None:
    with pytest.raises(TypeError, match=r"no option 'servce'; it has url, service, .*listeners"):
        app("memory://", servce="shop")  # type: ignore[call-arg] # that is the test
    topic = Topic("purchases", int)
    with pytest.raises(TypeError, match=r"no option 'concurency'; it has group, publish, retry, .*middleware"):
        app("memory://").subscribe(topic, group="a", concurency=5)  # type: ignore[call-overload] # that is the test
