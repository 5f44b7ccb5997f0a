"""Columns in real stores: every field of every row is what the way of single records writes."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from schemas.events import Event, ProviderAttempt, RequestEvent
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.tables import TABLES as CLICKHOUSE_TABLES
from sinks.postgres.sink import PostgresSink
from sinks.postgres.tables import TABLES
from sinks.runner import Batch, Decoded, Span, columns
from sinks.runner.columns import ChunkFields
from sinks.runner.screen import Screen
from streams.log import Partition
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.databases import ClickHouseDatabases, postgres_databases
from tests.support.stories import TOPIC_ID, Offsets, codec, request_story

pytestmark = pytest.mark.stack
ENCODER = codec()
SCREEN = Screen(ENCODER, "test@v1")


@pytest.fixture(autouse=True)
def always_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of records take the way of large ones."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1)


def varied() -> list[Event]:
    """Requests whose fields differ in what matters: null or not, short and long, ASCII and not, none and many items."""
    events: list[Event] = []
    for number, text in enumerate(["", "a", "é" * 70, "x" * 127, "x" * 128, "long " * 200, "日本語", "plain"]):
        for event in request_story(number, "acme" if number % 2 else "tenant.with-dots", 1_500 * number):
            changes: dict[str, Any] = {}
            if isinstance(event, RequestEvent):
                changes = {"error_detail": text or None, "tags": {f"tag{n}": text for n in range(number % 4)}}
                changes |= {
                    "body_commitment": bytes(range(200, 232)) if number % 2 else None,
                    "stream": number % 3 == 0,
                }
            if isinstance(event, ProviderAttempt):
                changes = {"first_chunk_micros": 1 << 3 * number, "status_code": None if number % 2 else 200}
            events.append(msgspec.structs.replace(event, **changes))
    return events


def batch(*, together: bool) -> Batch:
    """All of it as one batch, with columns or without."""
    records, spans = Offsets().records(ENCODER, varied()), dict[Partition, Span]()
    for topic in dict.fromkeys(record.topic for record in records):
        given = [record for record in records if record.topic == topic]
        for item in SCREEN.screen_topic(given, TOPIC_ID, 1, together=together):
            assert isinstance(item, Decoded)
            assert isinstance(item.fields, ChunkFields) is together
            at = Partition(item.record.topic, item.record.partition)
            span = spans.setdefault(at, Span(at, TOPIC_ID, item.offset, item.offset))
            span.records.append(item)
            span.next_offset = item.offset + 1
    return Batch(list(spans.values()), 1)


async def test_rows_of_postgres_are_the_same() -> None:
    """Event tables and balances agree, column by column."""
    found = []
    for together in (True, False):
        dsn = await postgres_databases().emptied(f"columns_{together}".lower())
        sink, made = PostgresSink(dsn, "test"), batch(together=together)
        await sink.claim([span.partition for span in made.spans], {s.partition.topic: TOPIC_ID for s in made.spans})
        await sink.write(made)
        await sink.close()
        connection = await asyncpg.connect(dsn)
        names = [*(table.name for table in TABLES.values()), "account_balance"]
        asked = {name: f"SELECT * FROM quaestor_v1.{name} ORDER BY 1, 2, 4" for name in names}  # noqa: S608 - ours
        found.append({name: await connection.fetch(query) for name, query in asked.items()})
        await connection.close()
    assert len(found[0]["request_event"]) == 16
    assert found[0] == found[1]


async def test_rows_of_clickhouse_are_the_same(clickhouse: ClickHouseDatabases) -> None:
    """Fact tables agree, column by column."""
    found = []
    for together in (True, False):
        database = clickhouse.name()
        client, made = ClickHouse(clickhouse.url, database), batch(together=together)
        sink = RememberingSink(client, MemoryPlanStore(), RememberedRanges())
        await sink.open()
        await sink.claim([span.partition for span in made.spans], {s.partition.topic: TOPIC_ID for s in made.spans})
        await sink.write(made)
        reads = ClickHouse(clickhouse.url, database)
        found.append(
            {
                table.name: await reads.query(f"SELECT * FROM {database}.{table.name} ORDER BY _part, _off")  # noqa: S608 - ours
                for table in CLICKHOUSE_TABLES.values()
            }
        )
        await reads.close()
        await sink.close()
    assert len(found[0]["requests"]) == 16
    assert found[0] == found[1]
