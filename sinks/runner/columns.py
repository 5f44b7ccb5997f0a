"""Records screened side by side, for sinks that want columns: the same verdicts as one by one, at a tenth of the cost.

Records that pass are rows of a chunk: one is made, and its fields are decoded, only when somebody asks. A sink that
writes columns asks `selections` for them, whatever was taken out of the batch in between. Whatever is unusual goes
through `Screen.screen`, whose word is final.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from schemas.errors import SchemaUnknownError, UndecodableError
from schemas.topics import ATTEMPTS, BUDGETS, COSTS, DECISIONS, HEALTH, LEDGER, REQUESTS
from sinks.runner.rules import rules_hold
from sinks.runner.seam import Decoded, Poison, Records
from streams.codec import HEADER, Codec
from streams.columns import Column, Columns, Flags
from streams.log import LogRecord, Partition
from streams.pieces import Integers, copy_bytes
from streams.runs import Run

T = TypeVar("T")

#: Fewer records of a topic are decoded faster one by one.
RECORDS_MIN = 48
#: Topics by how their keys follow from their fields (schemas.topics); a test compares. Others go one by one.
KEYED_BY_REQUEST = frozenset(topic.name for topic in (REQUESTS, DECISIONS, ATTEMPTS, COSTS))
KEYED_BY_TENANT = frozenset(topic.name for topic in (BUDGETS, LEDGER))
KEYED_BY_MODEL = frozenset((HEALTH.name,))


@dataclass(frozen=True, eq=False, slots=True)
class Chunk:
    """Records of one topic that were decoded together, a row each."""

    topic: str
    columns: Columns
    runs: Sequence[Run]
    #: The first row of each run.
    firsts: Sequence[int]
    #: Of each row.
    offsets: Integers
    partitions: Integers
    decode: Callable[[str, bytes], dict[str, Any]]

    def value(self, row: int) -> bytes:
        """The record's value; empty for one without."""
        return self._at(row, lambda run, place: run.values[place] or b"")

    def keys(self) -> list[bytes]:
        """Every record's key; empty for one without."""
        return [key or b"" for run in self.runs for key in run.keys]

    def record(self, row: int) -> LogRecord:
        """The record itself."""
        return self._at(row, lambda run, place: run[place])

    def decoded(self, row: int) -> Decoded:
        """The record as sinks see it."""
        return Decoded(int(self.offsets[row]), ChunkFields(self, row), self.record(row))

    def _at(self, row: int, found: Callable[[Run, int], T]) -> T:
        run = bisect_right(self.firsts, row) - 1
        return found(self.runs[run], row - self.firsts[run])


class ChunkFields(Mapping[str, Any]):
    """The fields of one record of a chunk, decoded when first asked for."""

    __slots__ = ("_fields", "chunk", "row")

    def __init__(self, chunk: Chunk, row: int) -> None:
        """The record at this row."""
        self.chunk = chunk
        self.row = row
        self._fields: dict[str, Any] | None = None

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
            self._fields = self.chunk.decode(self.chunk.topic, self.chunk.value(self.row))
        return self._fields


class Rows(Records):
    """Rows of a chunk as records, each made when it is asked for and not kept."""

    __slots__ = ("chunk", "rows")

    def __init__(self, chunk: Chunk, rows: Integers) -> None:
        """In the order of their offsets, as far as they are of one partition."""
        self.chunk = chunk
        self.rows = rows

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Decoded: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Decoded | Rows:
        """One record, or some."""
        if isinstance(place, slice):
            return Rows(self.chunk, self.rows[place])
        return self.chunk.decoded(int(self.rows[place]))

    def between(self, first_offset: int, next_offset: int) -> Rows:
        """As the seam says."""
        offsets = self.chunk.offsets[self.rows]
        inside = (offsets >= first_offset) & (offsets < next_offset)
        return self if inside.all() else Rows(self.chunk, self.rows[inside])

    def without(self, offsets: Collection[int]) -> Rows:
        """All but those at these offsets."""
        if not offsets:
            return self
        return Rows(self.chunk, self.rows[~np.isin(self.chunk.offsets[self.rows], list(offsets))])


