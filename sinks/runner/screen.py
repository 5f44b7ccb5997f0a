"""Screens records before a batch is cut: decodes them, checks their key, and words the quarantine of what fails.

The seam for more rules (semantics, limits on the ratio of poison, parking of keys behind poison): whatever decides that
a record is poison does it here, before the store has seen anything of the batch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import Rejection, SchemaUnknownError, UndecodableError
from schemas.events import QuarantinedRecord, QuarantineReason
from schemas.ids import derived_id, is_name
from schemas.topics import SYSTEM_TENANT, TOPIC_BY_NAME
from sinks.runner.seam import Batch, Decoded, Poison, Span
from streams.codec import Codec
from streams.log import LogRecord

FINGERPRINT_HEX_DIGITS = 16
DETAIL_CHARACTERS_MAX = 500
_VALUES_IN_DETAIL = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"")


class _Fields:
    """Lets a topic's `key_of` read decoded fields as if they were an event; one is reused for all records."""

    __slots__ = ("of",)
    of: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.of[name]


class Screen:
    """Decides per record whether a sink may see it. Used by one thread."""

    def __init__(self, codec: Codec, projection: str) -> None:
        """`projection` stands in the ids of what is quarantined."""
        self._codec = codec
        self._projection = projection
        self._fields = _Fields()
        self._key_of: dict[str, Callable[[Any], str] | None] = {
            name: topic.key_of for name, topic in TOPIC_BY_NAME.items()
        }

    def screen(self, record: LogRecord, topic_id: str, now_micros: int) -> Decoded | Poison:
        """The record decoded, or its poison; raises LogUnavailableError while the registry can't be asked."""
        try:
            fields = self._codec.decode(record.topic, record.value or b"")
        except UndecodableError as error:
            return self.poison(record, topic_id, QuarantineReason.UNDECODABLE, str(error), now_micros)
        except SchemaUnknownError as error:
            return self.poison(record, topic_id, QuarantineReason.SCHEMA_UNKNOWN, str(error), now_micros)
        key_of = self._key_of[record.topic]
        if key_of is not None:
            self._fields.of = fields
            if record.key is None or key_of(self._fields).encode() != record.key:
                detail = "the record's key is not the one its fields say"
                return self.poison(record, topic_id, QuarantineReason.SEMANTIC, detail, now_micros)
        return Decoded(record.offset, fields, record)

    def poison(
        self,
        record: LogRecord,
        topic_id: str,
        reason: QuarantineReason,
        detail: str,
        now_micros: int,
        tenant_id: str = SYSTEM_TENANT,
    ) -> Poison:
        """The poison of a record; its event id is a function of topic UUID, partition, offset and projection."""
        position = f"{topic_id}/{record.partition}/{record.offset}"
        event = QuarantinedRecord(
            event_id=derived_id("quarantine", position, "QUARANTINED", self._projection),
            occurred_at=max(record.timestamp_millis, 0) * 1_000,
            tenant_id=tenant_id,
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
            headers=dict(record.headers),
            schema_id=self._codec.schema_id(record.value or b""),
            first_seen_at=now_micros,
            attempts=1,
        )
        return Poison(record.offset, record, event)

    def reject(self, batch: Batch, rejections: tuple[Rejection, ...]) -> Batch:
        """The batch with what its store refused turned into poison."""
        refused = {(each.topic, each.partition, each.offset): each for each in rejections}
        return Batch([self._reject_span(span, refused, batch.now_micros) for span in batch.spans], batch.now_micros)

    def _reject_span(self, span: Span, refused: Mapping[tuple[str, int, int], Rejection], now_micros: int) -> Span:
        records, poison = [], list(span.poison)
        for decoded in span.records:
            rejection = refused.get((*span.partition, decoded.offset))
            if rejection is None:
                records.append(decoded)
            else:
                poison.append(self._rejected(decoded, span.topic_id, rejection, now_micros))
        poison.sort(key=lambda each: each.offset)
        return Span(span.partition, span.topic_id, span.first_offset, span.next_offset, records, poison)

    def _rejected(self, decoded: Decoded, topic_id: str, rejection: Rejection, now_micros: int) -> Poison:
        tenant_id = decoded.fields.get("tenant_id", SYSTEM_TENANT)
        tenant_id = tenant_id if isinstance(tenant_id, str) and is_name(tenant_id) else SYSTEM_TENANT
        reason = QuarantineReason.SEMANTIC if rejection.semantic else QuarantineReason.SINK_REJECT
        return self.poison(decoded.record, topic_id, reason, rejection.detail, now_micros, tenant_id)


def fingerprint(reason: QuarantineReason, topic: str, detail: str) -> str:
    """Groups records that failed alike: the reason, the topic and the detail without its values, hashed."""
    shape = f"{reason}\0{topic}\0{_VALUES_IN_DETAIL.sub('?', detail)}"
    return hashlib.sha256(shape.encode()).hexdigest()[:FINGERPRINT_HEX_DIGITS]
