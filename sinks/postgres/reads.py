"""What others ask of Postgres: totals at a barrier, a request's story, balances, the ledger's checks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import asyncpg
import msgspec

from processors.audit.entry import Source
from schemas.errors import StoreUnavailableError
from schemas.ids import is_uuid
from schemas.topics import TOPICS
from sinks.content import LogRow, Ranges, SchemaContent, StoredRow, Values
from sinks.postgres import read_queries as queries
from sinks.postgres.connect import READER_ROLE, connect, create_pool, passing_errors, use_log_types
from sinks.postgres.invariants import Invariant, limited
from sinks.postgres.ledger_figures import (
    AccountBalance,
    InvariantResult,
    Period,
    Statement,
    StatementLine,
    TrialBalance,
)
from sinks.postgres.months import EARLIEST_MICROS
from sinks.postgres.reconciliation import LEDGER_UNDER_TRAFFIC, VERIFIED
from sinks.postgres.tables import PROJECTION, TABLES, EventTable, content_hash
from sinks.retention import RETAINED_TOPICS
from sinks.totals import StoreTotals
from streams.log import Partition

CONNECTIONS_MAX = 4
ROWS_MAX = 10_000
#: Rows fetched at once when whole tables are read.
PAGE_ROWS = 2_000
#: One statement over a whole ledger.
VERIFY_SECONDS = 600.0


@dataclass(frozen=True)
class StoredEvent:
    """One event as it stands in its table."""

    topic: str
    partition: int
    offset: int
    event_id: str
    tenant_id: str
    #: Microseconds since the epoch.
    occurred_at: int
    #: Every column; times as ISO 8601 text.
    fields: dict[str, Any]


#: In the order in which a story is told when two events have the same time.
STORY_ORDER = (
    "quaestor.requests",
    "quaestor.decisions",
    "quaestor.budgets",
    "quaestor.attempts",
    "quaestor.costs",
    "quaestor.ledger",
)


class RowContent(SchemaContent):
    """Every field of a record, and the hash of its body that stands beside it."""

    def __init__(self, topic: str) -> None:
        """All of the topic's fields."""
        super().__init__(topic)
        self.names = (*self.names, "content_hash")

    def of(self, row: LogRow) -> Values:
        """As the seam says."""
        return [*super().of(row), content_hash(row.record.value)]

    def of_stored(self, row: Any) -> Values:
        """The values of a row by column name."""
        return [*self.values(row), row["content_hash"]]


