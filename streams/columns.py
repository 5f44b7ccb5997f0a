"""Avro bodies decoded side by side: one numpy array per field instead of one dictionary per record.

A sink that catches up sees thousands of records of one schema at once. Decoding each into a dictionary costs about ten
microseconds, mostly for making objects that the store's client then takes apart again. Here every field is read for all
records at once: numbers become arrays, texts stay where they are and become pairs of begin and length. What is unusual
(bytes that are not what the schema says, numbers past 56 bits, blocks with sizes, texts beyond ASCII) is only marked:
the caller reads those records one by one with `streams.decoder`, whose word is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streams.pieces import Bytes, HighBytes, Integers, ranges, uuids

Flags: TypeAlias = NDArray[np.bool_]

#: Behind the last record, for reads that go too far; its last byte serves as the separator in keys.
PADDING = bytes(63) + b"/"
WORD_BYTES = 8
STOP_BITS = np.uint64(0x8080808080808080)
SEPTETS = np.uint64(0x7F7F7F7F7F7F7F7F)
ONE = np.uint64(1)
CONTINUES = 128
#: More items of one array or map than this are read record by record.
ITEMS_MAX = 64
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class Column:
    """One field of all records. Where `present` is False the other arrays hold anything."""

    #: The Avro type.
    kind: str
    #: Numbers; positions of symbols (enum), begins in the buffer (string and bytes), counts (array and map).
    values: NDArray[Any]
    #: Of string and bytes.
    lengths: Integers | None = None
    #: None when nothing is null.
    present: Flags | None = None
    symbols: tuple[str, ...] = ()
    #: The inner fields of an array of records, or `key` and `value` of a map: all items of all records, one after the
    #: other; of an array of something else, `item`.
    items: Mapping[str, Column] = field(default_factory=dict)
    #: Where the field begins in the buffer, and how many bytes it has; of array and map.
    begins: Integers | None = None
    sizes: Integers | None = None

    def take(self, rows: Integers) -> Column:
        """The column of these records, in this order."""
        items = self.items
        if items:
            firsts = np.cumsum(self.values) - self.values
            inner = ranges(firsts[rows], self.values[rows])
            items = {name: column.take(inner) for name, column in items.items()}
        return replace(
            self,
            values=self.values[rows],
            lengths=None if self.lengths is None else self.lengths[rows],
            present=None if self.present is None else self.present[rows],
            items=items,
            begins=None if self.begins is None else self.begins[rows],
            sizes=None if self.sizes is None else self.sizes[rows],
        )


@dataclass(frozen=True)
class Columns:
    """Records as columns."""

    #: The values one after the other, with PADDING behind.
    buffer: bytes
    bytes: Bytes
    #: Where each record's value begins, and how long it is.
    begins: Integers
    sizes: Integers
    fields: Mapping[str, Column]
    #: Records whose columns may be used.
    sound: Flags
    #: Sound ones with texts beyond ASCII, which nobody has looked at yet: decode them once before trusting them.
    doubtful: Flags
    #: Of columns of uuids that were asked for, by identity: rules and writers ask for the same ones.
    _uuids: dict[int, tuple[Column, NDArray[np.void]]] = field(default_factory=dict, repr=False, compare=False)

    def uuids(self, column: Column) -> NDArray[np.void]:
        """The bytes of the uuids in one of these columns, of every record that has one; raises UnusualError."""
        known = self._uuids.get(id(column))
        if known is None:
            begins, lengths = column.values, column.lengths
            if column.present is not None:
                begins, lengths = begins[column.present], None if lengths is None else lengths[column.present]
            # With the column, so that its identity stays its own.
            known = self._uuids[id(column)] = (column, uuids(self.bytes, begins, lengths))
        return known[1]

    def take(self, rows: Integers) -> Columns:
        """These records, in this order."""
        return replace(
            self,
            _uuids={},
            begins=self.begins[rows],
            sizes=self.sizes[rows],
            fields=_Taken(self.fields, rows),
            sound=self.sound[rows],
            doubtful=self.doubtful[rows],
        )

    def __len__(self) -> int:
        """How many records."""
        return len(self.begins)


class _Taken(Mapping[str, Column]):
    """Columns of some records, each taken when first asked for."""

    __slots__ = ("_of", "_rows", "_taken")

    def __init__(self, of: Mapping[str, Column], rows: Integers) -> None:
        self._of, self._rows = of, rows
        self._taken: dict[str, Column] = {}

    def __getitem__(self, name: str) -> Column:
        if name not in self._taken:
            self._taken[name] = self._of[name].take(self._rows)
        return self._taken[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


class _Cursor:
    """Where each record is being read, and what was found on the way."""

    __slots__ = ("at", "bad", "bytes", "high", "highs", "limit", "words")

    def __init__(self, data: Bytes, words: NDArray[np.uint64], highs: HighBytes, at: Integers) -> None:
        self.bytes, self.words, self.highs, self.at = data, words, highs, at
        self.limit = len(data) - len(PADDING) + 1
        self.bad: Flags = np.zeros(len(at), np.bool_)
        #: Bytes with their high bit set that are no text.
        self.high: Integers = np.zeros(len(at), np.int64)

    @contextmanager
    def only(self, rows: NDArray[np.intp]) -> Iterator[_Cursor]:
        """A cursor of these records, in order; when it has moved, so has this one."""
        if len(rows) == len(self.at):
            yield self
            return
        part = _Cursor(self.bytes, self.words, self.highs, self.at[rows])
        yield part
        if len(rows):
            self.at[rows] = part.at
            self.bad[rows] |= part.bad
            self.high[rows] += part.high

    def skip(self, lengths: Integers) -> None:
        self.at = np.minimum(self.at + lengths, self.limit)

    def byte(self) -> Bytes:
        found = self.bytes.take(self.at)
        self.at = np.minimum(self.at + 1, self.limit)
        return found

    def varint(self) -> Integers:
        """Unsigned numbers of up to eight bytes; longer ones are bad."""
        first = self.bytes.take(self.at)
        if not len(first) or int(first.max()) < CONTINUES:
            self.at = np.minimum(self.at + 1, self.limit)
            return first.astype(np.int64)
        word = self.words[self.at]
        stop = ~word & STOP_BITS
        self.bad |= stop == 0
        stop &= ~stop + ONE
        word &= ((stop << ONE) - ONE) & SEPTETS
        word = word & np.uint64(0x007F007F007F007F) | (word & np.uint64(0x7F007F007F007F00)) >> ONE
        word = word & np.uint64(0x00003FFF00003FFF) | (word & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2)
        word = word & np.uint64(0x0FFFFFFF) | (word & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4)
        more = (np.bitwise_count(stop - ONE) >> 3).astype(np.int64)
        self.high += more
        self.at = np.minimum(self.at + more + 1, self.limit)
        return word.astype(np.int64)

    def long(self) -> Integers:
        number = self.varint()
        return number >> 1 ^ -(number & 1)

    def size(self) -> Integers:
        """A length or count; negative ones are bad and become 0."""
        number = self.varint()
        odd = number & 1
        if odd.any():
            self.bad |= odd != 0
            number = np.where(odd, 0, number)
        return number >> 1


Read: TypeAlias = Callable[[_Cursor], Column]


class ColumnReader:
    """Reads values of one schema."""

    def __init__(self, schema: Any) -> None:
        """`schema` as `codec.parse_schema` gives it; raises TypeError for types the house does not use."""
        self._fields = [(each["name"], _reader(each["type"])) for each in schema["fields"]]

    def read(self, values: Sequence[bytes], prefix: bytes) -> Columns:
        """The columns of values that begin with this prefix (at most eight bytes); others are not sound."""
        buffer = b"".join([*values, PADDING])
        data = np.frombuffer(buffer, np.uint8)
        words: NDArray[np.uint64] = np.ndarray((len(data) - WORD_BYTES + 1,), "<u8", data, 0, (1,))
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        ends = np.cumsum(sizes)
        begins = ends - sizes
        highs = HighBytes(data)
        cursor = _Cursor(data, words, highs, begins + len(prefix))
        mask = np.uint64((1 << 8 * len(prefix)) - 1)
        cursor.bad = (words[begins] & mask != int.from_bytes(prefix, "little")) | (sizes < len(prefix))
        fields = {name: read(cursor) for name, read in self._fields}
        sound = ~cursor.bad & (cursor.at == ends)
        doubtful = np.zeros(len(values), np.bool_)
        in_frames = len(values) * sum(byte >= CONTINUES for byte in prefix)
        if not sound.all() or highs.count() != in_frames + int(cursor.high.sum()):
            doubtful = sound & (highs.between(begins + len(prefix), ends) != cursor.high)
        return Columns(buffer, data, begins, sizes, fields, sound, doubtful)


def _reader(avro: Any) -> Read:
    if isinstance(avro, list):
        return _optional(avro)
    kind = avro["type"] if isinstance(avro, dict) else avro
    if kind in _PLAIN:
        return _PLAIN[kind]
    match kind:
        case "enum":
            return _enum(tuple(avro["symbols"]))
        case "array":
            inner = avro["items"]
            if isinstance(inner, dict) and inner["type"] == "record":
                return _blocks("array", [(each["name"], _reader(each["type"])) for each in inner["fields"]])
            return _blocks("array", [("item", _reader(inner))])
        case "map":
            return _blocks("map", [("key", _reader("string")), ("value", _reader(avro["values"]))])
    raise TypeError(f"no columns of {avro!r}")


def _integer(kind: str) -> Read:
    def read(cursor: _Cursor) -> Column:
        values = cursor.long()
        if kind == "int":
            cursor.bad |= (values < INT_MIN) | (values > INT_MAX)
        return Column(kind, values)

    return read


def _sized(kind: str) -> Read:
    def read(cursor: _Cursor) -> Column:
        lengths = cursor.size()
        begins = cursor.at
        cursor.skip(lengths)
        if kind == "bytes" and len(begins):
            cursor.high += cursor.highs.between(begins, cursor.at)
        return Column(kind, begins, lengths)

    return read


def _enum(symbols: tuple[str, ...]) -> Read:
    def read(cursor: _Cursor) -> Column:
        values = cursor.size()
        cursor.bad |= values >= len(symbols)
        return Column("enum", np.minimum(values, len(symbols) - 1), symbols=symbols)

    return read


def _boolean(cursor: _Cursor) -> Column:
    values = cursor.byte()
    cursor.bad |= values > 1
    return Column("boolean", values)


def _double(cursor: _Cursor) -> Column:
    words = cursor.words[np.minimum(cursor.at, len(cursor.words) - 1)]
    cursor.high += np.bitwise_count(words & STOP_BITS)
    cursor.skip(np.full(len(cursor.at), WORD_BYTES, np.int64))
    return Column("double", words.view(np.float64))


_PLAIN: dict[str, Read] = {
    **{kind: _integer(kind) for kind in ("int", "long")},
    **{kind: _sized(kind) for kind in ("string", "bytes")},
    "boolean": _boolean,
    "double": _double,
}


def _optional(union: list[Any]) -> Read:
    (inner,) = [branch for branch in union if branch != "null"]
    null, there = 2 * union.index("null"), 2 * union.index(inner)
    read_inner = _reader(inner)

    def read(cursor: _Cursor) -> Column:
        branch = cursor.byte()
        present = branch == there
        if present.all():
            return read_inner(cursor)
        cursor.bad |= ~present & (branch != null)
        rows = np.flatnonzero(present)
        with cursor.only(rows) as part:
            column = read_inner(part)
        return _spread(column, rows, present)

    return read


def _spread(column: Column, rows: NDArray[np.intp], present: Flags) -> Column:
    """A column of some records as one of all records."""

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        full = np.zeros(len(present), values.dtype)
        full[rows] = values
        return full

    return replace(
        column,
        values=spread(column.values),
        lengths=None if column.lengths is None else spread(column.lengths),
        begins=None if column.begins is None else spread(column.begins),
        sizes=None if column.sizes is None else spread(column.sizes),
        present=present,
    )


def _blocks(kind: str, readers: Sequence[tuple[str, Read]]) -> Read:
    def read(cursor: _Cursor) -> Column:
        begins = cursor.at
        counts = cursor.size()
        cursor.bad |= counts > ITEMS_MAX
        counts = np.where(cursor.bad, 0, counts)
        found: dict[str, list[Column]] = {name: [] for name, _ in readers}
        owners: list[NDArray[np.intp]] = []
        for number in range(int(counts.max(initial=0))):
            rows = np.flatnonzero(counts > number)
            with cursor.only(rows) as part:
                for name, read_inner in readers:
                    found[name].append(read_inner(part))
            owners.append(rows)
        with cursor.only(np.flatnonzero(counts)) as part:
            part.bad |= part.byte() != 0
        order = np.argsort(np.concatenate(owners), kind="stable") if len(owners) > 1 else None
        items = {name: _joined(columns, order) for name, columns in found.items() if columns}
        return Column(kind, counts, items=items, begins=begins, sizes=cursor.at - begins)

    return read


def _joined(columns: Sequence[Column], order: NDArray[np.intp] | None) -> Column:
    if order is None:
        return columns[0]
    if columns[0].items or columns[0].begins is not None:
        raise TypeError("arrays within arrays have no columns")
    there = [np.ones(len(each.values), np.bool_) if each.present is None else each.present for each in columns]
    present = np.concatenate(there)[order]
    lengths = [each.lengths for each in columns if each.lengths is not None]
    return replace(
        columns[0],
        values=np.concatenate([each.values for each in columns])[order],
        lengths=np.concatenate(lengths)[order] if lengths else None,
        present=None if present.all() else present,
    )
