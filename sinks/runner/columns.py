"""Records screened side by side, for sinks that want columns: the same verdicts as one by one, at a tenth of the cost.

A record that passes keeps `fields` that are decoded only when somebody asks, and knows its place in its columns; a sink
that writes columns asks `selections` for them, whatever was taken out of the batch in between. Whatever is unusual goes
through `Screen.screen`, whose word is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np

from schemas.errors import SchemaUnknownError, UndecodableError
from schemas.topics import ATTEMPTS, BUDGETS, COSTS, DECISIONS, HEALTH, LEDGER, REQUESTS
from sinks.runner.rules import rules_hold
from sinks.runner.seam import Decoded, Poison
from streams.codec import Codec
from streams.columns import Column, Columns, Flags
from streams.log import LogRecord
from streams.pieces import Bytes, Integers, ranges

#: Fewer records of a topic are decoded faster one by one.
RECORDS_MIN = 48
#: Topics by how their keys follow from their fields (schemas.topics); a test compares. Others go one by one.
KEYED_BY_REQUEST = frozenset(topic.name for topic in (REQUESTS, DECISIONS, ATTEMPTS, COSTS))
KEYED_BY_TENANT = frozenset(topic.name for topic in (BUDGETS, LEDGER))
KEYED_BY_MODEL = frozenset((HEALTH.name,))
_offset_of = attrgetter("offset")


@dataclass(frozen=True, eq=False, slots=True)
class Chunk:
    """Records of one topic that were decoded together."""

    topic: str
    columns: Columns
    records: Sequence[LogRecord]
    decode: Callable[[str, bytes], dict[str, Any]]


class ChunkFields(Mapping[str, Any]):
    """The fields of one record of a chunk, decoded when first asked for."""

    __slots__ = ("_fields", "chunk", "row")

    def __init__(self, chunk: Chunk, row: int, fields: dict[str, Any] | None = None) -> None:
        """The record at this row; `fields` where it was decoded before."""
        self.chunk = chunk
        self.row = row
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        """One field."""
        return self.decoded()[name]

    def __iter__(self) -> Iterator[str]:
        """Their names."""
        return iter(self.decoded())

    def __len__(self) -> int:
        """How many."""
        return len(self.decoded())

    def decoded(self) -> dict[str, Any]:
        """All of them; raises UndecodableError for a record whose columns are not sound."""
        if self._fields is None:
            self._fields = self.chunk.decode(self.chunk.topic, self.chunk.records[self.row].value or b"")
        return self._fields


@dataclass(frozen=True)
class Selection:
    """Records of one topic with their columns, row by row."""

    columns: Columns
    records: Sequence[Decoded]


def screen_together(
    codec: Codec, records: Sequence[LogRecord], one_by_one: Callable[[LogRecord], Decoded | Poison]
) -> list[Decoded | Poison]:
    """Every record of one topic decoded or its poison, in order; raises as `one_by_one`, which is `Screen.screen`."""
    columns = _columns(codec, records) if len(records) >= RECORDS_MIN else None
    if columns is None:
        return [one_by_one(record) for record in records]
    topic = records[0].topic
    good = ~columns.doubtful & rules_hold(topic, columns) & _keys_match(topic, columns, records)
    chunk = Chunk(topic, columns, records, codec.decode)
    fields = map(ChunkFields, repeat(chunk), range(len(records)))
    found: list[Decoded | Poison] = list(map(Decoded, map(_offset_of, records), fields, records))
    for row in np.flatnonzero(~good).tolist():
        screened = one_by_one(records[row])
        if isinstance(screened, Decoded) and columns.sound[row]:
            screened = screened._replace(fields=ChunkFields(chunk, row, dict(screened.fields)))
        found[row] = screened
    return found


def selections(records: Sequence[Decoded]) -> tuple[list[Selection], list[Decoded]]:
    """Records of one topic as columns, and those that have none; the order within each chunk stays."""
    if records and type(records[0].fields) is ChunkFields:
        # Nearly always they are of one chunk, all of them.
        chunk = records[0].fields.chunk
        rows = [f.row for each in records if type(f := each.fields) is ChunkFields and f.chunk is chunk]
        if len(rows) == len(records):
            return [_selection(chunk, records, rows)], []
    by_chunk: dict[int, tuple[Chunk, list[Decoded]]] = {}
    plain: list[Decoded] = []
    for record in records:
        fields = record.fields
        if type(fields) is ChunkFields:
            by_chunk.setdefault(id(fields.chunk), (fields.chunk, []))[1].append(record)
        else:
            plain.append(record)
    return [
        _selection(chunk, of_chunk, [f.row for each in of_chunk if isinstance(f := each.fields, ChunkFields)])
        for chunk, of_chunk in by_chunk.values()
    ], plain


def _selection(chunk: Chunk, records: Sequence[Decoded], rows: list[int]) -> Selection:
    places = np.array(rows, np.int64)
    whole = len(places) == len(chunk.columns) and bool((places == np.arange(len(places))).all())
    return Selection(chunk.columns if whole else chunk.columns.take(places), records)


def _columns(codec: Codec, records: Sequence[LogRecord]) -> Columns | None:
    topic = records[0].topic
    if topic not in KEYED_BY_REQUEST | KEYED_BY_TENANT | KEYED_BY_MODEL:
        return None
    try:
        return codec.columns(topic, [record.value or b"" for record in records])
    except (UndecodableError, SchemaUnknownError):
        # The first one decides for all of them here; one by one, each has its own verdict.
        return None


def _keys_match(topic: str, columns: Columns, records: Sequence[LogRecord]) -> Flags:
    """Whether each record's key is the one its fields say."""
    keys = [record.key or b"" for record in records]
    given = np.frombuffer(b"".join([*keys, b"\0"]), np.uint8)
    sizes = np.fromiter(map(len, keys), np.int64, len(keys))
    begins, lengths, has_key = _expected(topic, columns)
    same: Flags = (sizes == lengths.sum(axis=1)) & has_key
    rows = np.flatnonzero(same)
    expected = _gathered(columns.bytes, begins[rows], lengths[rows])
    firsts = np.cumsum(sizes) - sizes
    found = given[ranges(firsts[rows], sizes[rows])]
    if not np.array_equal(expected, found):
        owners = np.repeat(rows, sizes[rows])
        same[owners[expected != found]] = False
    return same