@dataclass(frozen=True)
class Selection:
    """Records of one topic with their columns, row by row."""

    columns: Columns
    records: Sequence[Decoded]
    #: Where they stand in the log.
    partitions: Integers
    offsets: Integers

    def bodies(self) -> Iterator[bytes]:
        """The Avro body of each, without its frame."""
        buffer, columns = self.columns.buffer, self.columns
        begins, ends = columns.begins + HEADER.size, columns.begins + columns.sizes
        return (buffer[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True))

    def keys(self) -> list[bytes]:
        """The key of each; empty where a record has none."""
        if isinstance(self.records, Rows):
            keys = self.records.chunk.keys()
            return [keys[row] for row in self.records.rows.tolist()]
        return [each.record.key or b"" for each in self.records]


class Screened(NamedTuple):
    """What became of a partition's records, each half in the order of offsets."""

    records: Sequence[Decoded]
    poison: list[Poison]

    def with_more(self, verdicts: Iterable[Decoded | Poison]) -> Screened:
        """These, and later ones."""
        records, poison = list(self.records), list(self.poison)
        for each in verdicts:
            if isinstance(each, Decoded):
                records.append(each)
            else:
                poison.append(each)
        return Screened(records, poison)


def screen_together(
    codec: Codec, runs: Sequence[Run], one_by_one: Callable[[LogRecord], Decoded | Poison], *, by_rules: bool = True
) -> list[Decoded | Poison]:
    """Every record of one topic decoded or its poison, in order; raises as `one_by_one`, which is `Screen.screen`.

    Without `by_rules`, whatever can be read passes.
    """
    chunk = _chunk(codec, runs)
    if chunk is None:
        return [one_by_one(record) for run in runs for record in run]
    special = _special(chunk, one_by_one, by_rules=by_rules)
    return [special.get(row) or chunk.decoded(row) for row in range(len(chunk.columns))]


def screen_runs(
    codec: Codec, runs: Sequence[Run], one_by_one: Callable[[LogRecord], Decoded | Poison], *, by_rules: bool = True
) -> dict[Partition, Screened]:
    """`screen_together` by partition: runs are of one topic, in the order of their partitions."""
    found: dict[Partition, Screened] = {}
    chunk = _chunk(codec, runs)
    if chunk is None:
        for run in runs:
            at = Partition(run.topic, run.partition)
            found[at] = found.get(at, Screened([], [])).with_more(map(one_by_one, run))
        return found
    special = _special(chunk, one_by_one, by_rules=by_rules)
    for number in np.unique(chunk.partitions).tolist():
        rows = np.flatnonzero(chunk.partitions == number)
        screened = Screened(Rows(chunk, rows), [])
        if special:
            screened = _parted(chunk, rows, special)
        found[Partition(chunk.topic, number)] = screened
    return found


def _parted(chunk: Chunk, rows: Integers, special: Mapping[int, Decoded | Poison]) -> Screened:
    """Rows of one partition, some of which do not go with their columns."""
    poison = [each for row in rows.tolist() if isinstance(each := special.get(row), Poison)]
    kept = np.array([row for row in rows.tolist() if not isinstance(special.get(row), Poison)], np.int64)
    if special.keys().isdisjoint(kept.tolist()):
        return Screened(Rows(chunk, kept), poison)
    records = (special.get(row) or chunk.decoded(row) for row in kept.tolist())
    return Screened([each for each in records if isinstance(each, Decoded)], poison)


def _chunk(codec: Codec, runs: Sequence[Run]) -> Chunk | None:
    """Records of one topic as columns; None when they are too few, or their columns can't be had."""
    counts = np.array([len(run) for run in runs], np.int64)
    columns = _columns(codec, runs) if counts.sum() >= RECORDS_MIN else None
    if columns is None:
        return None
    return Chunk(
        runs[0].topic,
        columns,
        runs,
        (np.cumsum(counts) - counts).tolist(),
        np.fromiter(chain.from_iterable(run.offsets for run in runs), np.int64, int(counts.sum())),
        np.repeat(np.array([run.partition for run in runs], np.int64), counts),
        codec.decode,
    )


def _special(
    chunk: Chunk, one_by_one: Callable[[LogRecord], Decoded | Poison], *, by_rules: bool
) -> dict[int, Decoded | Poison]:
    """By row: poison, and records that can be applied though their columns can't be used."""
    columns = chunk.columns
    good = columns.sound & ~columns.doubtful
    if by_rules:
        good = rules_hold(chunk.topic, columns) & _keys_match(chunk)
    special: dict[int, Decoded | Poison] = {}
    for row in np.flatnonzero(~good).tolist():
        screened = one_by_one(chunk.record(row))
        if isinstance(screened, Poison) or not columns.sound[row]:
            special[row] = screened
    return special


