"""Plans of the ClickHouse sink in Postgres: cursors, open plans and the index of event ids, under one fence."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg

from schemas.errors import FencedError, IntegrityError, QuaestorError, StoreUnavailableError
from schemas.limits import ID_HORIZON_DAYS
from sinks.clickhouse.plans import (
    Draft,
    Held,
    Misplaced,
    Piece,
    Plan,
    Planned,
    PlanStore,
    misplaced,
    plans_of,
)
from sinks.postgres import plan_queries, queries
from sinks.postgres.connect import APP_ROLE, connect, freeing_locks, passing_errors
from streams.log import Partition

MICROS_PER_DAY = 86_400_000_000


class PostgresPlanStore(PlanStore):
    """PlanStore over one connection; used from one event loop, one call at a time."""

    def __init__(self, dsn: str, owner: str) -> None:
        """`owner` says who holds a partition, for people; the epoch is what fences."""
        self._dsn = dsn
        self._owner = owner
        self._connection: asyncpg.Connection | None = None
        self._days: set[date] = set()

    async def open(self) -> None:
        """As the seam says."""
        await self._connected()

    async def close(self) -> None:
        """As the seam says."""
        self._drop()

    async def claim(
        self, projection: str, partitions: Sequence[Partition], topic_ids: Mapping[str, str]
    ) -> dict[Partition, Held]:
        """As the seam says; waits for a transaction an earlier owner has open. Old days of the index go here too."""
        given = sorted(partitions)
        ids = [topic_ids[each.topic] for each in given]
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.CLAIM, projection, self._owner, *_columns(given), ids)
            for row in rows:
                if row["topic_id"] != topic_ids[row["topic"]]:
                    where = f"{row['topic']}/{row['partition']}"
                    raise IntegrityError(f"{where}: the cursor belongs to an earlier topic of this name")
            await connection.execute(plan_queries.FORGET, projection)
            if await connection.fetchval(plan_queries.DROP_DAYS, ID_HORIZON_DAYS):
                self._days.clear()
        return {Partition(row["topic"], row["partition"]): Held(row["next_offset"], row["epoch"]) for row in rows}

    async def left_open(self, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
        """As the seam says."""
        async with self._transaction() as connection:
            return await _left_open(connection, projection, sorted(partitions))

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """As the seam says."""
        drafts = sorted(drafts, key=lambda draft: draft.partition)
        partitions = [draft.partition for draft in drafts]
        index = _Index(drafts)
        await self._ensure_days(index.days)
        async with self._transaction() as connection:
            rows = await connection.fetch(plan_queries.HOLD, projection, *_columns(partitions))
            held = {Partition(row["topic"], row["partition"]): Held(row["next_offset"], row["epoch"]) for row in rows}
            wrong = misplaced(drafts, held, epochs)
            waiting = await _left_open(connection, projection, partitions)
            if waiting:
                return Planned(tuple(waiting), left_open=True)
            if wrong is not None:
                return wrong
            planned = plans_of(projection, drafts, await _learn(connection, projection, index))
            await connection.executemany(plan_queries.PLAN, _plan_rows(projection, planned, epochs))
        return Planned(planned, left_open=False)

    async def settle(self, projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> None:
        """As the seam says."""
        pieces = sorted(
            (piece for plan in plans for piece in plan.pieces if piece.partition in epochs),
            key=lambda piece: piece.partition,
        )
        columns = _columns([piece.partition for piece in pieces])
        firsts = [piece.first_offset for piece in pieces]
        nexts = [piece.next_offset for piece in pieces]
        held = [epochs[piece.partition] for piece in pieces]
        async with self._transaction() as connection:
            moved = await connection.execute(queries.ADVANCE, projection, *columns, firsts, nexts, held)
            if _count(moved) != len(pieces):
                await self._explain(connection, projection, pieces, epochs)
            await connection.execute(plan_queries.SETTLE, projection, *columns, firsts)
            await connection.execute(plan_queries.FORGET, projection)

    async def cursors(self, projection: str) -> dict[Partition, int]:
        """Where the projection stands, all partitions; raises StoreUnavailableError."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.CURSORS, projection)
        return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def _explain(
        self, connection: asyncpg.Connection, projection: str, pieces: Sequence[Piece], epochs: Mapping[Partition, int]
    ) -> None:
        """Raise FencedError for a lost partition; pass when the missing cursors are settled already."""
        rows = await connection.fetch(plan_queries.HOLD, projection, *_columns([each.partition for each in pieces]))
        held = {Partition(row["topic"], row["partition"]): Held(row["next_offset"], row["epoch"]) for row in rows}
        for piece in pieces:
            stands, epoch = held.get(piece.partition), epochs[piece.partition]
            if stands is None or stands.epoch != epoch:
                raise FencedError(str(piece.partition), epoch)
            if stands.next_offset < piece.next_offset:
                raise IntegrityError(f"{piece.partition} stands at {stands.next_offset} before {piece.next_offset}")

    async def _ensure_days(self, days: Iterable[date]) -> None:
        for day in sorted(set(days) - self._days):
            connection = await self._connected()
            with passing_errors():
                await connection.execute(plan_queries.ENSURE_DAY, day)
            self._days.add(day)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._drop()
            try:
                self._connection = await connect(self._dsn, APP_ROLE)
            except asyncpg.InvalidCatalogNameError as error:
                raise StoreUnavailableError(f"Postgres: {error}; run `quaestor migrate`") from error
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction on the one connection; after anything unexpected, cancellation too, the connection goes.

        Dropping the connection makes the server roll back what it had not been told to commit.
        """
        connection = await self._connected()
        try:
            async with freeing_locks(self._dsn):
                with passing_errors():
                    async with connection.transaction():
                        yield connection
        except QuaestorError as error:
            if isinstance(error, StoreUnavailableError):
                self._drop()
                self._days.clear()
            raise
        except asyncpg.CheckViolationError as error:
            # A day's partition went meanwhile; the next try makes it again.
            self._days.clear()
            raise StoreUnavailableError(f"Postgres: {error}") from error
        except BaseException:
            self._drop()
            raise


class _Index:
    """The events of drafts as columns of the index, in the order of the log."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        located = [(draft.partition, event) for draft in drafts for event in draft.events]
        self.topics = [partition.topic for partition, _ in located]
        self.numbers = [partition.number for partition, _ in located]
        self.offsets = [event.offset for _, event in located]
        self.hashes = [UUID(bytes=event.content_hash) for _, event in located]
        self.ids = [_id(event.tenant_id, event.event_id) for _, event in located]
        numbers = [event.occurred_at // MICROS_PER_DAY for _, event in located]
        dates = {number: datetime.fromtimestamp(number * 86_400, UTC).date() for number in set(numbers)}
        self.days = [dates[number] for number in numbers]

    @property
    def columns(self) -> tuple[list[date], list[UUID], list[str], list[int], list[int], list[UUID]]:
        """As the statements take them."""
        return self.days, self.ids, self.topics, self.numbers, self.offsets, self.hashes


def _id(tenant_id: str, event_id: str) -> UUID:
    return UUID(bytes=hashlib.sha256(f"{tenant_id}\0{event_id}".encode()).digest()[:16])


async def _learn(connection: asyncpg.Connection, projection: str, index: _Index) -> dict[Partition, set[int]]:
    """Enter events into the index; answer the offsets whose event was met before at another one."""
    repeated: dict[Partition, set[int]] = {}
    entered = await connection.execute(plan_queries.LEARN, projection, *index.columns)
    if _count(entered) == len(index.ids):
        return repeated
    for row in await connection.fetch(plan_queries.REPEATED, projection, *index.columns):
        partition = Partition(row["topic"], row["partition"])
        if not row["is_same"]:
            raise IntegrityError(f"{partition}: the event at {row['log_offset']} was met before with other bytes")
        repeated.setdefault(partition, set()).add(row["log_offset"])
    return repeated


async def _left_open(connection: asyncpg.Connection, projection: str, partitions: Sequence[Partition]) -> list[Plan]:
    rows = await connection.fetch(plan_queries.LEFT_OPEN, projection, *_columns(partitions))
    pieces: dict[str, list[Piece]] = {}
    for row in rows:
        partition = Partition(row["topic"], row["partition"])
        piece = Piece(partition, row["topic_id"], row["first_offset"], row["next_offset"], tuple(row["excluded"]))
        pieces.setdefault(row["token"], []).append(piece)
    ages = {row["token"]: row["age_seconds"] for row in rows}
    return [Plan(token, tuple(of_token), ages[token]) for token, of_token in pieces.items()]


def _plan_rows(projection: str, plans: Sequence[Plan], epochs: Mapping[Partition, int]) -> list[tuple[object, ...]]:
    return [
        (
            projection,
            *piece.partition,
            piece.topic_id,
            piece.first_offset,
            piece.next_offset,
            list(piece.excluded),
            plan.token,
            epochs[piece.partition],
        )
        for plan in plans
        for piece in plan.pieces
    ]


def _columns(partitions: Sequence[Partition]) -> tuple[list[str], list[int]]:
    return [each.topic for each in partitions], [each.number for each in partitions]


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[1])
