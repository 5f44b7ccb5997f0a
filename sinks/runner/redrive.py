"""Applies records that were set aside after all, when a person asked for it: in order, each once, told to the log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from processors.quarantine.order import Aside, Waiting, order_key_of
from schemas import limits
from schemas.errors import (
    FencedError,
    GapError,
    IntegrityError,
    LogError,
    RejectedError,
    StoreUnavailableError,
)
from schemas.events import QuarantinedRecord, QuarantineReason
from sinks.runner.screen import Screen, fingerprint, place_of
from sinks.runner.seam import Decoded, Failed, Poison, Progress, QuarantineStore, Sink, Span
from streams.log import LogRecord, Partition

log = structlog.get_logger()
MICROS_PER_MILLI = 1_000


class _Going(NamedTuple):
    """A record that passed the screen, and whose place in its chain is known."""

    event: QuarantinedRecord
    decoded: Decoded
    waiting: Waiting


class Redriver:
    """Redrives one partition at a time; nothing else of it may be written meanwhile."""

    def __init__(self, sink: Sink, screen: Screen, progress: Progress, quarantine: QuarantineStore) -> None:
        """The sink must own what is redriven."""
        self._sink = sink
        self._screen = screen
        self._progress = progress
        self._quarantine = quarantine

    async def redrive(self, partition: Partition, cursor: int) -> bool:
        """Try the next records below the cursor; False when there are none. Raises as Writer.redrive does.

        Whoever dies on the way leaves the same records to be taken again, and the sink knows which of them it has.
        """
        projection = self._sink.projection
        taken = await self._quarantine.take(projection, partition, cursor, limits.REDRIVE_RECORDS_MAX)
        if not taken:
            return False
        going, failed = self._screened(taken)
        applied = await self._apply(partition, taken[0].source_topic_id, going, failed)
        await self._quarantine.settle(projection, partition, applied, failed)
        self._progress.redriven(len(applied), len(failed))
        log.info(
            "records_redriven", sink=projection, partition=str(partition), applied=len(applied), failed=len(failed)
        )
        return True

    def _screened(self, taken: Sequence[QuarantinedRecord]) -> tuple[list[_Going], list[Failed]]:
        going: list[_Going] = []
        failed: list[Failed] = []
        staying = Aside(taken[0].source_topic)
        for event in taken:
            record = record_of(event)
            verdict = self._screen.screen(record, event.source_topic_id, time.time_ns() // MICROS_PER_MILLI)
            if isinstance(verdict, Poison):
                found = verdict.event
                failed.append(Failed(event.event_id, found.reason, found.detail, found.fingerprint))
                staying.add(_waiting(event, record, found.order_key))
                continue
            waiting = _waiting(event, record, order_key_of(record.topic, record.key, verdict.fields))
            if staying.before(waiting.order_key, record.key, record.offset) is None:
                going.append(_Going(event, verdict, waiting))
            else:
                staying.add(waiting)
        return going, failed

    async def _apply(
        self, partition: Partition, topic_id: str, going: Sequence[_Going], failed: list[Failed]
    ) -> list[str]:
        """Ids of what is applied; adds what failed. All at once, or one by one to learn which record is at fault."""
        if not going:
            return []
        span = _span(partition, topic_id, going)
        if await self._fault_of(span) is None:
            return [each.event.event_id for each in going]
        applied = []
        staying = Aside(partition.topic)
        for each in going:
            if staying.before(each.waiting.order_key, each.waiting.key, each.waiting.offset) is not None:
                staying.add(each.waiting)
                continue
            fault = await self._fault_of(_span(partition, topic_id, [each]))
            if fault is None:
                applied.append(each.event.event_id)
            else:
                reason, detail = fault
                mark = fingerprint(reason, partition.topic, detail)
                failed.append(Failed(each.event.event_id, reason, detail, mark))
                staying.add(each.waiting)
        return applied

    async def _fault_of(self, span: Span) -> tuple[QuarantineReason, str] | None:
        """What the sink says to these records; None when they are applied. Raises what is not about them."""
        try:
            await self._sink.redrive(span)
        except (StoreUnavailableError, FencedError, GapError, LogError):
            raise
        except Exception as fault:  # noqa: BLE001 - a refusal, a disagreement or a fault of the code: it stays set aside
            return _reason_of(fault)
        return None


def _reason_of(fault: Exception) -> tuple[QuarantineReason, str]:
    if isinstance(fault, RejectedError) and fault.rejections:
        first = fault.rejections[0]
        return QuarantineReason.SEMANTIC if first.semantic else QuarantineReason.SINK_REJECT, first.detail
    if isinstance(fault, IntegrityError | RejectedError):
        return QuarantineReason.SINK_REJECT, f"{type(fault).__name__}: the store disagrees with the record"
    return QuarantineReason.BUG, place_of(fault)


def _span(partition: Partition, topic_id: str, going: Sequence[_Going]) -> Span:
    records = [each.decoded for each in going]
    return Span(partition, topic_id, records[0].offset, records[-1].offset + 1, records)


def _waiting(event: QuarantinedRecord, record: LogRecord, order_key: str | None) -> Waiting:
    return Waiting(event.event_id, record.offset, order_key, record.key, record.timestamp_millis)


def record_of(event: QuarantinedRecord) -> LogRecord:
    """The record as it stands in the log."""
    return LogRecord(
        event.source_topic,
        event.source_partition,
        event.source_offset,
        event.occurred_at // MICROS_PER_MILLI,
        event.key_bytes,
        event.value_bytes,
        tuple(event.headers.items()),
    )
