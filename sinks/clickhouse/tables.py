"""Fact tables and how decoded records become their columns, read off the schemas.

Columns travel as the cheapest type that the server turns into the table's own: texts as String where the table has
LowCardinality or UUID, so that neither dictionaries nor UUIDs are made in Python. tests/unit/clickhouse compares the
columns with the migrations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.ids import is_uuid
from sinks.runner.seam import Decoded
from streams.codec import schema_text

TABLE_NAMES: dict[str, str] = {
    "quaestor.requests": "requests",
    "quaestor.decisions": "decisions",
    "quaestor.attempts": "attempts",
    "quaestor.costs": "costs",
    "quaestor.budgets": "budgets",
    "quaestor.ledger": "ledger",
    "quaestor.health": "health",
}
#: Encrypted or hashed for other purposes: of no use to analysts.
OMITTED = frozenset(("sealed", "body_commitment"))
#: Where a row came from.
POSITION: tuple[tuple[str, str], ...] = (
    ("_topic", "String"),
    ("_topic_id", "String"),
    ("_part", "Int32"),
    ("_off", "Int64"),
)
PRIMITIVES = {"int": "Int32", "long": "Int64", "double": "Float64", "boolean": "Bool", "string": "String"}
TIME = "DateTime64(6, 'UTC')"
INT32_MAX = 2**31 - 1
#: Times a table takes: 1970 to 2200, far inside of what DateTime64 and its partitions can hold.
TIME_MICROS_MAX = 7_258_118_400_000_000

Maker = Callable[[Sequence[Mapping[str, Any]]], list[Any]]


@dataclass(frozen=True)
class Column:
    """One column as it travels."""

    name: str
    type_name: str
    make: Maker


@dataclass(frozen=True)
class FactTable:
    """One topic's table."""

    topic: str
    name: str
    columns: tuple[Column, ...]
    #: Fields that must hold a UUID, and of these those that may be null.
    uuid_fields: tuple[str, ...]
    #: Fields that must hold a time the table takes, unless null.
    time_fields: tuple[str, ...]
    has_amount: bool

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in the order of `columns_of`."""
        return tuple(name for name, _ in POSITION) + tuple(column.name for column in self.columns)

    @property
    def column_types(self) -> tuple[str, ...]:
        """Types in the order of `columns_of`."""
        return tuple(kind for _, kind in POSITION) + tuple(column.type_name for column in self.columns)

    def columns_of(self, pieces: Iterable[tuple[int, str, Sequence[Decoded]]]) -> list[Any]:
        """Columns of records, given as (partition number, topic UUID, records)."""
        numbers: list[int] = []
        topic_ids: list[str] = []
        offsets: list[int] = []
        rows: list[Mapping[str, Any]] = []
        for number, topic_id, records in pieces:
            numbers += [number] * len(records)
            topic_ids += [topic_id] * len(records)
            offsets += [record.offset for record in records]
            rows += [record.fields for record in records]
        position: list[Any] = [[self.topic] * len(rows), topic_ids, numbers, offsets]
        return position + [column.make(rows) for column in self.columns]

    def refusal(self, fields: Mapping[str, Any]) -> str | None:
        """Why the table would not take a record, in words without its content; None when it would."""
        for name in self.uuid_fields:
            value = fields[name]
            if value is not None and not is_uuid(value):
                return f"{name} is not a UUID"
        for name in self.time_fields:
            value = fields[name]
            if value is not None and not 0 <= value < TIME_MICROS_MAX:
                return f"{name} is outside of the years 1970 to 2199"
        return None


def _plain(name: str) -> Maker:
    def make(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [row[name] for row in rows]

    return make


def _text(name: str) -> Maker:
    """Null becomes the empty text."""

    def make(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [row[name] or "" for row in rows]

    return make


def _nested(name: str, inner: str, *, nullable_text: bool) -> Maker:
    def make(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        if nullable_text:
            return [[item[inner] or "" for item in row[name]] for row in rows]
        return [[item[inner] for item in row[name]] for row in rows]

    return make


def _split(avro: Any) -> tuple[Any, bool]:
    """A field's type without null, and whether null was there."""
    if isinstance(avro, list):
        return next(each for each in avro if each != "null"), True
    return avro, False


def _type_name(avro: Any) -> str:
    """The type a value travels as, without its nulls."""
    if not isinstance(avro, dict):
        return PRIMITIVES[avro]
    if avro.get("logicalType") == "timestamp-micros":
        return TIME
    if avro["type"] == "map":
        return "Map(String, String)"
    return "String" if avro["type"] == "enum" else PRIMITIVES[avro["type"]]


def _is_uuid(avro: Any) -> bool:
    return isinstance(avro, dict) and avro.get("logicalType") == "uuid"


def _column(name: str, avro: Any) -> Column:
    kind, nullable = _split(avro)
    type_name = _type_name(kind)
    if not nullable:
        return Column(name, type_name, _plain(name))
    if type_name == "String" and not _is_uuid(kind):
        return Column(name, type_name, _text(name))
    return Column(name, f"Nullable({type_name})", _plain(name))


def _columns(field: Mapping[str, Any]) -> list[Column]:
    """The columns of a field: one, or one per inner field of an array of records."""
    name, (kind, _) = field["name"], _split(field["type"])
    if not (isinstance(kind, dict) and kind["type"] == "array"):
        return [_column(name, field["type"])]
    found = []
    for inner in kind["items"]["fields"]:
        inner_kind, nullable = _split(inner["type"])
        type_name = _type_name(inner_kind)
        is_text = nullable and type_name == "String"
        travels = f"Array({type_name})" if is_text or not nullable else f"Array(Nullable({type_name}))"
        found.append(Column(f"{name}.{inner['name']}", travels, _nested(name, inner["name"], nullable_text=is_text)))
    return found


def _table_of(topic: str, name: str) -> FactTable:
    fields = [field for field in json.loads(schema_text(topic))["fields"] if field["name"] not in OMITTED]
    kinds = {field["name"]: _split(field["type"])[0] for field in fields}
    return FactTable(
        topic,
        name,
        tuple(column for field in fields for column in _columns(field)),
        uuid_fields=tuple(name for name, kind in kinds.items() if _is_uuid(kind)),
        time_fields=tuple(
            name
            for name, kind in kinds.items()
            if isinstance(kind, dict) and kind.get("logicalType") == "timestamp-micros"
        ),
        has_amount="amount_nano" in kinds,
    )


TABLES: dict[str, FactTable] = {topic: _table_of(topic, name) for topic, name in TABLE_NAMES.items()}
