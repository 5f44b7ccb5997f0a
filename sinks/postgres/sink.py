"""The Postgres sink: a batch is one transaction that begins with the compare-and-set of its cursors.

Protocol (sinks.md 1.1): claiming bumps the epoch of the cursor row; the first statement of a batch moves the cursors
under that epoch from exactly where the batch begins, or nothing happens; rows go by COPY into their event table, made
from columns where a record has them (rows.py, copy.py), or, when an id of them is there already, through a staging
table that leaves it out; balances and entities move with them; then one commit.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import asyncpg
import structlog

from schemas.errors import (
    FencedError,
    GapError,
    IntegrityError,
    QuaestorError,
    RejectedError,
    Rejection,
    StoreUnavailableError,
)
from schemas.topics import CONTROL, LEDGER, TOPICS
from sinks.postgres import quarantine, queries
from sinks.postgres.balances import Net, Pair, Transfer, pendings_needed, pendings_of
from sinks.postgres.connect import APP_ROLE, connect, freeing_locks, passing_errors, use_log_types
from sinks.postgres.refusals import refuse
from sinks.postgres.rows import TableRows, table_rows
from sinks.postgres.tables import PROJECTION, SCHEMA, TABLES, EventTable, Row
from sinks.runner.seam import Batch, BatchPolicy, Sink, Span
from sinks.runner.steps import Steps
from streams.log import Partition
from streams.pieces import UnusualError

log = structlog.get_logger()

POLICY = BatchPolicy(records_max=10_000, yielding_records_max=500, keeps_poison=True, takes_columns=True)
#: How often a batch is trimmed to where the store stands before the runner is asked to try again.
TRIMS_MAX = 3
CHUNK_BYTES = 256 * 1024
#: Puts the rows of one table there, within a transaction.
Put = Callable[[asyncpg.Connection, TableRows], Awaitable[None]]
#: What a record's own values cause: in Postgres, or in the client while it encodes them.
RECORD_FAULTS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
    struct.error,
)


class PostgresSink(Sink):
    """Projects every topic into its event table, and what follows from events into balances and entities."""

    def __init__(self, dsn: str, owner: str, policy: BatchPolicy | None = None) -> None:
        """`owner` says who holds a partition, for people; the epoch is what fences."""
        self.projection = PROJECTION
        self.topics = tuple(topic.name for topic in TOPICS)
        self.policy = policy or POLICY
        self._dsn = dsn
        self._owner = owner
        self._connection: asyncpg.Connection | None = None
        self._epochs: dict[Partition, int] = {}
        self._months: dict[str, set[Any]] = {name: set() for name in TABLES}
        #: What the next batch most likely has, by topic; set by the consuming thread, as a whole.
        self._prepared: dict[str, TableRows] = {}
        self.steps: Steps = Steps()

    async def open(self) -> None:
        """As the seam says."""
        await self._connected()

    async def close(self) -> None:
        """As the seam says."""
        self._drop()

    async def claim(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """As the seam says; waits for a transaction an earlier owner has open, and so sees what it commits."""
        given = sorted(partitions)
        topics, numbers = [each.topic for each in given], [each.number for each in given]
        async with self._transaction() as connection:
            ids = [topic_ids[topic] for topic in topics]
            rows = await connection.fetch(queries.CLAIM, PROJECTION, self._owner, topics, numbers, ids)
            for row in rows:
                if row["topic_id"] != topic_ids[row["topic"]]:
                    where = f"{row['topic']}/{row['partition']}"
                    raise IntegrityError(f"{where}: the cursor belongs to an earlier topic of this name")
        held = {Partition(row["topic"], row["partition"]): row for row in rows}
        self._epochs.update({partition: row["epoch"] for partition, row in held.items()})
        return {partition: row["next_offset"] for partition, row in held.items()}

    async def write(self, batch: Batch) -> None:
        """As the seam says."""
        spans = batch.spans
        self.steps = steps = Steps()
        for _ in range(TRIMS_MAX):
            with steps.step("rows"):
                tables = table_rows(spans, self._prepared)
                refuse(tables)
            try:
                applied = await self._apply(spans, tables)
            except asyncpg.CheckViolationError as error:
                # The only check an event meets is that its month has a partition: retention took it meanwhile.
                self._forget_months()
                raise StoreUnavailableError(f"Postgres: {error}") from error
            except RECORD_FAULTS as fault:
                raise await self._explained(spans, fault) from fault
            if applied or not spans:
                return
            spans = await self._unapplied(spans)
        raise StoreUnavailableError("the cursors keep moving under this batch")

    def prepare(self, spans: Sequence[Span]) -> None:
        """As the seam says: rows are laid out for COPY."""
        tables = table_rows(spans)
        for each in tables:
            # A value that needs the slow way is met again when the batch is written.
            with suppress(UnusualError):
                each.prepare()
        self._prepared = {each.table.topic: each for each in tables}

    async def redrive(self, span: Span) -> None:
        """As the seam says: an event whose id is there already is left out, so a repetition changes nothing."""
        tables = table_rows([span])
        refuse(tables)
        await self._ensure_months(tables)
        try:
            async with self._transaction() as connection:
                await self._demand(connection, span.partition)
                for each in tables:
                    await self._insert(connection, each)
        except asyncpg.CheckViolationError as error:
            self._forget_months()
            raise StoreUnavailableError(f"Postgres: {error}") from error
        except RECORD_FAULTS as fault:
            raise await self._explained([span], fault) from fault

    async def _demand(self, connection: asyncpg.Connection, partition: Partition) -> None:
        """Raise FencedError unless the partition is ours until the transaction ends."""
        epoch = self._epochs.get(partition, 0)
        if await connection.fetchval(queries.HOLD_EPOCH, PROJECTION, *partition) != epoch:
            raise FencedError(f"{PROJECTION} {partition}", epoch)

    async def heartbeat(self, end_offsets: Mapping[Partition, int]) -> None:
        """Nothing to look after: Postgres does not lose what it committed without saying so."""

    async def release(self, partitions: Sequence[Partition]) -> None:
        """As the seam says."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    async def _apply(self, spans: Sequence[Span], tables: Sequence[TableRows]) -> bool:
        """Apply spans in one transaction; False when a cursor is not where its span begins, or not ours.

        Nearly always every row is new: then it is copied straight into its table, in half the time of staging.
        """
        await self._ensure_months(tables)
        try:
            try:
                await self._commit(spans, tables, self._copy)
            except (asyncpg.UniqueViolationError, UnusualError):
                # An id is there already, or a value needs the slow way; nothing of the batch stayed.
                await self._commit(spans, tables, self._insert)
        except _MisplacedError:
            return False
        return True

    async def _commit(self, spans: Sequence[Span], tables: Sequence[TableRows], put: Put) -> None:
        async with self._transaction() as connection:
            with self.steps.step("cursor"):
                await self._advance(connection, spans)
            with self.steps.step("put"):
                for each in tables:
                    await put(connection, each)
            poison = [each.event for span in spans for each in span.poison]
            if poison:
                await quarantine.keep(connection, poison)

    async def _advance(self, connection: asyncpg.Connection, spans: Sequence[Span]) -> None:
        ordered = sorted(spans, key=lambda span: span.partition)
        status = await connection.execute(
            queries.ADVANCE,
            PROJECTION,
            [span.partition.topic for span in ordered],
            [span.partition.number for span in ordered],
            [span.first_offset for span in ordered],
            [span.next_offset for span in ordered],
            [self._epochs.get(span.partition, 0) for span in ordered],
        )
        if _count(status) != len(ordered):
            raise _MisplacedError

    async def _insert(self, connection: asyncpg.Connection, given: TableRows) -> None:
        """Insert rows into their table, each if it is new; raises IntegrityError when an id is there with other bytes.

        What can be copied is, up to a savepoint.
        """
        try:
            async with connection.transaction():
                await self._copy(connection, given)
        except (asyncpg.UniqueViolationError, UnusualError):
            await self._stage(connection, given.table, given.rows())

    async def _copy(self, connection: asyncpg.Connection, given: TableRows) -> None:
        """Copy rows straight into their table; raises UniqueViolationError or UnusualError when they must be staged.

        Control events are staged always: few, and their entities follow from them.
        """
        table = given.table
        if table.topic == CONTROL.name and given.plain:
            await self._stage(connection, table, given.rows())
            return
        into = partial(connection.copy_to_table, table.name, schema_name=SCHEMA, columns=table.columns, format="binary")
        for copy in given.copies():
            await into(source=_chunks(copy))
        if given.plain:
            await connection.copy_records_to_table(
                table.name, schema_name=SCHEMA, records=given.plain_rows(), columns=table.columns
            )
        if table.topic == LEDGER.name:
            await _move_balances(connection, given.transfers())

    async def _stage(self, connection: asyncpg.Connection, table: EventTable, rows: list[Row]) -> None:
        """Insert through the staging table, leaving out what is there."""
        await connection.copy_records_to_table(queries.stage(table), records=rows, columns=table.columns)
        if table.topic == LEDGER.name:
            new = await connection.fetch(queries.insert_staged_transfers(table))
            await _move_balances(connection, [Transfer._make(row.values()) for row in new])
            inserted = len(new)
        elif table.topic == CONTROL.name:
            inserted = await connection.fetchval(queries.insert_control(table))
        else:
            inserted = _count(await connection.execute(queries.insert_staged(table)))
        if inserted != len(rows):
            event_id = await connection.fetchval(queries.conflicting(table))
            if event_id is not None:
                raise IntegrityError(f"{table.topic}: event {event_id} was met before with other bytes")
            log.info("duplicate_events_left_out", topic=table.topic, records=len(rows) - inserted)

    async def _unapplied(self, spans: Sequence[Span]) -> list[Span]:
        """What of these spans the store has not applied; raises FencedError or GapError."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.CURSORS, PROJECTION)
        held = {Partition(row["topic"], row["partition"]): row for row in rows}
        remaining = []
        for span in spans:
            row, epoch = held.get(span.partition), self._epochs.get(span.partition, 0)
            if row is None or row["epoch"] != epoch:
                raise FencedError(f"{PROJECTION} {span.partition}", epoch)
            if row["next_offset"] < span.first_offset:
                raise GapError(f"{PROJECTION} {span.partition}", row["next_offset"], span.first_offset)
            if row["next_offset"] < span.next_offset:
                remaining.append(span.after(row["next_offset"]))
        return remaining

    async def _explained(self, spans: Sequence[Span], fault: BaseException) -> QuaestorError:
        """The records a fault is about, found by halving; IntegrityError when each record alone is taken."""
        rejections = []
        for span in spans:
            rows = TABLES[span.partition.topic].rows(span.partition.number, span.records)
            rejections += await self._culprits(span.partition, rows)
        if rejections:
            return RejectedError(tuple(rejections))
        return IntegrityError(f"a batch is refused though each of its records is taken: {_worded(fault)}")

    async def _culprits(self, partition: Partition, rows: list[Row]) -> list[Rejection]:
        fault = await self._fault_of(TABLES[partition.topic], rows)
        if fault is None:
            return []
        if len(rows) == 1:
            return [Rejection(*partition, rows[0][1], _worded(fault))]
        half = len(rows) // 2
        return await self._culprits(partition, rows[:half]) + await self._culprits(partition, rows[half:])

    async def _fault_of(self, table: EventTable, rows: list[Row]) -> BaseException | None:
        """What Postgres says to these rows alone; nothing stays."""
        try:
            async with self._transaction() as connection:
                trial = connection.transaction()
                await trial.start()
                try:
                    await self._stage(connection, table, rows)
                finally:
                    await trial.rollback()
        except RECORD_FAULTS as fault:
            return fault
        except IntegrityError:
            return None
        return None

    async def _ensure_months(self, tables: Sequence[TableRows]) -> None:
        for each in tables:
            topic = each.table.topic
            for month in sorted(each.months() - self._months[topic]):
                connection = await self._connected()
                with passing_errors():
                    await connection.execute(queries.ENSURE_MONTH, each.table.name, month)
                self._months[topic].add(month)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._drop()
            connection = await connect(self._dsn, APP_ROLE)
            with passing_errors():
                await use_log_types(connection)
                await connection.execute(";".join(map(queries.stage_table, TABLES.values())))
            self._connection = connection
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
        except (QuaestorError, _MisplacedError, UnusualError, *RECORD_FAULTS) as error:
            if isinstance(error, StoreUnavailableError):
                self._drop()
                self._forget_months()
            raise
        except BaseException:
            self._drop()
            raise

    def _forget_months(self) -> None:
        """Retention may have dropped a partition meanwhile."""
        for months in self._months.values():
            months.clear()


class _MisplacedError(Exception):
    """Ends a transaction whose cursors did not fit."""


async def _move_balances(connection: asyncpg.Connection, transfers: list[Transfer]) -> None:
    """Add what new transfers do to their accounts, those of the pending transfers they resolve included."""
    pendings = pendings_of(transfers)
    needed = pendings_needed(transfers, pendings)
    if needed:
        rows = await connection.fetch(queries.PENDINGS, *(list(part) for part in zip(*needed, strict=True)))
        pendings |= {(row[0], row[1]): Pair(row[2], row[3]) for row in rows}
    net = Net()
    for transfer in transfers:
        net.add(transfer, pendings)
    if net.changes:
        sums = [[str(changed[position]) for changed in net.changes.values()] for position in range(4)]
        accounts = (list(part) for part in zip(*net.changes, strict=True))
        await connection.execute(queries.MOVE_BALANCES, *accounts, *sums)


def _count(status: str) -> int:
    return int(status.rsplit(" ", 1)[1])


async def _chunks(copy: bytearray) -> AsyncIterator[bytes]:
    """What asyncpg sends at once."""
    view = memoryview(copy)
    for first in range(0, len(copy), CHUNK_BYTES):
        yield bytes(view[first : first + CHUNK_BYTES])


def _worded(fault: BaseException) -> str:
    """One line without record content."""
    column = getattr(fault, "column_name", None)
    return f"{type(fault).__name__}{f' in column {column}' if column else ''}"
