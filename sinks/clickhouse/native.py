"""Blocks in ClickHouse's Native format made from columns: what goes over the wire, without an object per value.

UUIDs go as their sixteen bytes, everything else as tables.py says. A block is built only where all rows come from one
chunk of columns; the rest goes through clickhouse-connect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sinks.clickhouse.tables import FactTable
from sinks.runner.columns import joined, selections
from sinks.runner.seam import Decoded
from streams.codec import schema_text
from streams.columns import Column, Columns, Flags
from streams.pieces import Bytes, Integers, UnusualError, copy_bytes

#: Pieces of a plan: partition number, topic UUID, records.
Pieces: TypeAlias = Sequence[tuple[int, str, Sequence[Decoded]]]
#: A column's bytes, without name and type.
Encode: TypeAlias = Callable[[Columns, Column], bytes]

SEPTET, CONTINUES = 127, 128
#: Texts of this length and longer go the slow way: their length takes three bytes.
TEXT_BYTES_MAX = 1 << 14
FIXED = {"Int32": "<i4", "Int64": "<i8", "Float64": "<f8", "Bool": "u1"}


class NativeWriter:
    """Writes blocks of one table."""

    def __init__(self, table: FactTable) -> None:
        """Plan it from the table's columns."""
        self._table = table
        fields = {field["name"]: field["type"] for field in json.loads(schema_text(table.topic))["fields"]}
        uuid_fields = {name for name, avro in fields.items() if name in table.uuid_fields}
        self._encoders: list[tuple[str, str, str, Encode]] = []
        for column in table.columns:
            name, _, inner = column.name.partition(".")
            kind = column.type_name.replace("String", "UUID") if name in uuid_fields else column.type_name
            encode = _inner(inner, kind) if inner else _encoder(kind)
            self._encoders.append((column.name, kind, name, encode))

    def block(self, pieces: Pieces) -> bytes | None:
        """The rows of a plan as one block, or None when they must go another way."""
        records = joined([of_piece for _, _, of_piece in pieces])
        chosen, plain = selections(records)
        if plain or len(chosen) != 1:
            return None
        columns = chosen[0].columns
        parts = [_varint(len(self._encoders) + 4), _varint(len(records))]
        counts = [len(of_piece) for _, _, of_piece in pieces]
        topic_ids = b"".join(_text(topic_id) * count for (_, topic_id, _), count in zip(pieces, counts, strict=True))
        numbers = np.repeat(np.array([number for number, _, _ in pieces], "<i4"), counts)
        offsets = chosen[0].offsets.astype("<i8")
        position = (_text(self._table.topic) * len(records), topic_ids, numbers.tobytes(), offsets.tobytes())
        for name, kind, body in zip(self._table.column_names, self._table.column_types, position, strict=False):
            parts += (_text(name), _text(kind), body)
        try:
            for name, kind, source, encode in self._encoders:
                parts += (_text(name), _text(kind), encode(columns, columns.fields[source]))
        except UnusualError:
            return None
        return b"".join(parts)


def _encoder(kind: str) -> Encode:
    """What writes a column of this type."""
    if kind.startswith("Nullable("):
        return _nullable(kind.removeprefix("Nullable(").removesuffix(")"))
    if kind.startswith("DateTime64"):
        return lambda _, column: column.values.astype("<i8").tobytes()
    if kind == "UUID":
        return _uuid_bytes
    if kind == "Map(String, String)":
        return _map
    if kind == "String":
        return _texts
    fixed = FIXED[kind]
    return lambda _, column: column.values.astype(fixed).tobytes()


def _nullable(kind: str) -> Encode:
    encode = _encoder(kind)

    def write(columns: Columns, column: Column) -> bytes:
        count = len(column.values)
        if column.present is None:
            return bytes(count) + encode(columns, column)
        if kind != "UUID":
            return (~column.present).tobytes() + encode(columns, column)
        values = np.zeros((count, 16), np.uint8)
        values[column.present] = np.frombuffer(_uuid_bytes(columns, column), np.uint8).reshape(-1, 16)
        return (~column.present).tobytes() + values.tobytes()

    return write


def _uuid_bytes(columns: Columns, column: Column) -> bytes:
    """UUIDs as two little-endian numbers each, without nulls; raises UnusualError when one is not canonical."""
    return columns.uuids(column).view(">u8").astype("<u8").tobytes()


def _texts(columns: Columns, column: Column) -> bytes:
    """Texts and symbols; null is the empty text."""
    if column.lengths is not None:
        return _strings(columns.bytes, column.values, column.lengths, column.present)
    names = [symbol.encode() for symbol in column.symbols]
    sizes = np.array([len(name) for name in names])
    source = np.frombuffer(b"".join(names), np.uint8)
    return _strings(source, (np.cumsum(sizes) - sizes)[column.values], sizes[column.values], column.present)


def _strings(source: Bytes, begins: Integers, lengths: Integers, present: Flags | None) -> bytes:
    lengths = lengths if present is None else np.where(present, lengths, 0)
    longest = int(lengths.max(initial=0))
    if longest >= TEXT_BYTES_MAX:
        raise UnusualError
    prefixes = 1 + (lengths > SEPTET) if longest > SEPTET else np.ones_like(lengths)
    ends = np.cumsum(lengths + prefixes)
    places = ends - lengths - prefixes
    out: NDArray[np.uint8] = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    out[places] = np.where(lengths > SEPTET, lengths & SEPTET | CONTINUES, lengths)
    if longest > SEPTET:
        long = np.flatnonzero(lengths > SEPTET)
        out[places[long] + 1] = lengths[long] >> 7
    copy_bytes(source, begins, lengths, out, places + prefixes)
    return out.tobytes()


def _map(columns: Columns, column: Column) -> bytes:
    offsets = np.cumsum(column.values).astype("<u8").tobytes()
    if not column.items:
        return offsets
    return offsets + _texts(columns, column.items["key"]) + _texts(columns, column.items["value"])


def _inner(name: str, kind: str) -> Encode:
    """One inner field of an array of records."""
    encode = _encoder(kind.removeprefix("Array(").removesuffix(")"))

    def write(columns: Columns, column: Column) -> bytes:
        offsets = np.cumsum(column.values).astype("<u8").tobytes()
        return offsets + (encode(columns, column.items[name]) if column.items else b"")

    return write


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > SEPTET:
        out.append(number & SEPTET | CONTINUES)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data
