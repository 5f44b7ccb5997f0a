"""Texts of columns, as Python has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.columns import Column, Columns
from streams.pieces import Integers, copy_bytes

#: Few texts have a line feed.
SEPARATOR = ord("\n")


def texts_of(
    columns: Columns, name: str, among: Mapping[str, Column] | None = None, rows: NDArray[np.intp] | None = None
) -> list[str | None]:
    """One text, enum or uuid field as Python has it; of an array's items, or of some records, when these are given."""
    column = (columns.fields if among is None else among)[name]
    if rows is not None:
        column = column.take(rows)
    found: Sequence[str | None]
    if column.lengths is None:
        found = list(map(column.symbols.__getitem__, column.values.tolist()))
    else:
        lengths = column.lengths if column.present is None else np.where(column.present, column.lengths, 0)
        found = _texts(columns, column.values, lengths)
    if column.present is None:
        return list(found)
    return [text if there else None for text, there in zip(found, column.present.tolist(), strict=True)]


def pieces_of(columns: Columns, column: Column) -> list[bytes]:
    """The bytes of a text field that is never null."""
    if column.lengths is None:
        raise TypeError(f"{column.kind} is no text")
    found = _separated(columns, column.values, column.lengths).split(bytes([SEPARATOR]))
    return found if len(found) == len(columns) else _cut(columns, column.values, column.lengths)


def _texts(columns: Columns, begins: Integers, lengths: Integers) -> list[str]:
    found = _separated(columns, begins, lengths).decode().split(chr(SEPARATOR))
    return found if len(found) == len(begins) else [each.decode() for each in _cut(columns, begins, lengths)]


def _separated(columns: Columns, begins: Integers, lengths: Integers) -> bytes:
    """Pieces of the buffer with a separator between them: taking that apart costs half of cutting piece by piece."""
    ends = np.cumsum(lengths + 1)
    joined = np.full(int(ends[-1]) if len(ends) else 0, SEPARATOR, np.uint8)
    copy_bytes(columns.bytes, begins, lengths, joined, ends - lengths - 1)
    return joined[:-1].tobytes()


def _cut(columns: Columns, begins: Integers, lengths: Integers) -> list[bytes]:
    """The same piece by piece: where there are none, or one of them contains the separator."""
    return [columns.buffer[begin:end] for begin, end in zip(begins.tolist(), (begins + lengths).tolist(), strict=True)]
