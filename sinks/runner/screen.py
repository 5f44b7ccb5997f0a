"""Screens records before a batch is planned: decodes them, checks key and rules, words the quarantine of what fails.

What the store finds later (SINK_REJECT, BUG), what must wait behind poison and when there is too much of it is decided
where batches are written: sinks.runner.writer and sinks.runner.aside.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from processors.quarantine.order import order_key_of
from processors.quarantine.rules import CHECKS
from schemas.errors import QuaestorError, Rejection, SchemaUnknownError, UndecodableError
from schemas.events import QuarantinedRecord, QuarantineKind, QuarantineReason
from schemas.ids import derived_id, is_name
from schemas.topics import (
    ALERTS,
    ATTEMPTS,
    BUDGETS,
    CONTROL,
    COSTS,
    DECISIONS,
    HEALTH,
    LEDGER,
    REQUESTS,
    SYSTEM_TENANT,
)
from sinks.runner.columns import Screened, screen_runs, screen_together
from sinks.runner.seam import Batch, Decoded, Poison, Span
from streams.codec import Codec
from streams.log import LogRecord, Partition
from streams.runs import Run, runs_of

ROOT = Path(__file__).parents[2]
FINGERPRINT_HEX_DIGITS = 16
DETAIL_CHARACTERS_MAX = 500
_VALUES_IN_DETAIL = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"")


class Screen:
    """Decides per record whether a sink may see it. Used by one thread."""

    def __init__(self, codec: Codec, projection: str, *, takes_everything: bool = False) -> None:
        """`projection` stands in the ids of what is quarantined; `takes_everything` asks only that it can be read."""
        self._codec = codec
        self._decode = codec.decode
        self._projection = projection
        checks = CHECKS.items()
        self._checks = {} if takes_everything else {topic: (_KEYS.get(topic), check) for topic, check in checks}

    def screen(self, record: LogRecord, topic_id: str, now_micros: int) -> Decoded | Poison:
        """The record decoded, or its poison; raises LogUnavailableError while the registry can't be asked."""
        fields = None
        try:
            fields = self._decode(record.topic, record.value or b"")
            problem = self._problem(record, fields)
        except UndecodableError as error:
            return self.poison(record, topic_id, QuarantineReason.UNDECODABLE, str(error), now_micros)
        except SchemaUnknownError as error:
            return self.poison(record, topic_id, QuarantineReason.SCHEMA_UNKNOWN, str(error), now_micros)
        except QuaestorError:
            raise
        except Exception as fault:  # noqa: BLE001 - of our own code, in the face of this record: it goes, not the process
            detail = place_of(fault)
            return self.poison(record, topic_id, QuarantineReason.BUG, detail, now_micros, fields)
        if problem is not None:
            return self.poison(record, topic_id, QuarantineReason.SEMANTIC, problem, now_micros, fields)
        return Decoded(record.offset, fields, record)

    def _problem(self, record: LogRecord, fields: Mapping[str, Any]) -> str | None:
        """Which rule the record breaks, in words without its content."""
        rules = self._checks.get(record.topic)
        if rules is None:
            return None
        key_of, check = rules
        if key_of is not None and key_of(fields).encode() != record.key:
            return "the record's key is not the one its fields say"
        return check(fields)

    def screen_topic(
        self, records: Sequence[LogRecord], topic_id: str, now_micros: int, *, together: bool
    ) -> list[Decoded | Poison]:
        """`screen` for many records of one topic, in their order; `together` gives them columns."""

        def one(record: LogRecord) -> Decoded | Poison:
            return self.screen(record, topic_id, now_micros)

        if together:
            return screen_together(self._codec, runs_of(records), one, by_rules=bool(self._checks))
        return [one(record) for record in records]

    def screen_runs(
        self, runs: Sequence[Run], topic_id: str, now_micros: int, *, together: bool
    ) -> dict[Partition, Screened]:
        """`screen` for runs of one topic in the order of their partitions, each partition's in the log's order."""
        if together:

            def one(record: LogRecord) -> Decoded | Poison:
                return self.screen(record, topic_id, now_micros)

            return screen_runs(self._codec, runs, one, by_rules=bool(self._checks))
        found: dict[Partition, Screened] = {}
        for run in runs:
            verdicts = self.screen_topic(run, topic_id, now_micros, together=False)
            screened = found.setdefault(Partition(run.topic, run.partition), Screened([], []))
            found[Partition(run.topic, run.partition)] = screened.with_more(verdicts)
        return found

    def poison(
        self,
        record: LogRecord,
        topic_id: str,
        reason: QuarantineReason,
        detail: str,
        now_micros: int,
        fields: Mapping[str, Any] | None = None,
        attempts: int = 1,
    ) -> Poison:
        """The poison of a record; its event id is a function of topic UUID, partition, offset and projection.

        `fields` where it could be read; `attempts` counts the tries to apply it, this one included.
        """
        return self._aside(record, topic_id, fields, now_micros, reason=reason, detail=detail, attempts=attempts)

    def parked(self, item: Decoded, topic_id: str, behind: str | None, detail: str, now_micros: int) -> Poison:
        """A sound record that waits behind the one with this event id."""
        parked = {"kind": QuarantineKind.PARKED, "behind_event_id": behind, "attempts": 0}
        reason = QuarantineReason.UNKNOWN
        return self._aside(item.record, topic_id, item.fields, now_micros, reason=reason, detail=detail, **parked)

    def _aside(
        self,
        record: LogRecord,
        topic_id: str,
        fields: Mapping[str, Any] | None,
        now_micros: int,
        *,
        reason: QuarantineReason,
        detail: str,
        **more: Any,
    ) -> Poison:
        position = f"{topic_id}/{record.partition}/{record.offset}"
        event = QuarantinedRecord(
            event_id=derived_id("quarantine", position, "QUARANTINED", self._projection),
            occurred_at=max(record.timestamp_millis, 0) * 1_000,
            tenant_id=_tenant_of(record, fields),
            actor=f"sink/{self._projection}",
            sink=self._projection,
            source_topic=record.topic,
            source_topic_id=topic_id,
            source_partition=record.partition,
            source_offset=record.offset,
            reason=reason,
            detail=detail[:DETAIL_CHARACTERS_MAX],
            fingerprint=fingerprint(reason, record.topic, detail),
            key_bytes=record.key,
            value_bytes=record.value,
            headers=dict(record.headers),  # of a name that comes again, the last; all of them stay in the log
            schema_id=self._codec.schema_id(record.value or b""),
            first_seen_at=now_micros,
            order_key=_order_key(record, fields),
            **more,
        )
        return Poison(record.offset, record, event)

    def reject(self, batch: Batch, rejections: Sequence[Rejection], tries: int = 1) -> Batch:
        """The batch with what its store refused turned into poison; `tries` writes with it failed."""
        refused = {(each.topic, each.partition, each.offset): each for each in rejections}
        spans = [self._reject_span(span, refused, batch.now_micros, tries) for span in batch.spans]
        return Batch(spans, batch.now_micros)

    def _reject_span(
        self, span: Span, refused: Mapping[tuple[str, int, int], Rejection], now_micros: int, tries: int
    ) -> Span:
        records, poison = [], list(span.poison)
        for decoded in span.records:
            rejection = refused.get((*span.partition, decoded.offset))
            if rejection is None:
                records.append(decoded)
            else:
                poison.append(self._rejected(decoded, span.topic_id, rejection, now_micros, tries))
        poison.sort(key=lambda each: each.offset)
        return Span(span.partition, span.topic_id, span.first_offset, span.next_offset, records, poison)

    def _rejected(self, decoded: Decoded, topic_id: str, rejection: Rejection, now_micros: int, tries: int) -> Poison:
        reason = QuarantineReason.SEMANTIC if rejection.semantic else QuarantineReason.SINK_REJECT
        return self.poison(decoded.record, topic_id, reason, rejection.detail, now_micros, decoded.fields, tries)

    def blame(self, span: Span, reason: QuarantineReason, detail: str, now_micros: int, tries: int) -> Span:
        """The span with its records turned into poison: whatever is wrong is about them."""
        made = [
            self.poison(each.record, span.topic_id, reason, detail, now_micros, each.fields, tries)
            for each in span.records
        ]
        poison = sorted([*span.poison, *made], key=lambda each: each.offset)
        return Span(span.partition, span.topic_id, span.first_offset, span.next_offset, [], poison)


