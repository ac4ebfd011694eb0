"""The tokens of deliveries: each counts once."""

from mqkit.backends.kafka.offsets import decode
from mqkit.backends.kafka.partitions import Lease, Partition
from mqkit.backends.kafka.tiers import Tier
from mqkit.message import WireMessage


def test_a_lease_that_comes_back_twice_is_counted_once() -> None:
    part = Partition(Tier("t"), 0, None)
    leases = []
    for offset in range(2):
        assert part.tracker.take(offset)
        token = part.hand_out(offset, WireMessage(b""), "t", "g").token
        assert isinstance(token, Lease)
        leases.append(token)
    assert [part.take_back(leases[0]) for _ in range(3)] == [True, False, False]
    assert part.out == 1
    place = part.to_commit()
    assert place is not None
    assert decode(place.offset, place.metadata).out == 1
