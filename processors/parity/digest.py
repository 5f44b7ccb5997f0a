"""Order-free digests of rows: count, sum and exclusive or of a keyed 128-bit hash over each row's values.

Two sides that hold the same rows have the same digest in whatever order they are read; a lost, doubled or changed row
changes it. The key is made anew for every comparison, so that nobody can prepare rows whose hashes cancel out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

HASH_BYTES = 16
KEY_BYTES = 32
_MODULUS_MASK = (1 << 8 * HASH_BYTES) - 1


@dataclass(slots=True)
class RangeDigest:
    """The digest of some rows."""

    count: int = 0
    #: Modulo 2**128.
    total: int = 0
    xor: int = 0

    def add(self, number: int) -> None:
        """Take one row's hash in."""
        self.count += 1
        self.total = (self.total + number) & _MODULUS_MASK
        self.xor ^= number

    def join(self, other: RangeDigest) -> None:
        """Take all rows of another digest in."""
        self.count += other.count
        self.total = (self.total + other.total) & _MODULUS_MASK
        self.xor ^= other.xor

    def words(self) -> str:
        """For people and scripts: equal exactly when the digests are, for all practical purposes."""
        return f"{self.count} rows, sum {self.total:032x}, xor {self.xor:032x}"


class RowHasher:
    """Hashes rows under one key. A row is a sequence of None, bool, int, float, str, bytes and lists of them."""

    def __init__(self, key: bytes) -> None:
        """`key` is KEY_BYTES of randomness, made for one comparison."""
        self._empty = blake2b(digest_size=HASH_BYTES, key=key)
        self._encode = msgspec.msgpack.Encoder().encode

    def hash(self, values: Sequence[Any]) -> int:
        """The row's 128-bit hash, over its MessagePack, which is one sequence of bytes for one sequence of values."""
        state = self._empty.copy()
        state.update(self._encode(values))
        return int.from_bytes(state.digest(), "big")
