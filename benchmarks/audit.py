"""The audit log: entries a second through one sequencer, memory as it grows, and how soon a checkpoint covers an event.

    python -m benchmarks.audit sequence [--entries 300000] [--batch 5000]
    python -m benchmarks.audit fresh [--rate 1000] [--seconds 60]

Both start servers of their own in a temporary folder. `sequence` needs Postgres only: one process as the audit sink,
without Kafka and decoding; records are made in the same process, files synced as in production. `fresh` runs the real
sink over Kafka at a steady rate and follows the published checkpoint from outside, looking every 20 ms: the age of a
record is counted from its Kafka timestamp, which its producer sets before the acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from benchmarks.filling import METADATA_SECONDS
from benchmarks.fresh import record, start_sink
from benchmarks.measure import cpu_seconds, machine, percentile, resident_mebibytes
from benchmarks.sinks import Bench
from infra.embedded.ports import PortPlan
from infra.embedded.stack import Stack
from processors.audit.entry import decode_entry, is_own
from processors.audit.tiles import BUNDLE_LEVEL, decode_bundle, tiles_of
from schemas.ids import derived_id
from sinks.audit.files import LogFiles
from sinks.audit.key_ring import KeyRing
from sinks.audit.layout import AUDITED_TOPICS, AuditLayout
from sinks.audit.lock import FileLockStore
from sinks.audit.process import make_sink, published
from sinks.audit.sink import AuditSink
from sinks.audit.verify import verify_audit
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.migrations import migrate
from sinks.runner.seam import Batch, Decoded, Span
from streams.kafka import KafkaReader
from streams.log import LogRecord, Partition

TOPIC = "quaestor.requests"
TOPIC_ID = "topic-uuid-of-requests"
PARTITIONS = [Partition(TOPIC, number) for number in range(6)]
VALUE = b"\0\0\0\0\1" + os.urandom(295)
TENANTS = 50
START_MICROS = 1_700_000_000_000_000
LOOKS = 10
LOOK_SECONDS = 0.02
SETTLE_SECONDS = 10.0
EVENTS_PER_REQUEST = 14
CONSUME_RECORDS_MAX = 10_000
RATE_GOAL, FRESH_SECONDS_GOAL = 20_000, 1.0


def batch(first: int, count: int) -> Batch:
    """`count` made-up records of each partition."""
    return Batch([span(partition, first, count) for partition in PARTITIONS], 1)


def span(partition: Partition, first: int, count: int) -> Span:
    """The records of one partition."""
    records: list[Decoded] = []
    event_id = derived_id("bench", str(partition), str(first), "")
    for offset in range(first, first + count):
        fields = {
            "tenant_id": f"tenant_{offset % TENANTS}", "event_id": event_id, "request_id": event_id,
            "occurred_at": START_MICROS + offset, "amount_nano": offset, "currency": "USD", "kind": "COMPLETED",
        }  # fmt: skip
        records.append(Decoded(offset, fields, LogRecord(*partition, offset, 1, b"key", VALUE, ())))
    return Span(partition, TOPIC_ID, first, first + count, records)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary data directory that servers under another user may enter."""
    with tempfile.TemporaryDirectory(prefix="quaestor-audit-", ignore_cleanup_errors=True) as temporary:
        Path(temporary).chmod(0o711)
        data = Path(temporary) / "data"
        data.mkdir(mode=0o711)
        yield data


def sequence(entries: int, batch_records: int) -> int:
    """Sequence, publish and verify made-up records; exit code 1 when the log does not verify."""
    with folder() as data, Stack(data, PortPlan.auto(), servers=("postgres",)) as stack:
        return asyncio.run(_sequence(data, stack.settings()["postgres_dsn"], entries, batch_records))


