"""A record that a stream could not take, as an event: same ids and fingerprints as the sinks make."""

from __future__ import annotations

import hashlib
import re

from schemas.errors import CodecError, SchemaUnknownError
from schemas.events import QuarantinedRecord, QuarantineReason
from schemas.ids import derived_id
from schemas.limits import RECORD_BYTES_MAX
from schemas.topics import SYSTEM_TENANT
from streams.log import LogRecord
from streams.records import MisplacedError

FINGERPRINT_HEX_DIGITS = 16
MICROS_PER_MILLI = 1_000
#: What the record around the bytes may take.
ENVELOPE_BYTES = 2_048
REASONS = (
    (SchemaUnknownError, QuarantineReason.SCHEMA_UNKNOWN),
    (MisplacedError, QuarantineReason.SEMANTIC),
)
_VALUES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"")


def quarantined(
    record: LogRecord, topic_id: str, projection: str, error: CodecError, schema_id: int | None, now_micros: int
) -> QuarantinedRecord:
    """The event about a record; its id is a function of topic UUID, partition, offset and projection.

    A record too large to be wrapped is named without its bytes; they stay at its offset.
    """
    reason = next((why for kind, why in REASONS if isinstance(error, kind)), QuarantineReason.UNDECODABLE)
    headers = dict(record.headers)
    size = sum(len(value or b"") for value in (record.key, record.value, *headers.values()))
    fits = size + ENVELOPE_BYTES <= RECORD_BYTES_MAX
    detail = str(error)
    return QuarantinedRecord(
        event_id=derived_id("quarantine", f"{topic_id}/{record.partition}/{record.offset}", "QUARANTINED", projection),
        occurred_at=max(record.timestamp_millis, 0) * MICROS_PER_MILLI,
        tenant_id=SYSTEM_TENANT,
        actor=projection,
        sink=projection,
        source_topic=record.topic,
        source_topic_id=topic_id,
        source_partition=record.partition,
        source_offset=record.offset,
        reason=reason,
        detail=detail,
        fingerprint=fingerprint(reason, record.topic, detail),
        key_bytes=record.key if fits else None,
        value_bytes=record.value if fits else None,
        headers={name: value or b"" for name, value in headers.items()} if fits else {},
        schema_id=schema_id,
        first_seen_at=now_micros,
        attempts=1,
    )


def fingerprint(reason: QuarantineReason, topic: str, detail: str) -> str:
    """Groups records that failed alike: the reason, the topic and the detail without its values, hashed."""
    shape = f"{reason}\0{topic}\0{_VALUES.sub('?', detail)}"
    return hashlib.sha256(shape.encode()).hexdigest()[:FINGERPRINT_HEX_DIGITS]
