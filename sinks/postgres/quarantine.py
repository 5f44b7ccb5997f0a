"""The quarantine outbox in Postgres: poison of every sink, durable before its sink moves on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from schemas.events import QuarantinedRecord
from sinks.postgres import queries
from sinks.postgres.connect import APP_ROLE, create_pool, passing_errors

CONNECTIONS_MAX = 2


async def keep(connection: Any, records: Sequence[QuarantinedRecord]) -> None:
    """Insert poison within the caller's transaction; an id already kept stays as it was."""
    await connection.executemany(queries.KEEP_POISON, [_row(record) for record in records])


def _row(record: QuarantinedRecord) -> tuple[Any, ...]:
    return (
        record.event_id,
        record.sink,
        record.source_topic,
        record.source_topic_id,
        record.source_partition,
        record.source_offset,
        record.reason,
        record.fingerprint,
        msgspec.json.encode(record),
    )


class PostgresQuarantine:
    """QuarantineStore for sinks whose own store is not Postgres, and for the relay to the topic."""

    def __init__(self, dsn: str) -> None:
        """Connects at first use."""
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None

    async def put(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            async with pool.acquire() as connection, connection.transaction():
                await keep(connection, records)

    async def unpublished(self, records_max: int) -> list[QuarantinedRecord]:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            rows = await pool.fetch(queries.UNPUBLISHED, records_max)
        return [msgspec.json.decode(row["body"], type=QuarantinedRecord) for row in rows]

    async def mark_published(self, event_ids: Sequence[str]) -> None:
        """As the seam says."""
        pool = await self._connected()
        with passing_errors():
            await pool.execute(queries.MARK_PUBLISHED, list(event_ids))

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool is not None:
            await self._pool.close()

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = await create_pool(self._dsn, APP_ROLE, CONNECTIONS_MAX)
        return self._pool
