"""What is told to the log about a record that is set aside, after the first word on it."""

from __future__ import annotations

import msgspec

from schemas.events import Alert, AlertKind, QuarantinedRecord, QuarantineKind, QuarantineReason, Severity
from schemas.ids import derived_id
from schemas.topics import SYSTEM_TENANT


def follow_up(
    first: QuarantinedRecord, kind: QuarantineKind, actor: str, now_micros: int, leg: str, note: str | None = None
) -> QuarantinedRecord:
    """The event that something happened to the record of `first`; without its bytes, which stand in that event.

    `leg` tells apart what may happen more than once.
    """
    position = f"{first.source_topic_id}/{first.source_partition}/{first.source_offset}"
    return msgspec.structs.replace(
        first,
        event_id=derived_id("quarantine", position, kind.value, f"{first.sink}/{leg}"),
        occurred_at=now_micros,
        causation_id=first.event_id,
        actor=actor,
        kind=kind,
        value_bytes=None,
        headers={},
        note=note,
        behind_event_id=None,
    )


def tried_again(
    first: QuarantinedRecord,
    kind: QuarantineKind,
    attempts: int,
    now_micros: int,
    reason: QuarantineReason | None = None,
    detail: str | None = None,
    fingerprint: str | None = None,
) -> QuarantinedRecord:
    """The event of a redrive: REDRIVEN, or FAILED with what was wrong this time. The same try has the same id."""
    event = follow_up(first, kind, f"sink/{first.sink}", now_micros, str(attempts))
    return msgspec.structs.replace(
        event,
        attempts=attempts,
        reason=first.reason if reason is None else reason,
        detail=first.detail if detail is None else detail,
        fingerprint=first.fingerprint if fingerprint is None else fingerprint,
    )


def resumed(projection: str, where: str, actor: str, now_micros: int, words: str) -> Alert:
    """The event that ends a pause."""
    return Alert(
        event_id=derived_id("pause", f"{where}/{now_micros}", "RESUMED", projection),
        occurred_at=now_micros,
        tenant_id=SYSTEM_TENANT,
        actor=actor,
        kind=AlertKind.PARTITION_PAUSED,
        severity=Severity.INFO,
        subject=f"{projection} {where}",
        title=f"{projection} goes on at {where}",
        detail=words,
    )