def joined(parts: Sequence[Sequence[Decoded]]) -> Sequence[Decoded]:
    """All records of these, one part after the other."""
    first = parts[0] if parts else []
    if len(parts) == 1:
        return first
    if isinstance(first, Rows):
        chunk = first.chunk
        rows = [part.rows for part in parts if isinstance(part, Rows) and part.chunk is chunk]
        if len(rows) == len(parts):
            return Rows(chunk, np.concatenate(rows))
    return [record for part in parts for record in part]


def selections(records: Sequence[Decoded]) -> tuple[list[Selection], list[Decoded]]:
    """Records of one topic as columns, and those that have none; the order within each chunk stays."""
    if isinstance(records, Rows):
        return [_selection(records.chunk, records, records.rows)] if len(records) else [], []
    by_chunk: dict[int, tuple[Chunk, list[Decoded], list[int]]] = {}
    plain: list[Decoded] = []
    for record in records:
        fields = record.fields
        if isinstance(fields, ChunkFields):
            _, of_chunk, rows = by_chunk.setdefault(id(fields.chunk), (fields.chunk, [], []))
            of_chunk.append(record)
            rows.append(fields.row)
        else:
            plain.append(record)
    chosen = [_selection(chunk, of_chunk, np.array(rows, np.int64)) for chunk, of_chunk, rows in by_chunk.values()]
    return chosen, plain


def _selection(chunk: Chunk, records: Sequence[Decoded], rows: Integers) -> Selection:
    if len(rows) == len(chunk.columns) and bool((rows == np.arange(len(rows))).all()):
        return Selection(chunk.columns, records, chunk.partitions, chunk.offsets)
    return Selection(chunk.columns.take(rows), records, chunk.partitions[rows], chunk.offsets[rows])


def _columns(codec: Codec, runs: Sequence[Run]) -> Columns | None:
    topic = runs[0].topic
    if topic not in KEYED_BY_REQUEST | KEYED_BY_TENANT | KEYED_BY_MODEL:
        return None
    try:
        return codec.columns(topic, [value or b"" for run in runs for value in run.values])
    except (UndecodableError, SchemaUnknownError):
        # The first one decides for all of them here; one by one, each has its own verdict.
        return None


def _keys_match(chunk: Chunk) -> Flags:
    """Whether each record's key is the one its fields say."""
    columns = chunk.columns
    keys = chunk.keys()
    given = np.frombuffer(b"".join(keys), np.uint8)
    sizes = np.fromiter(map(len, keys), np.int64, len(keys))
    pieces, has_key = _expected(chunk.topic, columns)
    same: Flags = (sizes == sum(lengths for _, lengths in pieces)) & has_key
    rows, firsts = np.flatnonzero(same), np.cumsum(sizes) - sizes
    expected = np.zeros(len(given), np.uint8)
    places = firsts[rows]
    for begins, lengths in pieces:
        copy_bytes(columns.bytes, begins[rows], lengths[rows], expected, places)
        places = places + lengths[rows]
    if not np.array_equal(expected, given):
        owners = np.repeat(np.arange(len(keys)), sizes)
        same[owners[expected != given]] = False
    return same


def _expected(topic: str, columns: Columns) -> tuple[list[tuple[Integers, Integers]], Flags]:
    """Pieces of the buffer that make each key, as begins and lengths; and whether a record can have a key."""
    slash = (np.full(len(columns), len(columns.bytes) - 1), np.ones(len(columns), np.int64))
    everyone = np.ones(len(columns), np.bool_)
    if topic in KEYED_BY_MODEL:
        names = [_text(columns.fields[name]) for name in ("provider_id", "model", "region")]
        return [names[0], slash, names[1], slash, names[2]], everyone
    tenant = _text(columns.fields["tenant_id"])
    if topic in KEYED_BY_TENANT:
        return [tenant], everyone
    run, request = _text(columns.fields["run_id"]), _text(columns.fields["request_id"])
    has_run = run[1] > 0
    last = (np.where(has_run, run[0], request[0]), np.where(has_run, run[1], request[1]))
    return [tenant, slash, last], last[1] > 0


def _text(column: Column) -> tuple[Integers, Integers]:
    """Begins and lengths; null has no bytes."""
    lengths = column.lengths
    if lengths is None:
        raise TypeError(f"{column.kind} is no text")
    return column.values, lengths if column.present is None else np.where(column.present, lengths, 0)
