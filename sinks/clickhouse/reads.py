"""What others ask of ClickHouse: totals at a barrier, cursors, and the first questions of analysts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from schemas.money import NANO_PER_UNIT
from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.plans import PlanStore
from sinks.clickhouse.sink import PROJECTION
from sinks.clickhouse.tables import OMITTED, TABLES, FactTable
from sinks.content import Ranges, SchemaContent, StoredRow
from sinks.retention import RETAINED_TOPICS
from sinks.totals import NO_TOTALS, StoreTotals
from streams.log import Partition

ROWS_MAX = 10_000
#: Offsets of every partition that are read at once when whole tables are read.
PAGE_OFFSETS = 4_096


@dataclass(frozen=True)
class TeamModelCost:
    """What one team spent on one model in one currency."""

    team_id: str
    model: str
    currency: str
    amount_nano: int
    tokens: int


@dataclass(frozen=True)
class RequestHour:
    """How the requests that ended within one hour ended."""

    #: Start of the hour, microseconds since the epoch.
    hour: int
    requests: int
    completed: int
    failed: int
    refused: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class ModelCost:
    """What one model cost in one currency."""

    provider_id: str
    model: str
    currency: str
    amount_nano: int
    attempts: int


@dataclass(frozen=True)
class ModelLatency:
    """Latency of the requests one model served, estimated, microseconds; first chunks are 0 without streams."""

    provider_id: str
    model: str
    requests: int
    p50_micros: int
    p95_micros: int
    p99_micros: int
    first_chunk_p50_micros: int
    first_chunk_p95_micros: int
    first_chunk_p99_micros: int


@dataclass(frozen=True)
class RollupSums:
    """Events, quantity and money of a rollup, and of its facts before and after it was read."""

    name: str
    before: tuple[Any, ...]
    rollup: tuple[Any, ...]
    after: tuple[Any, ...]

    @property
    def agrees(self) -> bool:
        """Whether the rollup can be that of its facts: the same, or in between while events come in."""
        if self.before == self.after:
            return self.rollup == self.after
        return bool(self.before[0] <= self.rollup[0] <= self.after[0])


class ClickHouseReads:
    """Reads of one database; all of it raises StoreUnavailableError while ClickHouse is away."""

    def __init__(
        self, clickhouse: ClickHouse, plans: PlanStore, projection: str = PROJECTION, events_since: int = 0
    ) -> None:
        """Connects at first use; both belong to these reads from now on.

        Comparisons see what retention may cut (sinks/retention.py) from `events_since` on, a month's first moment.
        """
        self._events_since = events_since
        self._since = dict.fromkeys(RETAINED_TOPICS, events_since)
        self._clickhouse = clickhouse
        self._plans = plans
        self._projection = projection

    async def close(self) -> None:
        """Let go of connections."""
        await self._clickhouse.close()
        await self._plans.close()

    async def totals(self, barrier: Mapping[Partition, int]) -> dict[str, StoreTotals]:
        """Per fact topic of the barrier: distinct ids, their digest and their money, over rows below it."""
        ends: dict[str, dict[int, int]] = {}
        for partition, end in barrier.items():
            ends.setdefault(partition.topic, {})[partition.number] = end
        return {topic: await self._totals(topic, ends[topic]) for topic in TABLES if topic in ends}

    async def _totals(self, topic: str, ends: Mapping[int, int]) -> StoreTotals:
        if not ends:
            return NO_TOTALS
        rows = await self._clickhouse.query(
            queries.totals(self._clickhouse.database, TABLES[topic], ends, self._since.get(topic, 0))
        )
        return StoreTotals(*(int(value) for value in rows[0]))

    async def rollups(self) -> list[RollupSums]:
        """Each rollup's sums beside those of its facts; facts are read on both sides of it, since inserts go on."""
        found = []
        for name, rollup, facts in queries.rolled_up(self._clickhouse.database, self._events_since):
            before = await self._clickhouse.query(facts)
            sums = await self._clickhouse.query(rollup)
            found.append(RollupSums(name, before[0], sums[0], (await self._clickhouse.query(facts))[0]))
        return found

    holds_every_record = False
    contents: ClassVar[dict[str, SchemaContent]] = {
        topic: SchemaContent(topic, OMITTED, null_text_is_empty=True) for topic in TABLES
    }

    async def rows(self, ranges: Ranges) -> AsyncIterator[list[StoredRow]]:
        """Whole rows of these ranges, table by table, a bounded range of offsets at a time."""
        for topic, table in TABLES.items():
            given = {each.number: span for each, span in ranges.items() if each.topic == topic}
            first = min((span[0] for span in given.values()), default=0)
            last = max((span[1] for span in given.values()), default=0)
            for begin in range(first, last, PAGE_OFFSETS):
                page = {
                    number: (max(begin, span[0]), min(begin + PAGE_OFFSETS, span[1])) for number, span in given.items()
                }
                yield await self._page(table, page)

    async def _page(self, table: FactTable, ranges: Mapping[int, tuple[int, int]]) -> list[StoredRow]:
        rows = await self._clickhouse.query(
            queries.content(self._clickhouse.database, table, ranges, self._since.get(table.topic, 0))
        )
        content, names = self.contents[table.topic], [column.name for column in table.columns]
        nested = sorted({name.partition(".")[0] for name in names if "." in name})
        found = []
        for number, offset, *values in rows:
            fields = dict(zip(names, values, strict=True))
            fields |= {field: _unnested(field, fields) for field in nested}
            name = fields["tenant_id"], fields["event_id"]
            found.append(StoredRow(Partition(table.topic, number), offset, *name, content.values(fields)))
        return found

    async def cursors(self) -> dict[Partition, int]:
        """Next offset of every partition of the projection."""
        return await self._plans.cursors(self._projection)

    async def cost_by_team_and_model(self, tenant_id: str, since: int, rows_max: int = ROWS_MAX) -> list[TeamModelCost]:
        """Spend since the hour of a time (microseconds), dearest first; corrections are in it."""
        rows = await self._ask(queries.cost_by_team_and_model, tenant_id, since, rows_max)
        return [
            TeamModelCost(team, model, currency, _nano(spent), int(tokens))
            for team, model, currency, spent, tokens in rows
        ]

    async def requests_by_hour(self, tenant_id: str, since: int, rows_max: int = ROWS_MAX) -> list[RequestHour]:
        """Requests per hour since the hour of a time (microseconds), oldest first."""
        rows = await self._ask(queries.requests_by_hour, tenant_id, since, rows_max)
        return [RequestHour(int(hour) * 1_000_000, *map(int, rest)) for hour, *rest in rows]

    async def top_models(self, tenant_id: str, since: int, rows_max: int = 10) -> list[ModelCost]:
        """The models that cost most since a time (microseconds), dearest first."""
        rows = await self._ask(queries.top_models, tenant_id, since, rows_max)
        return [
            ModelCost(provider, model, currency, _nano(spent), int(count))
            for provider, model, currency, spent, count in rows
        ]

    async def latency(self, tenant_id: str, since: int, rows_max: int = ROWS_MAX) -> list[ModelLatency]:
        """Latency per model since the hour of a time (microseconds), busiest first."""
        rows = await self._ask(queries.latency, tenant_id, since, rows_max)
        return [
            ModelLatency(provider, model, int(requests), *map(_micros, total), *map(_micros, first))
            for provider, model, requests, total, first in rows
        ]

    async def _ask(self, query: Any, tenant_id: str, since: int, rows_max: int) -> list[tuple[Any, ...]]:
        parameters = {"tenant_id": tenant_id, "since": since, "rows": rows_max}
        return await self._clickhouse.query(query(self._clickhouse.database), parameters)


def _unnested(field: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns `field.inner` of a row, arrays of one length, as a list of records."""
    columns = {name.partition(".")[2]: values for name, values in row.items() if name.startswith(f"{field}.")}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _nano(amount: Decimal) -> int:
    """Nano-units of an exact Decimal of nine places."""
    return int(amount * NANO_PER_UNIT)


def _micros(quantile: float) -> int:
    """A quantile in whole microseconds; 0 where there was nothing to measure."""
    return 0 if math.isnan(quantile) else round(quantile)
