"""Plans of the ClickHouse sink in Postgres: cursors, open plans and the index of event ids, under one fence."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import numpy as np

from schemas.errors import FencedError, IntegrityError, QuaestorError, StoreUnavailableError
from schemas.limits import ID_HORIZON_DAYS
from sinks.clickhouse.known import KnownRows, key_of
from sinks.clickhouse.plans import (
    Draft,
    Held,
    Known,
    Misplaced,
    Piece,
    Plan,
    Planned,
    PlanStore,
    misplaced,
    plans_of,
)
from sinks.postgres import plan_queries, queries
from sinks.postgres.connect import APP_ROLE, POSTGRES_EPOCH_MICROS, connect, freeing_locks, passing_errors
from streams.log import Partition
from streams.pieces import Integers

MICROS_PER_DAY = 86_400_000_000
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
#: What COPY sends of an event, in the order of the columns.
COPIED = (
    ("id", "V16"),
    ("content_hash", "V16"),
    ("log_offset", ">i8"),
    ("day", ">i4"),
    ("partition", ">i4"),
    ("topic", ">i4"),
    ("projection", ">i4"),
)
ROW = np.dtype(
    [("fields", ">i2"), *(pair for name, kind in COPIED for pair in ((f"{name}_size", ">i4"), (name, kind)))]
)
CHUNK_BYTES = 256 * 1024
#: How often it is said that a day of the index is used: much oftener than one goes that nobody uses (migration 0142).
DAY_USE_SECONDS = 3_600.0
#: Days from 1970 to Postgres' own epoch.
POSTGRES_EPOCH_DAYS = POSTGRES_EPOCH_MICROS // MICROS_PER_DAY


class PostgresPlanStore(PlanStore):
    """PlanStore over one connection; used from one event loop, one call at a time."""

    def __init__(self, dsn: str, owner: str) -> None:
        """`owner` says who holds a partition, for people; the epoch is what fences."""
        self._dsn = dsn
        self._owner = owner
        self._connection: asyncpg.Connection | None = None
        #: What is known to be there: days of the index, by when it was said that a projection uses them, and numbers of
        #: projections and topics.
        self._days: dict[tuple[int, date], float] = {}
        self._numbers: dict[str, int] = {}

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
        index = await self._indexed(projection, drafts)
        async with self._transaction() as connection:
            rows = await connection.fetch(plan_queries.HOLD, projection, *_columns(partitions))
            held = {Partition(row["topic"], row["partition"]): Held(row["next_offset"], row["epoch"]) for row in rows}
            wrong = misplaced(drafts, held, epochs)
            waiting = await _left_open(connection, projection, partitions)
            if waiting:
                return Planned(tuple(waiting), left_open=True)
            if wrong is not None:
                return wrong
            planned = plans_of(projection, drafts, await _learn(connection, index))
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

    async def late(self, projection: str, draft: Draft, epoch: int) -> set[int]:
        """As the seam says."""
        index = await self._indexed(projection, [draft])
        async with self._transaction() as connection:
            rows = await connection.fetch(plan_queries.HOLD, projection, *_columns([draft.partition]))
            if not rows or rows[0]["epoch"] != epoch:
                raise FencedError(str(draft.partition), epoch)
            repeated = await _learn(connection, index)
        return repeated.get(draft.partition, set())

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

    async def _indexed(self, projection: str, drafts: Sequence[Draft]) -> _Index:
        """The events of drafts, with everything their rows need to be there."""
        names = {projection, *(draft.partition.topic for draft in drafts)}
        await self._ensure_numbers(names)
        index = _Index(self._numbers[projection], drafts, self._numbers)
        await self._use_days(index.projection, index.days)
        return index

    async def _ensure_numbers(self, names: Iterable[str]) -> None:
        missing = sorted(set(names) - self._numbers.keys())
        if missing:
            connection = await self._connected()
            with passing_errors():
                await connection.execute(plan_queries.ENSURE_NAMES, missing)
                rows = await connection.fetch(plan_queries.NAMES, missing)
            self._numbers |= {row["name"]: row["number"] for row in rows}

    async def _use_days(self, projection: int, days: Iterable[date]) -> None:
        now = time.monotonic()
        for day in sorted(days):
            if now >= self._days.get((projection, day), -math.inf) + DAY_USE_SECONDS:
                connection = await self._connected()
                with passing_errors():
                    await connection.execute(plan_queries.USE_DAY, day, projection)
                self._days[projection, day] = now

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._drop()
            try:
                self._connection = await connect(self._dsn, APP_ROLE)
            except asyncpg.InvalidCatalogNameError as error:
                raise StoreUnavailableError(f"Postgres: {error}; run `quaestor migrate`") from error
        return self._connection

    def _drop(self) -> None:
        # What the next connection reaches may be a database that was brought back from an earlier day.
        self._days.clear()
        self._numbers.clear()
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
            raise
        except asyncpg.CheckViolationError as error:
            # A day's partition went meanwhile; the next try makes it again.
            self._days.clear()
            raise StoreUnavailableError(f"Postgres: {error}") from error
        except BaseException:
            self._drop()
            raise


class _Index:
    """The events of drafts as the index keeps them, in the order of the log."""

    def __init__(self, projection: int, drafts: Sequence[Draft], topics: Mapping[str, int]) -> None:
        """`projection` and `topics` by number."""
        self.projection = projection
        drafts = self._drafts = [draft for draft in drafts if draft.events]
        self._topics = [topics[draft.partition.topic] for draft in drafts]
        self._names = {number: draft.partition.topic for draft, number in zip(drafts, self._topics, strict=True)}
        self._ids = [_keys(draft.events) for draft in drafts]
        self._days = [_times(draft.events) // MICROS_PER_DAY for draft in drafts]
        self.size = sum(len(draft.events) for draft in drafts)
        numbers = {int(number) for days in self._days for number in np.unique(days)}
        self._dates = {number: datetime.fromtimestamp(number * 86_400, UTC).date() for number in numbers}

    @property
    def days(self) -> Iterable[date]:
        """Every day once."""
        return self._dates.values()

    def partition(self, topic: int, number: int) -> Partition:
        """The partition of a row."""
        return Partition(self._names[topic], number)

    def copy(self) -> bytes:
        """All rows in the binary format of COPY."""
        parts = [COPY_HEADER]
        for draft, topic, days, ids in zip(self._drafts, self._topics, self._days, self._ids, strict=True):
            rows = np.empty(len(draft.events), ROW)
            rows["fields"] = len(COPIED)
            for name, _ in COPIED:
                rows[f"{name}_size"] = ROW[name].itemsize
            rows["id"] = np.frombuffer(ids, "V16")
            rows["content_hash"] = np.frombuffer(_hashes(draft.events), "V16")
            rows["log_offset"] = _offsets(draft.events)
            rows["day"] = days - POSTGRES_EPOCH_DAYS
            rows["partition"], rows["topic"], rows["projection"] = draft.partition.number, topic, self.projection
            parts.append(rows.tobytes())
        return b"".join([*parts, COPY_TRAILER])

    @property
    def columns(self) -> tuple[list[UUID], list[UUID], list[int], list[date], list[int], list[int]]:
        """As the statements take them."""
        ids = b"".join(self._ids)
        located = [
            (topic, draft.partition.number, event)
            for draft, topic in zip(self._drafts, self._topics, strict=True)
            for event in draft.events
        ]
        return (
            [UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)],
            [UUID(bytes=event.content_hash) for _, _, event in located],
            [event.offset for _, _, event in located],
            [self._dates[event.occurred_at // MICROS_PER_DAY] for _, _, event in located],
            [partition for _, partition, _ in located],
            [topic for topic, _, _ in located],
        )


def _keys(events: Sequence[Known]) -> bytes:
    return events.keys if isinstance(events, KnownRows) else b"".join(map(key_of, events))


def _times(events: Sequence[Known]) -> Integers:
    return events.times if isinstance(events, KnownRows) else np.array([each.occurred_at for each in events], np.int64)


def _offsets(events: Sequence[Known]) -> Integers:
    return events.offsets if isinstance(events, KnownRows) else np.array([each.offset for each in events], np.int64)


def _hashes(events: Sequence[Known]) -> bytes:
    return events.hashes if isinstance(events, KnownRows) else b"".join(each.content_hash for each in events)


async def _learn(connection: asyncpg.Connection, index: _Index) -> dict[Partition, set[int]]:
    """Enter events into the index; answer the offsets whose event was met before at another one."""
    repeated: dict[Partition, set[int]] = {}
    if await _copied(connection, index):
        return repeated
    columns = index.columns
    await connection.execute(plan_queries.LEARN, index.projection, *columns)
    for row in await connection.fetch(plan_queries.REPEATED, index.projection, *columns):
        partition = index.partition(row["topic"], row["partition"])
        if not row["is_same"]:
            raise IntegrityError(f"{partition}: the event at {row['log_offset']} was met before with other bytes")
        repeated.setdefault(partition, set()).add(row["log_offset"])
    return repeated


async def _copied(connection: asyncpg.Connection, index: _Index) -> bool:
    """Copy events into the index; False, and nothing of it stays, when one of them is there already."""
    if not index.size:
        return True
    try:
        async with connection.transaction():
            await connection.copy_to_table(
                "clickhouse_event",
                schema_name="quaestor",
                source=_chunks(index.copy()),
                columns=[name for name, _ in COPIED],
                format="binary",
            )
    except asyncpg.UniqueViolationError:
        return False
    return True


async def _chunks(copy: bytes) -> AsyncIterator[bytes]:
    for first in range(0, len(copy), CHUNK_BYTES):
        yield copy[first : first + CHUNK_BYTES]


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