def _expected(topic: str, columns: Columns) -> tuple[Integers, Integers, Flags]:
    """Pieces of the buffer that make each key: begins and lengths, a row per record; and whether it can have one."""
    slash = (np.full(len(columns), len(columns.bytes) - 1), np.ones(len(columns), np.int64))
    everyone = np.ones(len(columns), np.bool_)
    if topic in KEYED_BY_MODEL:
        names = [_text(columns.fields[name]) for name in ("provider_id", "model", "region")]
        return *_stacked([names[0], slash, names[1], slash, names[2]]), everyone
    tenant = _text(columns.fields["tenant_id"])
    if topic in KEYED_BY_TENANT:
        return *_stacked([tenant]), everyone
    run, request = _text(columns.fields["run_id"]), _text(columns.fields["request_id"])
    has_run = run[1] > 0
    last = (np.where(has_run, run[0], request[0]), np.where(has_run, run[1], request[1]))
    return *_stacked([tenant, slash, last]), last[1] > 0


def _stacked(pieces: Sequence[tuple[Integers, Integers]]) -> tuple[Integers, Integers]:
    return np.stack([begins for begins, _ in pieces], axis=1), np.stack([lengths for _, lengths in pieces], axis=1)


def _text(column: Column) -> tuple[Integers, Integers]:
    """Begins and lengths; null has no bytes."""
    lengths = column.lengths
    if lengths is None:
        raise TypeError(f"{column.kind} is no text")
    return column.values, lengths if column.present is None else np.where(column.present, lengths, 0)


def _gathered(source: Bytes, begins: Integers, lengths: Integers) -> Bytes:
    return source[ranges(begins.ravel(), lengths.ravel())]
