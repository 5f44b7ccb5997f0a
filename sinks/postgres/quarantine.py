"""The quarantine in Postgres: poison of every sink, durable before its sink moves on, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from processors.quarantine.events import tried_again
from processors.quarantine.order import Waiting, may_go
from schemas.events import Alert, Event, QuarantinedRecord, QuarantineKind
from schemas.topics import topic_of
from sinks.postgres import dead_letter_queries as queries
from sinks.postgres.connect import APP_ROLE, create_pool, passing_errors
from sinks.postgres.kept_events import event_or_reason, first_event
from sinks.runner.seam import Calls, Failed, QuarantineStore, Standing, Unreadable
from streams.log import Partition

CONNECTIONS_MAX = 2
MICROS_PER_MILLI = 1_000


async def keep(connection: Any, records: Sequence[QuarantinedRecord]) -> None:
    """Insert poison within the caller's transaction; an id already kept stays as it was.

    Its owner may not have heard that somebody settled what a record is parked behind. Nobody would settle that again
    and free the record, so it is asked for at once.
    """
    await connection.executemany(queries.KEEP, [_row(record) for record in records])
    behind = {record.event_id: record.behind_event_id for record in records if record.behind_event_id is not None}
    if behind:
        await connection.execute(queries.HOLD_HEADS, sorted(set(behind.values())))
        await connection.execute(queries.ASK_FOR_LATE, list(behind))


async def tell(connection: Any, events: Sequence[Event]) -> None:
    """Keep events for their topics within the caller's transaction."""
    rows = [(event.event_id, topic_of(event).name, msgspec.json.encode(event)) for event in events]
    await connection.executemany(queries.TELL, rows)


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
        "PARKED" if record.kind is QuarantineKind.PARKED else "QUARANTINED",
        record.tenant_id,
        record.detail,
        record.attempts,
        record.first_seen_at,
        record.occurred_at // MICROS_PER_MILLI,
        record.key_bytes,
        record.order_key,
        record.behind_event_id,
    )


class Pooled:
    """A few connections under the app role, made at first use."""

    def __init__(self, dsn: str) -> None:
        """Connects nothing yet."""
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        if self._pool is None:
            self._pool = await create_pool(self._dsn, APP_ROLE, CONNECTIONS_MAX)
        with passing_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection


class PostgresQuarantine(Pooled, QuarantineStore):
    """QuarantineStore for every sink, and for the relay to the topics. Raises StoreUnavailableError."""

    async def put(self, records: Sequence[QuarantinedRecord]) -> None:
        """As the seam says."""
        async with self._transaction() as connection:
            await keep(connection, records)

    async def unpublished(self, events_max: int, without: Collection[str] = ()) -> list[Event | Unreadable]:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.UNPUBLISHED, events_max, list(without))
        return [event_or_reason(row) for row in rows]

    async def mark_published(self, event_ids: Sequence[str]) -> None:
        """As the seam says."""
        async with self._transaction() as connection:
            await connection.execute(queries.MARK_PUBLISHED, list(event_ids))
            await connection.execute(queries.MARK_EVENT_PUBLISHED, list(event_ids))

    async def standings(self, projection: str, cursors: Mapping[Partition, int]) -> dict[Partition, Standing]:
        """As the seam says."""
        given = [[each.topic for each in cursors], [each.number for each in cursors]]
        async with self._transaction() as connection:
            open_rows = await connection.fetch(queries.STANDINGS, projection, *given)
            gone = await connection.fetch(queries.DISCARDED, projection, *given, list(cursors.values()))
            pauses = await connection.fetch(queries.PAUSES_OF, projection, *given)
        unresolved: dict[Partition, list[Waiting]] = {partition: [] for partition in cursors}
        for row in open_rows:
            unresolved[Partition(row["source_topic"], row["source_partition"])].append(_waiting(row))
        known: dict[Partition, dict[int, Waiting | None]] = {
            partition: {each.offset: each for each in unresolved[partition] if each.offset >= cursor}
            for partition, cursor in cursors.items()
        }
        for row in gone:
            known[Partition(row["source_topic"], row["source_partition"])][row["source_offset"]] = None
        standings = {each: Standing(tuple(unresolved[each]), known[each]) for each in cursors}
        for row in pauses:
            each = Partition(row["topic"], row["partition"])
            why = None if row["is_resumed"] else row["reason"]
            standings[each] = Standing(standings[each].unresolved, known[each], why, row["lifted_until"])
        return standings

    async def pause(self, projection: str, partition: Partition, topic_id: str, offset: int, alert: Alert) -> None:
        """As the seam says."""
        async with self._transaction() as connection:
            await connection.execute(queries.PAUSE, projection, *partition, topic_id, offset, alert.detail)
            await tell(connection, [alert])

    async def calls(self, projection: str) -> Calls:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.CALLS, projection)
        found = [(Partition(row["topic"], row["partition"]), row["is_resumed"]) for row in rows]
        return Calls(
            tuple(sorted(each for each, is_resumed in found if not is_resumed)),
            tuple(sorted(each for each, is_resumed in found if is_resumed)),
        )

    async def take(
        self, projection: str, partition: Partition, cursor: int, records_max: int
    ) -> list[QuarantinedRecord]:
        """As the seam says."""
        async with self._transaction() as connection:
            await connection.execute(queries.LOCK_PARTITION, projection, *partition)
            pinned = await connection.fetch(queries.PINNED, projection, *partition)
            if not pinned:
                rows = await connection.fetch(queries.CANDIDATES, projection, *partition)
                asked = {row["event_id"] for row in rows if row["requested"]}
                going = may_go(partition.topic, map(_waiting, rows), asked, cursor)[:records_max]
                if not going:
                    await connection.execute(queries.NOTHING_GOES, projection, *partition, cursor)
                    return []
                await connection.execute(queries.PIN, [each.event_id for each in going], uuid4())
                pinned = await connection.fetch(queries.PINNED, projection, *partition)
        return [first_event(row) for row in pinned]

    async def settle(
        self, projection: str, partition: Partition, redriven: Sequence[str], failed: Sequence[Failed]
    ) -> None:
        """As the seam says."""
        now_micros = time.time_ns() // 1_000
        async with self._transaction() as connection:
            await connection.execute(queries.LOCK_PARTITION, projection, *partition)
            cut = {row["event_id"]: row for row in await connection.fetch(queries.IN_CUT, projection, *partition)}
            applied = [event_id for event_id in redriven if event_id in cut]
            events = [
                tried_again(first_event(cut[each]), QuarantineKind.REDRIVEN, cut[each]["attempts"] + 1, now_micros)
                for each in applied
            ]
            await connection.execute(queries.REDRIVEN, applied, f"sink/{projection}")
            for each in failed:
                if each.event_id in cut:
                    row = cut[each.event_id]
                    await connection.execute(queries.FAILED, *each)
                    attempts = row["attempts"] + 1
                    events.append(tried_again(first_event(row), QuarantineKind.FAILED, attempts, now_micros, *each[1:]))
            await connection.execute(queries.UNPIN, projection, *partition)
            await connection.execute(queries.FREE_FOLLOWERS, applied, f"sink/{projection}")
            await tell(connection, events)


def _waiting(row: Any) -> Waiting:
    return Waiting(
        row["event_id"],
        row["source_offset"],
        row["order_key"],
        row["key_bytes"],
        row["record_millis"],
        follows=row["state"] == "PARKED" and row["follows"],
    )
