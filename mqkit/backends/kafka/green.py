"""Whether the threads of this process are real ones, which the driver needs. Pure.

It waits in C, where no green thread can give way to another: the first that waits for a broker would stop all others,
and with them whoever should answer it.
"""

from mqkit.errors import ConfigurationError


def require_threads(start: object) -> None:
    """Make sure that threads are the system's.

    Args:
        start: what starts a thread by now: `_thread.start_new_thread`.

    Raises:
        ConfigurationError: gevent, eventlet or the like has put its own in that place.
    """
    module = str(getattr(start, "__module__", None) or "_thread")
    if module == "_thread":
        return
    name = module.partition(".")[0]
    raise ConfigurationError(
        f"Kafka's driver cannot work here: {name} has replaced the threads of this process (monkey patching), and the "
        f"driver would stop all of them whenever it waits for a broker; run what uses mqkit with Kafka in a process "
        f"of its own that {name} does not patch, with worker threads or an event loop instead of green threads. "
        f"RabbitMQ and SQLite can be used under {name}"
    )
