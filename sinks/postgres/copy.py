"""Rows of an event table in Postgres' binary COPY format, made from columns: no object per value, no call per row.

asyncpg would take a tuple of Python objects per row and encode each; here each column is laid out for all rows at once.
What goes over the wire is the same. See docs/decisions/0100-columns-from-log-to-store.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from sinks.postgres.connect import POSTGRES_EPOCH_MICROS
from sinks.postgres.copy_frame import HEADER, TRAILER
from sinks.postgres.tables import HASH_BYTES, EventTable
from streams.codec import parse_schema, schema_text
from streams.columns import Column, Columns, Flags
from streams.decoder import compile_decoder
from streams.pieces import Bytes, Integers, UnusualError, copy_bytes, put

SIZE_BYTES = 4
ROW_BYTES = 2
#: Texts of arrays and maps remembered per field: tags and candidates repeat.
TEXTS_MAX = 8_192
#: jsonb begins with its version.
JSONB = b"\x01"
_JSON = msgspec.json.Encoder()
#: How wide a column is in each row, and what writes it to its places.
Part: TypeAlias = tuple[int | Integers, Callable[[Bytes, Integers], None]]
Writer: TypeAlias = Callable[[Columns, Column], Part]


class CopyWriter:
    """Writes rows of one table."""

    def __init__(self, table: EventTable) -> None:
        """Plan it from the topic's schema."""
        fields = {field["name"]: field for field in json.loads(schema_text(table.topic))["fields"]}
        plain = {field["name"]: field for field in parse_schema(schema_text(table.topic))["fields"]}
        self._columns = len(table.columns)
        self._writers: list[tuple[str, Writer]] = [
            (name, _structured(plain[name]) if name in table.structured else _writer(fields[name]["type"]))
            for name in table.columns
            if name in fields
        ]

    def rows(self, columns: Columns, partitions: Integers, offsets: Integers, hashes: bytes) -> bytearray:
        """All rows with header and trailer; raises UnusualError where a value needs the slow way."""
        contents = np.frombuffer(hashes, np.dtype((np.void, HASH_BYTES)))
        parts = [_fixed(partitions, ">i4"), _fixed(offsets, ">i8"), _fixed(contents, f"V{HASH_BYTES}")]
        parts += [write(columns, columns.fields[name]) for name, write in self._writers]
        widths: Integers = np.full(len(columns), ROW_BYTES, np.int64)
        for width, _ in parts:
            widths += width
        ends = np.cumsum(widths) + len(HEADER)
        out = bytearray(int(ends[-1]) + len(TRAILER))
        out[: len(HEADER)], out[-len(TRAILER) :] = HEADER, TRAILER
        target = np.frombuffer(out, np.uint8)
        places = ends - widths
        put(target, places, np.full(len(columns), self._columns, ">i2"))
        places = places + ROW_BYTES
        for width, write in parts:
            write(target, places)
            places = places + width
        return out


def _writer(avro: Any) -> Writer:
    """The writer of a plain field."""
    kind = next(each for each in avro if each != "null") if isinstance(avro, list) else avro
    logical = kind.get("logicalType") if isinstance(kind, dict) else None
    if logical == "uuid":
        return _uuid
    if logical == "timestamp-micros":
        return lambda _, column: _fixed(column.values - POSTGRES_EPOCH_MICROS, ">i8", column.present)
    name = kind["type"] if isinstance(kind, dict) else kind
    if name in _FIXED:
        return lambda _, column: _fixed(column.values, _FIXED[name], column.present)
    return _symbol if name == "enum" else _text


_FIXED = {"int": ">i4", "long": ">i8", "boolean": "u1", "double": ">f8"}


def _fixed(values: NDArray[Any], kind: str, present: Flags | None = None) -> Part:
    cells = np.empty(len(values), np.dtype([("size", ">i4"), ("value", kind)]))
    width = cells.dtype.itemsize
    cells["size"] = width - SIZE_BYTES
    cells["value"] = values
    if present is None:
        return width, lambda target, places: put(target, places, cells)

    def write(target: Bytes, places: Integers) -> None:
        rows = np.flatnonzero(present)
        put(target, places[rows], cells[rows])
        _null(target, places[~present])

    return np.where(present, width, SIZE_BYTES), write


def _null(target: Bytes, places: Integers) -> None:
    put(target, places, np.full(len(places), -1, ">i4"))


def _uuid(columns: Columns, column: Column) -> Part:
    """Canonical text as 16 bytes."""
    there = slice(None) if column.present is None else column.present
    values = np.zeros(len(column.values), np.dtype((np.void, 16)))
    values[there] = columns.uuids(column)
    return _fixed(values, "V16", column.present)


def _text(columns: Columns, column: Column) -> Part:
    if column.lengths is None:
        raise UnusualError
    return _pieces(columns.bytes, column.values, column.lengths, column.present)


def _pieces(source: Bytes, begins: Integers, lengths: Integers, present: Flags | None) -> Part:
    sizes = lengths if present is None else np.where(present, lengths, -1)
    lengths = lengths if present is None else np.where(present, lengths, 0)

    def write(target: Bytes, places: Integers) -> None:
        put(target, places, sizes.astype(">i4"))
        copy_bytes(source, begins, lengths, target, places + SIZE_BYTES)

    return lengths + SIZE_BYTES, write


def _symbol(_columns: Columns, column: Column) -> Part:
    names = [symbol.encode() for symbol in column.symbols]
    lengths = np.array([len(name) for name in names])
    begins = np.cumsum(lengths) - lengths
    source = np.frombuffer(b"".join(names), np.uint8)
    return _pieces(source, begins[column.values], lengths[column.values], column.present)


def _structured(field: Any) -> Writer:
    """Arrays and maps as jsonb, each different one made once."""
    decode = compile_decoder({"type": "record", "name": "one", "fields": [field]})
    known: dict[bytes, bytes] = {}
    name = field["name"]

    def text_of(body: bytes) -> bytes:
        text = known.get(body)
        if text is None:
            if len(known) >= TEXTS_MAX:
                known.clear()
            text = known[body] = JSONB + _JSON.encode(decode(body, 0)[0][name])
        return text

    def write(columns: Columns, column: Column) -> Part:
        texts = [text_of(body) for body in _bodies(columns, column)]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return _pieces(np.frombuffer(b"".join(texts), np.uint8), np.cumsum(lengths) - lengths, lengths, column.present)

    return write


def _bodies(columns: Columns, column: Column) -> Iterator[bytes]:
    if column.begins is None or column.sizes is None or column.present is not None:
        raise UnusualError
    buffer = columns.buffer
    for begin, size in zip(column.begins.tolist(), column.sizes.tolist(), strict=True):
        yield buffer[begin : begin + size]
