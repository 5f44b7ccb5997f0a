"""Months of raw facts in ClickHouse that retention may cut. Rollups stay: they have no rows of single requests."""

from __future__ import annotations

from datetime import date

from sinks.clickhouse import queries
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.tables import TABLES
from sinks.retention import RETAINED_TOPICS, StoredMonth


class ClickHouseRetention:
    """A MonthStore."""

    name = "clickhouse"

    def __init__(self, clickhouse: ClickHouse) -> None:
        """Connects at first use; the client belongs to this store from now on."""
        self._clickhouse = clickhouse

    async def months(self, before: date) -> list[StoredMonth]:
        """As the seam says."""
        tables = [TABLES[topic].name for topic in RETAINED_TOPICS]
        rows = await self._clickhouse.query(queries.stored_months(self._clickhouse.database, tables))
        found = [
            StoredMonth(self.name, table, date(int(month[:4]), int(month[4:]), 1), int(count), int(size))
            for table, month, count, size in rows
        ]
        return [each for each in found if each.month < before]

    async def drop(self, month: StoredMonth) -> None:
        """As the seam says."""
        await self._clickhouse.command(queries.drop_month(self._clickhouse.database, month.table, month.month))

    async def close(self) -> None:
        """Let go."""
        await self._clickhouse.close()
