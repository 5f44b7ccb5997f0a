"""How limits stood at the end of each hour, in Postgres: where Redis gets them back from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg

from processors.guardrails.hours import Standing
from schemas.errors import StoreUnavailableError
from sinks.postgres.connect import APP_ROLE, connect, passing_errors
from sinks.redis.hours import KEPT_HOURS, HourStore

#: Each statement reads or writes the rows of one limit.
STATEMENT_SECONDS = 5.0
KEEP = """
INSERT INTO quaestor.limit_hour (tenant_id, limit_id, hour, window_start, posted_nano)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (tenant_id, limit_id, hour)
DO UPDATE SET window_start = excluded.window_start, posted_nano = excluded.posted_nano
"""
#: Of every limit: nobody puts anything of those that are gone.
FORGET = "DELETE FROM quaestor.limit_hour WHERE hour <= $1"
KEPT = """
SELECT hour, window_start, posted_nano
FROM quaestor.limit_hour
WHERE tenant_id = $1 AND limit_id = $2
"""


class PostgresHours(HourStore):
    """HourStore for the watch over limits. Whatever Postgres objects to is StoreUnavailableError: alerts go on."""

    def __init__(self, dsn: str) -> None:
        """Connects at first use."""
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def put(self, tenant_id: str, limit_id: str, standings: Mapping[int, Standing]) -> None:
        """As the seam says; old ones of other limits go too."""
        starts, sums = zip(*standings.values(), strict=True)
        async with self._asked() as connection:
            await connection.execute(KEEP, tenant_id, limit_id, list(standings), list(starts), list(sums))
            await connection.execute(FORGET, max(standings) - KEPT_HOURS)

    async def standings(self, tenant_id: str, limit_id: str) -> dict[int, Standing]:
        """As the seam says."""
        async with self._asked() as connection:
            rows = await connection.fetch(KEPT, tenant_id, limit_id)
        return {row["hour"]: Standing(row["window_start"], row["posted_nano"]) for row in rows}

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[asyncpg.Connection]:
        """The one connection. It goes after a fault, and when whoever asks leaves: at once, answered or not."""
        try:
            with passing_errors():
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn, APP_ROLE, STATEMENT_SECONDS)
                yield self._connection
        except asyncpg.PostgresError as error:
            await self.close()
            raise StoreUnavailableError(f"Postgres: {type(error).__name__}: {error}") from error
        except BaseException:
            await self.close()
            raise