def place_of(fault: BaseException) -> str:
    """A fault's type and where in our code it was raised; never its text, which may hold a record's data."""
    place = ""
    for frame, line in traceback.walk_tb(fault.__traceback__):
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            place = f" at {path.relative_to(ROOT)}:{line} in {frame.f_code.co_name}"
    return f"{type(fault).__name__}{place}"


def _tenant_of(record: LogRecord, fields: Mapping[str, Any] | None) -> str:
    """Whose record it is, by its fields or, where those can't be read, by its key; for filters, never for access."""
    if fields is not None:
        told = fields.get("tenant_id")
    elif record.topic in KEYED_BY_TENANT and record.key:
        told = record.key.split(b"/", 1)[0].decode("ascii", "replace")
    else:
        told = None
    return told if isinstance(told, str) and is_name(told) else SYSTEM_TENANT


def _order_key(record: LogRecord, fields: Mapping[str, Any] | None) -> str | None:
    try:
        return order_key_of(record.topic, record.key, fields)
    except KeyError:
        return None


def _request_key(fields: Mapping[str, Any]) -> str:
    return f"{fields['tenant_id']}/{fields['run_id'] or fields['request_id']}"


#: schemas.topics' keys from decoded fields, at a third of the cost; a test compares them.
_KEYS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **dict.fromkeys((topic.name for topic in (REQUESTS, DECISIONS, ATTEMPTS, COSTS)), _request_key),
    **dict.fromkeys((topic.name for topic in (BUDGETS, LEDGER, ALERTS)), itemgetter("tenant_id")),
    CONTROL.name: lambda fields: f"{fields['tenant_id']}/{fields['entity_id']}",
    HEALTH.name: lambda fields: f"{fields['provider_id']}/{fields['model']}/{fields['region']}",
}
#: Topics whose keys begin with the tenant.
KEYED_BY_TENANT = frozenset(_KEYS) - {HEALTH.name}


def fingerprint(reason: QuarantineReason, topic: str, detail: str) -> str:
    """Groups records that failed alike: the reason, the topic and the detail without its values, hashed."""
    shape = f"{reason}\0{topic}\0{_VALUES_IN_DETAIL.sub('?', detail)}"
    return hashlib.sha256(shape.encode()).hexdigest()[:FINGERPRINT_HEX_DIGITS]
