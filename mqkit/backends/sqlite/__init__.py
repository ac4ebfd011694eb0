"""The SQLite backend: durable work for several processes of one machine, in one file, without a server.

`sqlite:///relative.db`, `sqlite:////absolute/path.db`. What lies where: url.py and backend.py (the seam), database.py
(a connection), schema.py, headers.py (what a row is), members.py and presence.py (who is there), sessions.py.
"""

from collections.abc import Sequence
from typing import Final

from mqkit.backend import BackendSpec, Capabilities
from mqkit.hookspecs import hookimpl

MAX_MESSAGE_BYTES: Final = 512 * 1024 * 1024
"""Unless the URL says otherwise. SQLite itself ends at a billion bytes for a row."""
CAPABILITIES: Final = Capabilities(typed_headers=True, max_message_bytes=MAX_MESSAGE_BYTES)


@hookimpl
def mqkit_backends() -> Sequence[BackendSpec]:
    """The SQLite backend."""
    return (
        BackendSpec(
            name="sqlite",
            summary="One file, several processes of one machine, durable, no server.",
            schemes=("sqlite",),
            example_url="sqlite:///mqkit.db",
            capabilities=CAPABILITIES,
            blocking="mqkit.backends.sqlite.backend:SQLiteBackend",
        ),
    )
