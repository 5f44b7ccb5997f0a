"""Events as the quarantine keeps them, JSON as msgspec writes it: read row by row, so that a bad row stops no other."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import structlog

from schemas.errors import UndecodableError
from schemas.events import EVENT_TYPES, Event, QuarantinedRecord, QuarantineKind, QuarantineReason
from sinks.runner.seam import Unreadable

log = structlog.get_logger()
T = TypeVar("T")
MICROS_PER_MILLI = 1_000


def event_or_reason(row: Any) -> Event | Unreadable:
    """What is to be published of a row (event_id, topic, body), or why it can't be read."""
    event_type = EVENT_TYPES.get(row["topic"])
    if event_type is None:
        return Unreadable(row["event_id"], f"this release does not know the topic {row['topic']}")
    try:
        return _read(row["body"], event_type)
    except UndecodableError as error:
        return Unreadable(row["event_id"], str(error))


def first_event(row: Any) -> QuarantinedRecord:
    """The first event of a record (dead_letter_queries.FIRST), as it was kept.

    Where that can't be read, what the row's columns say of it, without its bytes: the record can be given up then, and
    a redrive of it fails as that of any record without a value.
    """
    try:
        return _read(row["body"], QuarantinedRecord)
    except UndecodableError as error:
        log.error("kept_record_unreadable", event_id=row["event_id"], why=str(error))  # noqa: TRY400 - the fault says no more
        return _of_columns(row)


def _read(body: bytes, event_type: type[T]) -> T:
    """An event from its kept form; raises UndecodableError."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        if "headers" in fields:
            # Earlier releases kept a header without a value as null.
            headers = msgspec.convert(fields["headers"], dict[str, str | None])
            fields["headers"] = {name: value or "" for name, value in headers.items()}
        return msgspec.convert(fields, event_type)
    except msgspec.MsgspecError as error:
        raise UndecodableError(f"a kept event can't be read: {error}") from error


def _of_columns(row: Any) -> QuarantinedRecord:
    reason = next((each for each in QuarantineReason if each == row["reason"]), QuarantineReason.UNKNOWN)
    return QuarantinedRecord(
        event_id=row["event_id"],
        occurred_at=row["record_millis"] * MICROS_PER_MILLI,
        tenant_id=row["tenant_id"],
        actor=f"sink/{row['sink']}",
        sink=row["sink"],
        source_topic=row["source_topic"],
        source_topic_id=row["source_topic_id"],
        source_partition=row["source_partition"],
        source_offset=row["source_offset"],
        reason=reason,
        detail=row["detail"],
        fingerprint=row["fingerprint"],
        key_bytes=row["key_bytes"],
        first_seen_at=row["first_seen_at"],
        attempts=row["attempts"],
        kind=QuarantineKind.PARKED if row["behind_event_id"] else QuarantineKind.QUARANTINED,
        order_key=row["order_key"],
        behind_event_id=row["behind_event_id"],
    )
