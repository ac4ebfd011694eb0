"""Heartbeats while the event loop is blocked, by a handler that computes or sleeps: without them RabbitMQ would close
the connection, and deliver again what that handler is at.

A thread asks the loop for a sign of life now and then, and writes to the socket only as long as none comes: so nothing
else writes. Through TLS nobody but the loop can write; what is there is bounded by E5 (Receiver.begin).
"""

import os
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import Final

from mqkit.backends.rabbitmq import frames
from mqkit.backends.rabbitmq.stream import Frames

LEAST: Final = 0.2
"""Seconds between two looks, at least."""


class _Watched:
    """One connection whose loop is watched."""

    def __init__(self, stream: Frames, heartbeat: float) -> None:
        self.stream = stream
        self.every = max(LEAST, heartbeat / 4)
        self.due = monotonic() + self.every
        self.answered = Event()
        self.answered.set()

    def look(self) -> bool:
        """Ask for a sign of life, or send one to the broker if none came; False if that is of no use any more."""
        stream = self.stream
        if stream.ended is not None or stream.loop.is_closed():
            return False
        self.due = monotonic() + self.every
        if not self.answered.is_set():
            _send(stream)
            return True
        self.answered.clear()
        try:
            stream.loop.call_soon_threadsafe(self.answered.set)
        except RuntimeError:  # closed just now
            return False
        return True


def _send(stream: Frames) -> None:
    transport = stream.transport
    if transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return  # what is there was not taken yet, and ends within a frame
    socket = transport.get_extra_info("socket")
    if socket is None or transport.get_extra_info("ssl_object") is not None:
        return
    with suppress(OSError, AttributeError), socket.dup() as own:
        own.send(frames.HEARTBEAT)


class Pulse:
    """The thread, as long as there are connections."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watched: list[_Watched] = []
        self._process = 0
        self._news = Event()

    def keep(self, stream: Frames, heartbeat: float) -> None:
        """Send the broker of `stream` a sign of life at least every half of `heartbeat` seconds, until it has ended."""
        if heartbeat <= 0:
            return
        with self._lock:
            if self._process != os.getpid():  # threads do not come along when a process forks
                self._process, self._watched = os.getpid(), []
            if not self._watched:
                Thread(target=self._watch, args=(self._process,), name="mqkit-pulse", daemon=True).start()
            self._watched.append(_Watched(stream, heartbeat))
            self._news.set()

    def _watch(self, process: int) -> None:
        while True:
            self._news.clear()
            with self._lock:
                now = monotonic()
                ended = [one for one in self._watched if one.due <= now and not one.look()]
                self._watched = [one for one in self._watched if one not in ended]
                if not self._watched or self._process != process:
                    return
                soonest = min(one.due for one in self._watched)
            self._news.wait(max(0.0, soonest - monotonic()))


PULSE: Final = Pulse()
