"""Audit log: entries per second sequenced, integrated and under a published checkpoint, and verified, on real Postgres.

    python -m benchmarks.audit DSN [ENTRIES] [BATCH]

DSN names a database to be made for this run (it must not exist). One process, as `quaestor sink audit` without Kafka
and decoding: records are made beforehand. Files go to a temporary folder, synced as in production.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from schemas.ids import derived_id
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_verifier
from sinks.audit.layout import AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.process import make_sink
from sinks.audit.verify import verify_audit
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.migrations import migrate
from sinks.runner.seam import Batch, Decoded, Span
from streams.log import LogRecord, Partition

TOPIC = "quaestor.requests"
TOPIC_ID = "topic-uuid-of-requests"
PARTITIONS = [Partition(TOPIC, number) for number in range(6)]
VALUE = b"\0\0\0\0\1" + os.urandom(295)
TENANTS = 50
START_MICROS = 1_700_000_000_000_000


def batch(first: int, count: int) -> Batch:
    """`count` made-up records of each partition."""
    return Batch([span(partition, first, count) for partition in PARTITIONS], 1)


def span(partition: Partition, first: int, count: int) -> Span:
    """The records of one partition."""
    made = Span(partition, TOPIC_ID, first, first + count)
    for offset in range(first, first + count):
        fields = {
            "tenant_id": f"tenant_{offset % TENANTS}", "event_id": derived_id("bench", str(partition), str(offset), ""),
            "request_id": derived_id("bench", "request", str(offset), ""), "occurred_at": START_MICROS + offset,
            "amount_nano": offset, "currency": "USD", "kind": "COMPLETED",
        }  # fmt: skip
        made.records.append(Decoded(offset, fields, LogRecord(*partition, offset, 1, b"key", VALUE, ())))
    return made


async def run(dsn: str, entries: int, batch_records: int, folder: Path) -> None:
    """Write, publish, verify; print one line each."""
    await migrate(dsn)
    layout, count = AuditLayout(folder), batch_records // len(PARTITIONS)
    batches = [batch(first, count) for first in range(0, entries // len(PARTITIONS), count)]
    total = sum(made.record_count for made in batches)
    sink = make_sink(layout, PostgresAuditStore(dsn, layout.log), "benchmark")
    await sink.open()
    await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
    began, cpu = time.perf_counter(), time.process_time()
    for made in batches:
        await sink.write(made)
    written = time.perf_counter() - began
    await sink.drained()
    published, cpu = time.perf_counter() - began, time.process_time() - cpu
    await sink.close()
    print(f"entries {total}, batches of {count * len(PARTITIONS)}")
    print(f"sequenced, durable: {total / written:,.0f} entries/s")
    print(f"under a published checkpoint: {total / published:,.0f} entries/s, {cpu / total * 1e6:.1f} us CPU each")
    await verify(layout, dsn)


async def verify(layout: AuditLayout, dsn: str) -> None:
    """Verify the whole log and print how fast."""
    store = PostgresAuditStore(dsn, layout.log)
    await store.open()
    began = time.perf_counter()
    verifier = load_verifier(layout.key_file, layout.origin)
    report = await verify_audit(store, LogFiles(layout.directory), FileLockStore(layout.lock_file), verifier)
    print(f"verified {report.size}, ok {report.ok}: {report.size / (time.perf_counter() - began):,.0f} entries/s")
    await store.close()


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(run(given[1], int(given.get(2, 300_000)), int(given.get(3, 5_000)), Path(temporary)))
