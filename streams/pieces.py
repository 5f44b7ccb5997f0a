"""Pieces of bytes, many at once: where they begin and how long they are, copied between buffers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

#: Texts are copied by length while there are so few lengths, none above.
LENGTHS_AT_ONCE_MAX = 24
LENGTHS_MAX = 512
UUID_CHARACTERS = 36
UUID_TEXT = np.dtype("V8, u1, V4, u1, V4, u1, V4, u1, V12")
UUID_DIGITS = np.dtype("V8, V4, V4, V4, V12")
BYTE_MAX = 255
HIGH_BIT = 128


class UnusualError(Exception):
    """A value that only the slow way can judge."""


class HighBytes:
    """Which bytes have their high bit set; where they are is looked for once somebody asks."""

    __slots__ = ("_bytes", "_places")

    def __init__(self, data: Bytes) -> None:
        """Of these bytes."""
        self._bytes = data
        self._places: NDArray[np.intp] | None = None

    def count(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self._bytes >= HIGH_BIT))

    def between(self, begins: Integers, ends: Integers) -> NDArray[np.intp]:
        """How many there are from each begin to its end."""
        if self._places is None:
            self._places = np.flatnonzero(self._bytes >= HIGH_BIT)
        found: NDArray[np.intp] = np.searchsorted(self._places, ends) - np.searchsorted(self._places, begins)
        return found


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
    texts = get(source, begins, UUID_CHARACTERS).view(UUID_TEXT)
    digits = np.empty(len(begins), UUID_DIGITS)
    for name, of_text in zip(("f0", "f1", "f2", "f3", "f4"), ("f0", "f2", "f4", "f6", "f8"), strict=True):
        digits[name] = texts[of_text]
    found = _BYTE_OF_DIGITS.take(digits.view("<u2"))
    dashed = all((texts[name] == ord("-")).all() for name in ("f1", "f3", "f5", "f7"))
    if not dashed or int(found.max(initial=0)) > BYTE_MAX:
        raise UnusualError
    return found.astype(np.uint8).view(np.dtype((np.void, 16)))


def _bytes_of_digits() -> NDArray[np.uint16]:
    """By two characters as a little-endian number: the byte they write in lower-case hexadecimal, or more than one."""
    found = np.full(1 << 16, BYTE_MAX + 1, np.uint16)
    pairs = np.frombuffer(bytes(range(BYTE_MAX + 1)).hex().encode(), "<u2")
    found[pairs] = np.arange(BYTE_MAX + 1)
    return found


_BYTE_OF_DIGITS = _bytes_of_digits()
