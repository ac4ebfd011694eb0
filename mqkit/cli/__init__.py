"""The command line, `mqkit`: needs the extra `cli`, and says so in a sentence where that is missing.

The files: root (which commands there are), one file for each command, and what they share: options, loading (an app
from `module:attribute`), opening (a broker), output (tables and JSON), failures (errors as sentences), logs.
"""

import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and end the process with its exit code."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)  # to the first process of a container the default does nothing
    try:
        from mqkit.cli.root import command_line
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.stderr.write(f"error: the command line needs {error.name}, which is missing: pip install 'mqkit[cli]'\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()
    sys.exit(0)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
