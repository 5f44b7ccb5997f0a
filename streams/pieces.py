"""Pieces of bytes, many at once: where they begin and how long they are, copied between buffers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

#: Texts are copied by length while there are so few lengths, none above.
LENGTHS_AT_ONCE_MAX = 24
LENGTHS_MAX = 512
UUID_CHARACTERS = 36
DASHES = (8, 13, 18, 23)
#: A hexadecimal digit is 0x30 to 0x39 or 0x61 to 0x66.
ZERO, NINE, LETTERS_AFTER_DIGITS = np.uint8(0x30), np.uint8(9), np.uint8(0x61 - 0x30 - 10)


class UnusualError(Exception):
    """A value that only the slow way can judge."""


def ranges(firsts: Integers, counts: Integers) -> Integers:
    """first, first + 1, … of each, one after the other."""
    ends = np.cumsum(counts)
    steps = np.arange(int(ends[-1]) if len(ends) else 0)
    steps += np.repeat(firsts - (ends - counts), counts)
    return steps


def copy_bytes(source: Bytes, begins: Integers, lengths: Integers, target: Bytes, places: Integers) -> None:
    """Copy pieces of `source` to places in `target`; pieces of one length go together, as most texts of a column do."""
    if not len(lengths):
        return
    found = np.flatnonzero(np.bincount(np.minimum(lengths, LENGTHS_MAX)))
    if len(found) > LENGTHS_AT_ONCE_MAX or int(found[-1]) == LENGTHS_MAX:
        target[ranges(places, lengths)] = source[ranges(begins, lengths)]
        return
    for length in found.tolist():
        if length and len(found) == 1:
            put(target, places, get(source, begins, length))
        elif length:
            rows = np.flatnonzero(lengths == length)
            put(target, places[rows], get(source, begins[rows], length))


def get(source: Bytes, begins: Integers, length: int) -> NDArray[np.void]:
    """Pieces of one length."""
    kind = np.dtype((np.void, length))
    every: NDArray[np.void] = np.ndarray((len(source) - length + 1,), kind, source, 0, (1,))
    return every[begins]


def put(target: Bytes, places: Integers, pieces: NDArray[Any]) -> None:
    """Write pieces of one length to places in `target`."""
    size = pieces.dtype.itemsize
    if size:
        kind = np.dtype((np.void, size))
        every: NDArray[np.void] = np.ndarray((len(target) - size + 1,), kind, target, 0, (1,))
        every[places] = pieces.view(kind)


def uuids(source: Bytes, begins: Integers, lengths: Integers | None) -> NDArray[np.void]:
    """The bytes of uuids in canonical text; raises UnusualError when one is not."""
    if lengths is None or (lengths != UUID_CHARACTERS).any():
        raise UnusualError
    texts = get(source, begins, UUID_CHARACTERS).view(np.uint8).reshape(-1, UUID_CHARACTERS)
    bounds = (-1, *DASHES, UUID_CHARACTERS)
    digits = np.concatenate([texts[:, a + 1 : b] for a, b in pairwise(bounds)], axis=1)
    letters = digits >> 6
    nibbles = (digits & 15) + letters * NINE
    if (nibbles > 15).any() or (nibbles + ZERO + letters * LETTERS_AFTER_DIGITS != digits).any():  # noqa: PLR2004
        raise UnusualError
    if (texts[:, DASHES] != ord("-")).any():
        raise UnusualError
    joined = nibbles[:, 0::2] << 4 | nibbles[:, 1::2]
    return np.ascontiguousarray(joined).view(np.dtype((np.void, 16))).ravel()
