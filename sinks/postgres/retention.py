"""What retention drops in Postgres, under a role that can do nothing else."""

from __future__ import annotations

from datetime import date
from typing import Any

import asyncpg

from schemas.errors import IntegrityError
from sinks.postgres.connect import connect, passing_errors
from sinks.retention import StoredMonth

RETENTION_ROLE = "quaestor_retention"
#: Bound of counting or dropping; a lock is waited for as long as everywhere.
STATEMENT_SECONDS = 600.0
DROP_ENTRIES = "SELECT quaestor.drop_audit_entries($1, $2)"
DROP_MONTH = "SELECT quaestor.drop_month($1, $2)"
MONTHS = "SELECT event_table, month, row_count, byte_count FROM quaestor.retained_months($1)"


class PostgresRetention:
    """A MonthStore, and the EntryRows of one audit log. One call at a time; connects at first use."""

    name = "postgres"

    def __init__(self, dsn: str, log: str) -> None:
        """Nothing is connected yet."""
        self._dsn = dsn
        self._log = log
        self._connection: asyncpg.Connection | None = None

    async def months(self, before: date) -> list[StoredMonth]:
        """As the seam says."""
        return [StoredMonth(self.name, *row) for row in await self._fetch(MONTHS, before)]

    async def drop(self, month: StoredMonth) -> None:
        """As the seam says."""
        await self._fetch(DROP_MONTH, month.table, month.month)

    async def drop_entries(self, below: int) -> int:
        """As `sinks.audit.retention.EntryRows` says."""
        return int((await self._fetch(DROP_ENTRIES, self._log, below))[0][0])

    async def close(self) -> None:
        """Let go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, RETENTION_ROLE, STATEMENT_SECONDS)
        try:
            with passing_errors():
                return list(await self._connection.fetch(sql, *arguments))
        except asyncpg.DataError as error:
            raise IntegrityError(f"Postgres refuses: {error}") from error
