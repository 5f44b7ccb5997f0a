"""Texts of columns, as Python has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streams.columns import Column, Columns


def texts_of(
    columns: Columns, name: str, among: Mapping[str, Column] | None = None, rows: NDArray[np.intp] | None = None
) -> list[str | None]:
    """One text, enum or uuid field as Python has it; of an array's items, or of some records, when these are given."""
    column = (columns.fields if among is None else among)[name]
    if rows is not None:
        column = column.take(rows)
    found: Sequence[str | None]
    if column.lengths is None:
        found = [column.symbols[place] for place in column.values.tolist()]
    else:
        begins, ends = column.values.tolist(), (column.values + column.lengths).tolist()
        characters = columns.characters
        cut = [characters[begin:end] for begin, end in zip(begins, ends, strict=True)]
        if not "".join(cut).isascii():
            cut = [columns.buffer[begin:end].decode() for begin, end in zip(begins, ends, strict=True)]
        found = cut
    if column.present is None:
        return list(found)
    return [text if there else None for text, there in zip(found, column.present.tolist(), strict=True)]
