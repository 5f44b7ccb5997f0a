"""Event tables and their columns, read off the schemas: how a decoded record becomes a row.

A row is (log_partition, log_offset, content_hash, plain fields…, structured fields…): plain ones are taken in one call,
structured ones (arrays, maps) are written as JSON. A test compares the columns with the migrations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.topics import TOPICS
from streams.codec import HEADER, schema_text

if TYPE_CHECKING:
    from sinks.runner.seam import Decoded  # loads numpy, which whoever only reads does without

#: Names these tables among all projections of the log.
PROJECTION = "postgres@v1"
SCHEMA = "quaestor_v1"
HASH_BYTES = 16
POSITION_COLUMNS = ("log_partition", "log_offset", "content_hash")
TABLE_NAMES: dict[str, str] = {
    "quaestor.requests": "request_event",
    "quaestor.decisions": "decision",
    "quaestor.attempts": "attempt",
    "quaestor.costs": "cost",
    "quaestor.budgets": "budget_event",
    "quaestor.ledger": "transfer",
    "quaestor.control": "control_event",
    "quaestor.health": "health",
    "quaestor.alerts": "alert",
    "quaestor.quarantine": "quarantine",
}

Row = tuple[Any, ...]


@dataclass(frozen=True)
class EventTable:
    """One topic's table."""

    topic: str
    name: str
    #: In the order of a row.
    columns: tuple[str, ...]
    plain_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    structured: tuple[str, ...]
    has_amount: bool

    def rows(self, partition: int, records: Iterable[Decoded]) -> list[Row]:
        """The rows of records of one partition."""
        plain_of = self.plain_of
        if not self.structured:
            return [
                (partition, offset, content_hash(record.value), *plain_of(fields)) for offset, fields, record in records
            ]
        return [
            (partition, offset, content_hash(record.value), *plain_of(fields), *self._structured_of(fields))
            for offset, fields, record in records
        ]

    def _structured_of(self, fields: Mapping[str, Any]) -> list[str]:
        return [_JSON.encode(fields[name]).decode() for name in self.structured]


_JSON = msgspec.json.Encoder()
#: Copied for each body: a copy costs less than a new one of this size.
_HASH = hashlib.blake2b(digest_size=HASH_BYTES)


def content_hash(value: bytes | None) -> bytes:
    """What makes two records with one id the same: the hash of the body behind the frame."""
    return body_hash((value or b"")[HEADER.size :])


def body_hash(body: bytes) -> bytes:
    """`content_hash` of what stands behind the frame."""
    hashed = _HASH.copy()
    hashed.update(body)
    return hashed.digest()


def _table_of(topic: str) -> EventTable:
    fields = json.loads(schema_text(topic))["fields"]
    structured = tuple(field["name"] for field in fields if _is_structured(field["type"]))
    plain = tuple(field["name"] for field in fields if field["name"] not in structured)
    columns = (*POSITION_COLUMNS, *plain, *structured)
    return EventTable(topic, TABLE_NAMES[topic], columns, itemgetter(*plain), structured, "amount_nano" in plain)


def _is_structured(kind: Any) -> bool:
    options: Sequence[Any] = kind if isinstance(kind, list) else [kind]
    return any(isinstance(option, dict) and option["type"] in {"array", "map"} for option in options)


TABLES: dict[str, EventTable] = {topic.name: _table_of(topic.name) for topic in TOPICS}
