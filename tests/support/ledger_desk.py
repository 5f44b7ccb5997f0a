"""A Postgres sink and its reads on one database, for tests of what the ledger must be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from schemas import events
from sinks.postgres.months import EARLIEST_MICROS
from sinks.postgres.reads import PostgresReads
from sinks.postgres.sink import PostgresSink
from sinks.runner import Batch, Decoded, Span
from streams.log import Partition
from tests.support.databases import postgres_databases
from tests.support.stories import TOPIC_ID, Offsets, codec, price_book

ENCODER = codec()
GUARDED = ("transfer", "cost", "budget_event", "request_event", "attempt")


class Desk:
    """A sink and its reads on one database."""

    def __init__(self, dsn: str) -> None:
        """Nothing is claimed."""
        self.dsn = dsn
        self.sink, self.reads, self.offsets = PostgresSink(dsn, "test"), PostgresReads(dsn), Offsets()

    async def write(self, story: Sequence[events.Event]) -> None:
        """Write events as one batch."""
        spans: dict[Partition, Span] = {}
        for record in self.offsets.records(ENCODER, story):
            at = Partition(record.topic, record.partition)
            span = spans.setdefault(at, Span(at, TOPIC_ID, record.offset, record.offset))
            span.records.append(Decoded(record.offset, ENCODER.decode(record.topic, record.value or b""), record))
            span.next_offset = record.offset + 1
        await self.sink.claim(list(spans), {at.topic: TOPIC_ID for at in spans})
        await self.sink.write(Batch(list(spans.values()), 1))

    async def broken(self, overdue_before: int = EARLIEST_MICROS) -> list[str]:
        """Names of the invariants that do not hold."""
        results = await self.reads.verify_ledger(overdue_before=overdue_before)
        return [result.name for result in results if not result.ok]

    async def tamper(self, sql: str) -> None:
        """What only a superuser with the triggers off can do."""
        connection = await asyncpg.connect(self.dsn)
        try:
            tables = [f"ALTER TABLE quaestor_v1.{table}" for table in GUARDED]
            for table in tables:
                await connection.execute(f"{table} DISABLE TRIGGER append_only")
            await connection.execute(sql)
            for table in tables:
                await connection.execute(f"{table} ENABLE ALWAYS TRIGGER append_only")
        finally:
            await connection.close()


@asynccontextmanager
async def opened_desk(database: str) -> AsyncIterator[Desk]:
    """A desk on an empty database that knows the price book."""
    made = Desk(await postgres_databases().emptied(database))
    await made.write([price_book()])
    yield made
    await made.sink.close()
    await made.reads.close()
