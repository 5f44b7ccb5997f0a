"""How long the oldest event that is not applied yet has waited."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from streams.log import Partition
from streams.runs import Run


class Ages:
    """Remembers when what was consumed was written, chunk by chunk. Used by the consuming thread alone."""

    def __init__(self) -> None:
        """Nothing was consumed."""
        #: Of each chunk of a partition: its first offset, and that record's timestamp in milliseconds.
        self._chunks: dict[Partition, deque[tuple[int, int]]] = {}

    def note(self, runs: Iterable[Run]) -> None:
        """Take what one consume gave."""
        first: dict[Partition, Run] = {}
        for run in runs:
            first.setdefault(Partition(run.topic, run.partition), run)
        for partition, run in first.items():
            record = run[0]
            chunks = self._chunks.setdefault(partition, deque())
            while chunks and chunks[-1][0] >= record.offset:
                # Read again from here.
                chunks.pop()
            chunks.append((record.offset, record.timestamp_millis))

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Others own these now."""
        for partition in partitions:
            self._chunks.pop(partition, None)

    def oldest_millis(self, stands: Mapping[Partition, int], ends: Mapping[Partition, int]) -> int | None:
        """When the oldest event that is not applied was written, or a little before; None when all is applied.

        Where nothing behind the cursor was consumed yet, it is the time of what was applied last: never younger than
        the truth. A partition of which nothing was consumed at all is left out.
        """
        found = []
        for partition, cursor in stands.items():
            chunks = self._chunks.get(partition)
            if not chunks:
                continue
            while len(chunks) > 1 and chunks[1][0] <= cursor:
                chunks.popleft()
            if cursor < ends.get(partition, cursor):
                found.append(chunks[0][1])
        return min(found, default=None)
