"""The audit log's rows in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import asyncpg

from processors.audit.entry import Head, Sealed
from schemas.errors import FencedError, GapError, IntegrityError, StoreUnavailableError
from sinks.audit.store import CursorMove, EntryFilter, EntryPlace, Found, LogState, Snapshot, StoredEntry
from sinks.postgres.audit import queries, search
from sinks.postgres.audit.copy import COLUMNS, copies
from sinks.postgres.connect import APP_ROLE, create_pool, freeing_locks, passing_errors
from sinks.totals import NO_TOTALS, StoreTotals
from streams.log import Partition

Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy
CONNECTIONS_MAX = 3
#: Bound of a read over the whole log.
SCAN_SECONDS_MAX = 900.0
PAGE_ROWS = 4_096


@contextmanager
def faults() -> Iterator[None]:
    """Tell what Postgres raises as faults of the product: what passes, and constraints that refuse for good."""
    try:
        with passing_errors():
            yield
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise IntegrityError(f"the audit log's tables refuse the batch: {error}") from error


class PostgresAuditStore:
    """An AuditStore in Postgres, of one log."""

    def __init__(self, dsn: str, log: str, role: str = APP_ROLE) -> None:
        """Nothing is connected before `open`; the reader role can't write."""
        self._dsn = dsn
        self._role = role
        self._log = log
        self._pool: asyncpg.Pool | None = None
        #: End of the last table partition known to exist.
        self._partitioned_to = 0
        #: Whose windows are known to be written.
        self._window_tenants = search.NO_TENANTS

    @property
    def _connections(self) -> asyncpg.Pool:
        if self._pool is None:
            raise StoreUnavailableError("Postgres: not connected")
        return self._pool

    async def open(self) -> None:
        """Connect and make the log's row; raises StoreUnavailableError."""
        async with freeing_locks(self._dsn):
            with faults():
                if self._pool is None:
                    self._pool = await create_pool(self._dsn, self._role, CONNECTIONS_MAX)
                if self._role == APP_ROLE:
                    await self._pool.execute(queries.MAKE_LOG, self._log)

    async def close(self) -> None:
        """Let go of the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def claim(self, owner: str, topic_ids: Mapping[Partition, str]) -> LogState:
        """Raise the epoch, make missing cursors, check topic UUIDs; one transaction."""
        topics, numbers = _columns(topic_ids)
        new = (self._log, topics, numbers, list(topic_ids.values()))
        async with freeing_locks(self._dsn):
            with faults():
                async with self._connections.acquire() as connection, connection.transaction():
                    state = _state(await connection.fetchrow(queries.CLAIM, self._log, owner))
                    await connection.execute(queries.MAKE_CURSORS, *new)
                    foreign = await connection.fetchrow(queries.FOREIGN_CURSOR, *new)
        if foreign is not None:
            topic, number, known, found = foreign
            raise IntegrityError(
                f"{topic}/{number} is of topic {known} in the audit log, of {found} in Kafka: the topic was made anew"
            )
        return state

    async def state(self) -> LogState:
        """Where the log stands."""
        with faults():
            return _state(await self._connections.fetchrow(queries.STATE, self._log))

    async def snapshot(self) -> Snapshot:
        """State, heads and cursors in one repeatable-read transaction."""
        with faults():
            async with (
                self._connections.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                state = _state(await connection.fetchrow(queries.STATE, self._log))
                heads = _heads(await connection.fetch(queries.HEADS, self._log))
                return Snapshot(state, heads, _cursors(await connection.fetch(queries.CURSORS, self._log)))

    async def cursors(self) -> dict[Partition, int]:
        """Next offset per partition."""
        with faults():
            return _cursors(await self._connections.fetch(queries.CURSORS, self._log))

    async def heads(self, tenants: Sequence[str] | None = None) -> dict[str, Head]:
        """Chain heads of some tenants, or of all."""
        with faults():
            if tenants is None:
                return _heads(await self._connections.fetch(queries.HEADS, self._log))
            return _heads(await self._connections.fetch(queries.HEADS_OF, self._log, tenants))

    async def append(
        self, epoch: int, sealed: Sequence[Sealed], heads: Mapping[str, Head], moves: Sequence[CursorMove]
    ) -> None:
        """One transaction: position and epoch, cursors, entries by COPY, heads."""
        # What is made by a transaction that rolls back is not there.
        partitioned_to, self._partitioned_to = self._partitioned_to, 0
        tenants, self._window_tenants = self._window_tenants, search.NO_TENANTS
        async with freeing_locks(self._dsn):
            with faults():
                async with self._connections.acquire() as connection, connection.transaction():
                    if sealed:
                        partitioned_to = await self._advance(connection, epoch, sealed, partitioned_to)
                    await self._move_cursors(connection, moves)
                    if sealed:
                        await connection.copy_to_table(
                            "audit_entry",
                            schema_name="quaestor",
                            columns=COLUMNS,
                            source=_each(copies(self._log, sealed)),
                            format="binary",
                        )
                        tenants = await search.widen(connection.execute, self._log, sealed, tenants)
                    tseqs, chains = [head.tseq for head in heads.values()], [head.chain for head in heads.values()]
                    await connection.execute(queries.MOVE_HEADS, self._log, list(heads), tseqs, chains)
        self._partitioned_to, self._window_tenants = partitioned_to, tenants

    async def _advance(self, connection: Connection, epoch: int, sealed: Sequence[Sealed], partitioned_to: int) -> int:
        """Take the positions and make the table partitions they need; returns where partitions end now."""
        first, end = sealed[0].seq, sealed[-1].seq + 1
        if await connection.fetchrow(queries.ADVANCE, self._log, epoch, first, end) is None:
            state = _state(await connection.fetchrow(queries.STATE, self._log))
            if state.epoch != epoch:
                raise FencedError(f"audit log {self._log}", epoch)
            raise GapError(f"audit log {self._log}", state.next_seq, first)
        while partitioned_to < end:
            partitioned_to = await connection.fetchval(queries.MAKE_PARTITION, max(partitioned_to, first))
        return partitioned_to

    async def _move_cursors(self, connection: Connection, moves: Sequence[CursorMove]) -> None:
        topics, numbers = _columns(move.partition for move in moves)
        ids = [move.topic_id for move in moves]
        firsts, nexts = [move.first_offset for move in moves], [move.next_offset for move in moves]
        moved = await connection.fetch(queries.MOVE_CURSORS, self._log, topics, numbers, ids, firsts, nexts)
        if len(moved) != len(moves):
            raise GapError("a cursor of the audit log", -1, firsts[0])

    async def entries(self, first: int, end: int) -> list[tuple[bytes, bytes]]:
        """(leaf, entry) of a range."""
        with faults():
            rows = await self._connections.fetch(queries.ENTRIES, self._log, first, end)
        return [(leaf, entry) for leaf, entry in rows]

    async def rows(self, first: int, end: int) -> AsyncIterator[list[StoredEntry]]:
        """Rows of a range, a page at a time."""
        for start in range(first, end, PAGE_ROWS):
            with faults():
                found = await self._connections.fetch(queries.ROWS, self._log, start, min(start + PAGE_ROWS, end))
            yield [StoredEntry(*row) for row in found]

    async def integrated(self, epoch: int, size: int, root: bytes) -> None:
        """Move the integrated mark under the epoch."""
        with faults():
            if await self._connections.fetchrow(queries.INTEGRATED, self._log, epoch, size, root) is None:
                raise FencedError(f"audit log {self._log}", epoch)

    async def checkpointed(self, size: int, note: str) -> None:
        """Keep a checkpoint."""
        with faults():
            await self._connections.execute(queries.KEEP_CHECKPOINT, self._log, size, note)

    async def checkpoints(self) -> dict[int, str]:
        """Every checkpoint kept."""
        with faults():
            rows = await self._connections.fetch(queries.CHECKPOINTS, self._log)
        return {row["size"]: row["note"] for row in rows}

    async def totals(self, barrier: Mapping[Partition, int], first_seq: int = 0) -> dict[str, StoreTotals]:
        """Totals below the barrier."""
        rows = await self._scan(queries.TOTALS, barrier, first_seq)
        found = {topic: StoreTotals(records, int(digest), int(amount)) for topic, records, digest, amount in rows}
        return {partition.topic: NO_TOTALS for partition in barrier} | found

    async def counts(self, barrier: Mapping[Partition, int]) -> dict[str, int]:
        """Entries below the barrier per topic: one per (topic, partition, offset), undecodable ones included."""
        rows = await self._scan(queries.COUNTS, barrier)
        return {partition.topic: 0 for partition in barrier} | {row[0]: row[1] for row in rows}

    async def _scan(self, query: str, barrier: Mapping[Partition, int], *more: int) -> list[asyncpg.Record]:
        """A read over the whole log, which may take longer than a statement's usual bound."""
        with faults():
            async with self._connections.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute(queries.NO_STATEMENT_BOUND)
                return await connection.fetch(
                    query, self._log, *_columns(barrier), list(barrier.values()), *more, timeout=SCAN_SECONDS_MAX
                )

    async def of_control(self, event_id: str) -> EntryPlace | None:
        """Where the entry of a control event is."""
        with faults():
            row = await self._connections.fetchrow(queries.OF_CONTROL, self._log, event_id)
        return None if row is None else EntryPlace(*row)

    async def of_request(self, request_id: str) -> list[EntryPlace]:
        """Where the entries of a request are, in the log's order."""
        with faults():
            rows = await self._connections.fetch(queries.OF_REQUEST, self._log, request_id)
        return [EntryPlace(*row) for row in rows]

    async def find(self, wanted: EntryFilter, before: int, limit: int) -> Found:
        """Up to `limit` entries below a position that are looked for, newest first."""
        with faults():
            return await search.find(self._connections.fetch, self._log, wanted, before, limit)


async def _each(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _state(row: asyncpg.Record | None) -> LogState:
    if row is None:
        return LogState()
    return LogState(*row)


def _heads(rows: Sequence[asyncpg.Record]) -> dict[str, Head]:
    return {tenant: Head(tseq, chain) for tenant, tseq, chain in rows}


def _cursors(rows: Sequence[asyncpg.Record]) -> dict[Partition, int]:
    return {Partition(topic, number): offset for topic, number, offset in rows}


def _columns(partitions: Iterable[Partition]) -> tuple[list[str], list[int]]:
    listed = list(partitions)
    return [partition.topic for partition in listed], [partition.number for partition in listed]
