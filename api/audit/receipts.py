"""A request's receipts from this product's own log, and what opens their commitments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from api.audit.local import layout_of, trust_of
from api.settings import Settings
from api.verify.log_scan import LogScan
from processors.audit.commitment import Salts
from processors.audit.entry import Entry
from processors.audit.opening import Opening, write_opening
from sinks.audit.files import LogFiles
from sinks.audit.keys import load_salts
from sinks.audit.reader import DirectoryLog
from sinks.audit.receipts import BuiltReceipt, OnWait, build_receipts, published_past
from sinks.postgres.audit import PostgresAuditStore
from sinks.postgres.connect import READER_ROLE
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.log import Partition
from streams.registry import RegistrySchemas


@dataclass(frozen=True)
class RequestReceipts:
    """All of a request's receipts, under one checkpoint."""

    receipts: list[BuiltReceipt]
    checkpoint_size: int
    #: By the entry's position; empty when they were not asked for.
    openings: dict[int, bytes]


async def request_receipts(
    settings: Settings, request_id: str, wait_seconds: float, on_wait: OnWait, *, opened: bool = False
) -> RequestReceipts | None:
    """One receipt per event of a request, waiting until all are under a published checkpoint; None for no event.

    Raises StoreUnavailableError, also when the wait was in vain, and IntegrityError for files that are not there; with
    `opened`, what reading Kafka raises.
    """
    layout = layout_of(settings)
    log = DirectoryLog(LogFiles(layout.directory))
    store = PostgresAuditStore(settings.postgres_dsn, layout.log, READER_ROLE)
    await store.open()
    try:
        places = await store.of_request(request_id)
    finally:
        await store.close()
    if not places:
        return None
    note, size = await published_past(log, trust_of(layout), places, wait_seconds, on_wait)
    receipts = await build_receipts(log, note, size, [place.seq for place in places])
    openings: dict[int, bytes] = {}
    if opened:
        openings = await asyncio.to_thread(_openings, settings, load_salts(layout.salt_file), receipts)
    return RequestReceipts(receipts, size, openings)


def _openings(settings: Settings, salts: Salts, receipts: Sequence[BuiltReceipt]) -> dict[int, bytes]:
    """What opens these entries' commitments, their records read from Kafka."""
    reader = KafkaReader(settings.kafka_bootstrap, "quaestor-audit-receipt")
    try:
        scan = LogScan(reader, Codec(RegistrySchemas(settings.registry_url)))
        return {built.entry.seq: write_opening(_opening(scan, salts, built.entry)) for built in receipts}
    finally:
        reader.close()


def _opening(scan: LogScan, salts: Salts, entry: Entry) -> Opening:
    source = entry.source
    span = {Partition(source.topic, source.partition): (source.offset, source.offset + 1)}
    value = next(row.record.value for page in scan.read(span) for row in page)
    salt = salts.salt(source.tenant_id, source.topic_id, source.partition, source.offset)
    return Opening(entry.seq, salt, value)
