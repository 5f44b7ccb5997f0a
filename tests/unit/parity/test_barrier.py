"""The barrier that verification compares at, taken under traffic."""

from __future__ import annotations

from collections.abc import Sequence

from api.verify.log_scan import take_barrier
from schemas.topics import COSTS, REQUESTS
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog, MemoryReader
from streams.partitioner import partition_of

KEY = b"request"


class BusyReader(MemoryReader):
    """Whenever it has said where something ends, a request's cost and its COMPLETED are recorded."""

    def __init__(self, log: MemoryLog) -> None:
        """Of this log."""
        super().__init__(log)
        self._busy = log

    def end_offsets(self, partitions: Sequence[Partition], timeout_seconds: float) -> dict[Partition, int]:
        """As the seam says, then traffic."""
        ends = super().end_offsets(partitions, timeout_seconds)
        for topic in (COSTS, REQUESTS):
            self._busy.append(OutgoingRecord(topic.name, KEY, b"", ()))
        return ends


def test_the_cost_of_what_is_completed_below_the_barrier_is_below_it_too() -> None:
    """Whatever is recorded while the barrier is taken, and in whichever order topics are named."""
    costs, requests = (Partition(topic.name, partition_of(KEY, topic.partitions)) for topic in (COSTS, REQUESTS))
    for topics in ((COSTS.name, REQUESTS.name), (REQUESTS.name, COSTS.name)):
        log = MemoryLog()

        barrier = take_barrier(BusyReader(log), topics)

        assert barrier[requests] == 0
        assert barrier[costs] == 1
