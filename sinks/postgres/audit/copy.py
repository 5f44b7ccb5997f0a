"""Rows of `audit_entry` in Postgres' binary COPY format: what asyncpg would send, without an object per value.

A row is packed in a few pieces; see `sinks.postgres.copy` for the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

from processors.audit.entry import Sealed
from sinks.postgres.copy_frame import HEADER, TRAILER

COLUMNS = (
    "log",
    "seq",
    "tenant_id",
    "tseq",
    "chain",
    "leaf",
    "entry",
    "topic",
    "partition",
    "offset",
    "event_id",
    "request_id",
    "amount_nano",
)
#: Rows per piece that goes to the connection.
ROWS_AT_ONCE = 1_000
TEXTS_CACHED_MAX = 10_000
NULL = struct.pack(">i", -1)
_COUNT = struct.Struct(">h")
_SIZE = struct.Struct(">i")
_LONG = struct.Struct(">iq")
_UUID = struct.Struct(">i16s")
#: tseq, chain and leaf with their sizes, and the size of the entry that follows.
_HASHES = struct.Struct(">iqi32si32si")
#: partition and offset with their sizes.
_PLACE = struct.Struct(">iiiq")
LONG_BYTES, INT_BYTES, HASH_BYTES, UUID_BYTES = 8, 4, 32, 16


def copies(log: str, sealed: Sequence[Sealed]) -> Iterator[bytes]:
    """The whole stream of these rows, in pieces."""
    start = _COUNT.pack(len(COLUMNS)) + _text(log)
    yield HEADER
    for first in range(0, len(sealed), ROWS_AT_ONCE):
        yield b"".join([piece for one in sealed[first : first + ROWS_AT_ONCE] for piece in _row(start, one)])
    yield TRAILER


def _row(start: bytes, one: Sealed) -> tuple[bytes, ...]:
    seq, tseq, chain, leaf, entry, source = one
    event_id, request_id, amount = source.event_id, source.request_id.encode(), source.amount_nano
    return (
        start,
        _LONG.pack(LONG_BYTES, seq),
        _text(source.tenant_id),
        _HASHES.pack(LONG_BYTES, tseq, HASH_BYTES, chain, HASH_BYTES, leaf, len(entry)),
        entry,
        _text(source.topic),
        _PLACE.pack(INT_BYTES, source.partition, LONG_BYTES, source.offset),
        _UUID.pack(UUID_BYTES, bytes.fromhex(event_id.replace("-", ""))) if event_id else NULL,
        _SIZE.pack(len(request_id)) + request_id if request_id else NULL,
        NULL if amount is None else _LONG.pack(LONG_BYTES, amount),
    )


@lru_cache(maxsize=TEXTS_CACHED_MAX)
def _text(text: str) -> bytes:
    """A text that many rows have in common."""
    encoded = text.encode()
    return _SIZE.pack(len(encoded)) + encoded
