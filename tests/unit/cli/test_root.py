"""Which commands there are, and that each is loaded by itself."""

import subprocess
import sys

import pytest

from mqkit.cli.root import COMMANDS, GROUPS

LOADED = """
import sys
from mqkit.cli import main
try:
    main()
except SystemExit:
    print(*sorted(name.removeprefix("mqkit.cli.") for name in sys.modules if name.startswith("mqkit.cli.")))
"""


@pytest.mark.parametrize("name", ["inspect", "dlq"])
def test_a_command_loads_no_other(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, name, "--help"], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert loaded & {*COMMANDS, *GROUPS} == {name}