async def _sequence(data: Path, dsn: str, entries: int, batch_records: int) -> int:
    await migrate(dsn)
    layout = AuditLayout(data)
    store = PostgresAuditStore(dsn, layout.log)
    sink = make_sink(layout, store, "benchmark")
    await sink.open()
    await sink.claim(PARTITIONS, {TOPIC: TOPIC_ID})
    await _grow(sink, entries, batch_records // len(PARTITIONS))
    await sink.close()
    await store.open()
    began = time.perf_counter()
    keys = KeyRing(layout).load().chain
    report = await verify_audit(store, LogFiles(layout.directory), FileLockStore(layout.lock_file), keys)
    seconds = time.perf_counter() - began
    await store.close()
    print(f"\nverified with its rows: {report.size:,} entries, ok {report.ok}, {report.size / seconds:,.0f} entries/s")
    return 0 if report.ok else 1


async def _grow(sink: AuditSink, entries: int, count: int) -> None:
    """Write batch after batch; print a row of the table ten times on the way."""
    print("| records | entries/s | CPU us each | resident MiB |\n|---|---|---|---|")
    ends = [entries * part // LOOKS for part in range(1, LOOKS + 1)]
    began = at = time.perf_counter()
    cpu, done, last = time.process_time(), 0, 0
    while ends:
        await sink.write(batch(done // len(PARTITIONS), count))
        done += count * len(PARTITIONS)
        if done < ends[0]:
            continue
        now, spent = time.perf_counter(), time.process_time()
        rate, each = (done - last) / (now - at), (spent - cpu) / (done - last) * 1e6
        print(f"| {done:,} | {rate:,.0f} | {each:.1f} | {resident_mebibytes(os.getpid()):.0f} |", flush=True)
        at, cpu, last, ends = now, spent, done, [end for end in ends if end > done]
    await sink.drained()
    rate = done / (time.perf_counter() - began)
    print(f"\nunder a published checkpoint: {rate:,.0f} entries/s (goal {RATE_GOAL:,}: {_met(rate >= RATE_GOAL)})")


class CheckpointWatch:
    """Notes when each published checkpoint was first seen, from a thread of its own."""

    def __init__(self, layout: AuditLayout) -> None:
        """Looks from `enter` to `exit`."""
        self._layout = layout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="checkpoints", daemon=True)
        #: Sizes in order, and when each was seen, seconds since the epoch.
        self.sizes: list[int] = []
        self.seen: list[float] = []

    def _look(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            size = published(self._layout)[1].size if self._layout.key_file.exists() else 0
            if not self.sizes or size > self.sizes[-1]:
                self.sizes.append(size)
                self.seen.append(time.time())

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def fresh(rate: int, seconds: int) -> int:
    """Ages of records when a published checkpoint covers them; exit code 1 when one never was."""
    with ExitStack() as held:
        data = held.enter_context(folder())
        stack = held.enter_context(Stack(data, PortPlan.auto()))
        bench = Bench(stack, data, lambda _: None)
        bench.prepare(0)
        layout = AuditLayout(data)
        pid = start_sink(bench, "audit", held)
        record(bench, rate // EVENTS_PER_REQUEST, seconds, seed=1)
        began, cpu = time.time(), cpu_seconds(pid)
        with CheckpointWatch(layout) as watch:
            record(bench, rate // EVENTS_PER_REQUEST, seconds, seed=2)
            time.sleep(SETTLE_SECONDS)
        cpu = cpu_seconds(pid) - cpu
        made = {place: at for place, at in _times(bench, layout).items() if at >= began}
        return _show(_ages(layout, watch, made), len(made), seconds, cpu)


def _times(bench: Bench, layout: AuditLayout) -> dict[tuple[str, int, int], float]:
    """When each record of the log was made, seconds since the epoch."""
    assert layout.directory.is_dir()
    reader, found = KafkaReader(bench.settings.kafka_bootstrap, "benchmark"), dict[tuple[str, int, int], float]()
    try:
        partitions = reader.partitions(AUDITED_TOPICS, METADATA_SECONDS)
        ends = reader.end_offsets(partitions, METADATA_SECONDS)
        reader.assign(dict.fromkeys(partitions, 0))
        while len(found) < sum(ends.values()):
            for each in reader.consume(CONSUME_RECORDS_MAX, 1.0):
                found[each.topic, each.partition, each.offset] = each.timestamp_millis / 1_000
    finally:
        reader.close()
    return found


def _ages(layout: AuditLayout, watch: CheckpointWatch, made: dict[tuple[str, int, int], float]) -> list[float]:
    files, size, ages = LogFiles(layout.directory), published(layout)[1].size, list[float]()
    for tile in tiles_of(BUNDLE_LEVEL, size):
        for position, data in enumerate(decode_bundle(files.read(tile)), tile.number * 256):
            source = decode_entry(data).source
            at = made.get((source.topic, source.partition, source.offset))
            if at is not None and not is_own(data):
                ages.append(watch.seen[bisect_right(watch.sizes, position)] - at)
    return sorted(ages)


def _show(ages: list[float], records: int, seconds: int, cpu: float) -> int:
    p50, p99, longest = (percentile(ages, share) for share in (0.5, 0.99, 1.0))
    print(f"{records / seconds:,.0f} records/s for {seconds} s; the sink used {cpu / seconds:.2f} cores")
    print(f"covered by a published checkpoint after: p50 {p50:.2f} s, p99 {p99:.2f} s, max {longest:.2f} s")
    print(f"goal p99 <= {FRESH_SECONDS_GOAL} s: {_met(p99 <= FRESH_SECONDS_GOAL)}; not covered: {records - len(ages)}")
    return 1 if records != len(ages) else 0


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit")
    what = parser.add_subparsers(dest="what", required=True)
    sequencing = what.add_parser("sequence")
    sequencing.add_argument("--entries", type=int, default=300_000)
    sequencing.add_argument("--batch", type=int, default=5_000)
    freshness = what.add_parser("fresh")
    freshness.add_argument("--rate", type=int, default=1_000, help="records per second")
    freshness.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    print(f"Machine: {machine()}\n")
    return sequence(given.entries, given.batch) if given.what == "sequence" else fresh(given.rate, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
