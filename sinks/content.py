"""Rows as stores hold them and as the log has them, in one form, so that every field can be compared.

A row's values stand in the order of its schema's fields. What a store changes on the way in (a text that is null in the
log is empty in ClickHouse, an audit entry commits to a record's bytes) is changed alike on the log's side.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from streams.codec import schema_text
from streams.log import LogRecord, Partition

Values = list[Any]
#: First offset and the one after the last, per partition.
Ranges = Mapping[Partition, tuple[int, int]]
Norm = Callable[[Any], Any]


class LogRow(NamedTuple):
    """A record of the log as comparisons need it."""

    record: LogRecord
    topic_id: str
    #: None when it can't be decoded, or doesn't say which event it is and whose.
    fields: Mapping[str, Any] | None


class StoredRow(NamedTuple):
    """A row of a store, and which record it says it came from."""

    partition: Partition
    offset: int
    tenant_id: str
    event_id: str
    values: Values


class Content(Protocol):
    """What a store keeps of one topic's records."""

    names: tuple[str, ...]

    def of(self, row: LogRow) -> Values:
        """What the store must hold of a record, in the order of `names`."""


class ContentStore(Protocol):
    """A store whose rows can be read back whole."""

    #: Whether it has a row for every record: repeated events and ones that can't be decoded too.
    holds_every_record: bool

    @property
    def contents(self) -> Mapping[str, Content]:
        """What it keeps, by topic."""

    def rows(self, ranges: Ranges) -> AsyncIterator[list[StoredRow]]:
        """Every row of these ranges, in bounded pages and any order; raises StoreUnavailableError."""


class SchemaContent(Content):
    """The fields of a topic's schema, but for some."""

    def __init__(self, topic: str, omitted: Collection[str] = (), *, null_text_is_empty: bool = False) -> None:
        """`null_text_is_empty`: the store has no null texts (UUIDs stay null)."""
        fields = [field for field in json.loads(schema_text(topic))["fields"] if field["name"] not in omitted]
        self.names = tuple(field["name"] for field in fields)
        self._get = itemgetter(*self.names)
        norms = [_norm(field["type"], null_text_is_empty=null_text_is_empty) for field in fields]
        self._norms = [(position, norm) for position, norm in enumerate(norms) if norm is not None]

    def values(self, fields: Mapping[str, Any]) -> Values:
        """The values of decoded fields, or of a store's row by column name."""
        values = list(self._get(fields))
        for position, norm in self._norms:
            values[position] = norm(values[position])
        return values

    def of(self, row: LogRow) -> Values:
        """As the seam says; only for records that have fields."""
        return self.values(row.fields or {})


def _norm(avro: Any, *, null_text_is_empty: bool) -> Norm | None:
    """What brings a value of this Avro type into the common form; None when it is in it."""
    nullable = isinstance(avro, list)
    kind = next(each for each in avro if each != "null") if nullable else avro
    name = kind["type"] if isinstance(kind, dict) else kind
    norm = _norm_of(kind, name, null_text_is_empty=null_text_is_empty)
    if not nullable:
        return norm
    is_uuid = isinstance(kind, dict) and kind.get("logicalType") == "uuid"
    if name in {"string", "enum"} and null_text_is_empty and not is_uuid:
        return lambda value: value or ""
    return None if norm is None else (lambda value: None if value is None else norm(value))


def _norm_of(kind: Any, name: str, *, null_text_is_empty: bool) -> Norm | None:
    if name in {"double", "float"}:
        return float
    if name == "map":
        return _map_of_bytes if kind["values"] == "bytes" else _map
    if name == "array":
        return _array(kind["items"], null_text_is_empty=null_text_is_empty)
    return None


def _map(value: Mapping[str, Any]) -> Any:
    return sorted(map(list, value.items()))


def _map_of_bytes(value: Mapping[str, Any]) -> Any:
    """JSON has bytes as base64."""
    return sorted([name, b64decode(item) if isinstance(item, str) else item] for name, item in value.items())


def _array(record: Any, *, null_text_is_empty: bool) -> Norm:
    """Inner fields by position; a row that was stored before a field existed has its default."""
    inner = [
        (field["name"], field.get("default"), _norm(field["type"], null_text_is_empty=null_text_is_empty) or _same)
        for field in record["fields"]
    ]
    return lambda items: [[norm(item.get(name, default)) for name, default, norm in inner] for item in items]


def _same(value: Any) -> Any:
    return value
