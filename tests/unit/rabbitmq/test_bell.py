"""A bell: what one thread waits for until another rings."""

import threading
import time

from mqkit.backends.rabbitmq.bell import Bell


def test_it_stays_rung_until_somebody_has_waited_for_it() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)


def test_nobody_rings_in_vain_however_many_ring_at_once() -> None:
    bell = Bell()
    ringers = [threading.Thread(target=bell.ring) for _ in range(20)]
    for ringer in ringers:
        ringer.start()
    assert bell.wait(10)
    for ringer in ringers:
        ringer.join()
    bell.wait(0)
    assert not bell.wait(0)


def test_who_waits_is_woken_by_another_thread() -> None:
    bell = Bell()
    ringer = threading.Timer(0.05, bell.ring)
    ringer.start()
    started = time.monotonic()
    assert bell.wait(10)
    assert time.monotonic() - started < 5
    ringer.join()