class PostgresReads:
    """Reads under the reader role, over a small pool; all of it raises StoreUnavailableError while Postgres is away."""

    def __init__(self, dsn: str, events_since: int = EARLIEST_MICROS) -> None:
        """Connects at first use. Comparisons see what retention may cut (sinks/retention.py) from `events_since` on."""
        self._dsn = dsn
        self._since = dict.fromkeys(RETAINED_TOPICS, max(events_since, EARLIEST_MICROS))
        self._pool: asyncpg.Pool | None = None

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def totals(self, barrier: Mapping[Partition, int]) -> dict[str, StoreTotals]:
        """Per topic of the barrier: distinct ids, their digest and their money, over rows below it."""
        ends: dict[str, dict[int, int]] = {}
        for partition, end in barrier.items():
            ends.setdefault(partition.topic, {})[partition.number] = end
        return {topic: await self._totals(topic, ends[topic]) for topic in ends if topic in TABLES}

    async def _totals(self, topic: str, ends: Mapping[int, int]) -> StoreTotals:
        since = self._since.get(topic, EARLIEST_MICROS)
        (row,) = await self._fetch(queries.totals(TABLES[topic]), list(ends), list(ends.values()), since)
        return StoreTotals(int(row["records"]), int(row["id_digest"]), int(row["amount_nano"]))

    holds_every_record = False
    contents: ClassVar[dict[str, RowContent]] = {topic: RowContent(topic) for topic in TABLES}

    async def rows(self, ranges: Ranges) -> AsyncIterator[list[StoredRow]]:
        """Whole rows of these ranges, table by table over a connection of its own, in bounded pages."""
        connection = await connect(self._dsn, READER_ROLE)
        try:
            with passing_errors():
                await use_log_types(connection)
                await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")
                await connection.set_type_codec(
                    "jsonb", schema="pg_catalog", encoder=str, decoder=msgspec.json.decode, format="text"
                )
            for topic, table in TABLES.items():
                given = {each.number: span for each, span in ranges.items() if each.topic == topic}
                if given:
                    since = self._since.get(topic, EARLIEST_MICROS)
                    async for page in _pages(connection, table, given, since, self.contents[topic]):
                        yield page
        finally:
            connection.terminate()

    projection: ClassVar[str] = PROJECTION

    async def set_aside(self, projection: str) -> dict[Partition, set[int]]:
        """Offsets of records that a projection did not take and that wait for an operator."""
        found: dict[Partition, set[int]] = {}
        for topic, number, offset in await self._fetch(queries.SET_ASIDE, projection):
            found.setdefault(Partition(topic, number), set()).add(offset)
        return found

    async def cursors(self) -> dict[Partition, int]:
        """Where the projection stands."""
        rows = await self._fetch(queries.CURSORS, PROJECTION)
        return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def quarantined_count(self, sink: str | None = None) -> int:
        """Records in the quarantine outbox, of one projection or of all."""
        (row,) = await self._fetch(queries.QUARANTINED, sink)
        return int(row[0])

    async def story(self, request_id: str) -> list[StoredEvent]:
        """Every event of a request across all topics, ledger transfers included, in the order they happened."""
        found = [event for topic in STORY_ORDER for event in await self._story(topic, request_id)]
        return sorted(found, key=lambda event: (event.occurred_at, _step(event), event.partition, event.offset))

    async def _story(self, topic: str, request_id: str) -> list[StoredEvent]:
        rows = await self._fetch(queries.story(TABLES[topic]), request_id)
        return [
            StoredEvent(
                topic,
                row["log_partition"],
                row["log_offset"],
                row["event_id"],
                row["tenant_id"],
                row["occurred_at"],
                json.loads(row["fields"]),
            )
            for row in rows
        ]

    async def actors(self, sources: Iterable[Source]) -> dict[str, str]:
        """Who caused the events that audit entries are of, by event id; those that have no row are left out."""
        asked: dict[str, list[Source]] = {}
        for source in sources:
            if is_uuid(source.event_id) and source.topic in TABLES:
                asked.setdefault(source.topic, []).append(source)
        found: dict[str, str] = {}
        for topic, of_topic in asked.items():
            tenants, ids, times = zip(
                *((each.tenant_id, each.event_id, each.time_micros) for each in of_topic), strict=True
            )
            rows = await self._fetch(queries.actors(TABLES[topic]), tenants, ids, times)
            found |= {row["event_id"]: row["actor"] for row in rows}
        return found

    async def month_tables(self, micros: int) -> frozenset[str]:
        """The topics whose events of the month of this time have a table: retention drops whole months."""
        names = [table.name for table in TABLES.values()]
        found = {row["name"] for row in await self._fetch(queries.MONTH_TABLES, names, micros)}
        return frozenset(topic for topic, table in TABLES.items() if table.name in found)

    async def sealed_events(self, tenant_id: str, handle: str) -> int | None:
        """Events with something sealed for this handle; None when counting them takes too long."""
        try:
            ((count,),) = await self._fetch(queries.SEALED_EVENTS, tenant_id, handle)
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                return None
            raise
        return int(count)

    async def trial_balance(
        self, tenant_id: str | None = None, prefix: str | None = None, period: Period | None = None
    ) -> TrialBalance:
        """The trial balance of every account, or of those of a tenant, or of those whose name begins so.

        What stands on them now; with a period what moved on them in it.
        """
        pattern = None if prefix is None else prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        given = (tenant_id, pattern, ROWS_MAX)
        if period is None:
            rows = await self._fetch(queries.BALANCES, *given)
        else:
            rows = await self._fetch(queries.MOVEMENTS, *given, *period.bounds)
        totals = [row for row in rows if row["summed"] is not None]
        accounts = [_balance(row) for row in rows if row["summed"] is None]
        return TrialBalance(accounts, list(map(_balance, totals)), sum(row["summed"] for row in totals))

    async def has_account(self, tenant_id: str, account: str) -> bool:
        """Whether anything ever moved on an account of this name."""
        ((found,),) = await self._fetch(queries.HAS_ACCOUNT, tenant_id, account)
        return bool(found)

    async def statement(
        self, tenant_id: str, account: str, limit: int = 100, period: Period | None = None
    ) -> Statement:
        """What the newest transfers, or those of a period, did to an account, newest first."""
        bounds = (period or Period()).bounds
        rows = await self._fetch(queries.STATEMENT, tenant_id, account, min(limit, ROWS_MAX), *bounds)
        return Statement([StatementLine(*list(row.values())[:-1]) for row in rows], rows[0]["lines"] if rows else 0)

    async def recent_requests(self, tenant_id: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The last requests that ended, newest first."""
        rows = await self._fetch(queries.RECENT_REQUESTS, tenant_id, min(limit, ROWS_MAX))
        return [dict(row) for row in rows]

    async def keys(self, tenant_id: str | None = None) -> list[dict[str, Any]]:
        """Virtual keys, revoked ones too; never the key itself."""
        return [dict(row) for row in await self._fetch(queries.KEYS, tenant_id, ROWS_MAX)]

    async def spending(self, tenant_id: str | None = None) -> list[dict[str, Any]]:
        """Cost by team, provider and model, dearest first; amount_nano as text."""
        return [dict(row) for row in await self._fetch(queries.SPENDING, tenant_id, ROWS_MAX)]

    async def verify_ledger(
        self, *, under_traffic: bool = False, overdue_before: int = EARLIEST_MICROS
    ) -> list[InvariantResult]:
        """Every invariant of the ledger, all on one snapshot of the database.

        `under_traffic`: those only that also hold while the ledger is behind the holds. Holds whose lease ended before
        `overdue_before` must have ended, microseconds since the epoch.
        """
        asked = LEDGER_UNDER_TRAFFIC if under_traffic else VERIFIED
        connection = await connect(self._dsn, READER_ROLE, VERIFY_SECONDS)
        try:
            with passing_errors():
                await use_log_types(connection)
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return [await _judged(connection, each, overdue_before) for each in asked]
        finally:
            connection.terminate()

    async def ping(self) -> None:
        """Nothing, when Postgres answers."""
        await self._fetch("SELECT 1")

    async def _fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        pool = await self._connected()
        with passing_errors():
            return list(await pool.fetch(sql, *arguments))

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = await create_pool(self._dsn, READER_ROLE, CONNECTIONS_MAX)
        return self._pool


async def _pages(
    connection: asyncpg.Connection,
    table: EventTable,
    given: Mapping[int, tuple[int, int]],
    since: int,
    content: RowContent,
) -> AsyncIterator[list[StoredRow]]:
    firsts, afters = zip(*given.values(), strict=True)
    with passing_errors():
        async with connection.transaction(readonly=True):
            cursor = await connection.cursor(queries.content(table), list(given), list(firsts), list(afters), since)
            while rows := await cursor.fetch(PAGE_ROWS):
                yield [
                    StoredRow(
                        Partition(table.topic, row["log_partition"]),
                        row["log_offset"],
                        row["tenant_id"],
                        row["event_id"],
                        content.of_stored(row),
                    )
                    for row in rows
                ]


def _balance(row: asyncpg.Record) -> AccountBalance:
    tenant_id, account, currency, *sums, _ = row.values()
    return AccountBalance(tenant_id, account, currency, *map(int, sums))


async def _judged(connection: asyncpg.Connection, invariant: Invariant, overdue_before: int) -> InvariantResult:
    rows = await connection.fetch(limited(invariant), *([overdue_before] if invariant.has_due else []))
    count = int(rows[0]["differences"]) if rows else 0
    return InvariantResult(invariant.name, invariant.claim, count, {row["id"]: row["difference"] for row in rows})


def _step(event: StoredEvent) -> int:
    """Where an event stands among those of the same microsecond."""
    if event.topic == "quaestor.requests" and event.fields["kind"] != "RECEIVED":
        return len(TOPICS)
    return STORY_ORDER.index(event.topic)


__all__ = ["PostgresReads", "StoredEvent"]
