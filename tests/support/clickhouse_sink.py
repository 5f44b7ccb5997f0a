"""Sinks of ClickHouse for tests: a log that remembers what was written, and plans in memory or Postgres."""

from __future__ import annotations

from collections.abc import Callable, Collection

from schemas.errors import IntegrityError
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.plans import PlanStore
from sinks.clickhouse.ranges import RangeReader
from sinks.clickhouse.rollups import Rollups
from sinks.clickhouse.sink import ClickHouseSink, since_boot_seconds
from sinks.runner.seam import Batch, Decoded
from streams.log import Partition
from tests.support.stories import START_MICROS

#: Nobody else inserts anything in these tests.
CALM_SECONDS = 0.0


class RememberedRanges(RangeReader):
    """The log as far as batches showed it; counts how often it was read again."""

    def __init__(self) -> None:
        """Nothing was shown."""
        self.records: dict[Partition, dict[int, Decoded]] = {}
        self.reads = 0

    def remember(self, batch: Batch) -> None:
        """Learn the records of a batch."""
        for span in batch.spans:
            self.records.setdefault(span.partition, {}).update({each.offset: each for each in span.records})

    async def read(self, partition: Partition, first: int, after: int, excluded: Collection[int]) -> list[Decoded]:
        """As the seam says."""
        self.reads += 1
        known = self.records.get(partition, {})
        missing = [offset for offset in range(first, after) if offset not in known and offset not in excluded]
        if missing:
            raise IntegrityError(f"{partition} has no offset {missing[0]}")
        return [known[offset] for offset in range(first, after) if offset not in excluded]


class RememberingSink(ClickHouseSink):
    """The sink, with a log that knows what it was asked to write."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        plans: PlanStore,
        ranges: RememberedRanges,
        now_seconds: Callable[[], float] = since_boot_seconds,
    ) -> None:
        """As the sink; `ranges` outlives it."""
        super().__init__(clickhouse, plans, ranges, now_seconds=now_seconds)
        self._remembered = ranges
        self._rollups = Rollups(clickhouse, lambda: START_MICROS / 1e6, CALM_SECONDS, CALM_SECONDS)

    async def write(self, batch: Batch) -> None:
        """As the sink does."""
        self._remembered.remember(batch)
        await super().write(batch)
