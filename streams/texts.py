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
        found = _cut(columns, column.values, lengths)
    if column.present is None:
        return list(found)
    return [text if there else None for text, there in zip(found, column.present.tolist(), strict=True)]


def _cut(columns: Columns, begins: Integers, lengths: Integers) -> list[str]:
    """Pieces of the buffer as texts: decoded together with a separator behind each, as long as none contains that."""
    if not len(lengths):
        return []
    ends = np.cumsum(lengths + 1)
    joined = np.full(int(ends[-1]), SEPARATOR, np.uint8)
    copy_bytes(columns.bytes, begins, lengths, joined, ends - lengths - 1)
    found = joined[:-1].tobytes().decode().split(chr(SEPARATOR))
    if len(found) == len(lengths):
        return found
    pieces = zip(begins.tolist(), (begins + lengths).tolist(), strict=True)
    return [columns.buffer[begin:end].decode() for begin, end in pieces]
