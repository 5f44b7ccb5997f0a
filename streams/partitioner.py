"""Which partition a key belongs to: murmur2 as the JVM clients, Faust and librdkafka's `murmur2_random` hash it."""

from __future__ import annotations

import struct

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF
WORD_BYTES = 4


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 hash of a key, unsigned."""
    value = SEED ^ len(key)
    words = len(key) // WORD_BYTES
    for word in struct.unpack_from(f"<{words}I", key):
        mixed = word * MULTIPLIER & MASK
        value = value * MULTIPLIER & MASK ^ (mixed ^ mixed >> 24) * MULTIPLIER & MASK
    if rest := key[words * WORD_BYTES :]:
        value = (value ^ int.from_bytes(rest, "little")) * MULTIPLIER & MASK
    value = (value ^ value >> 13) * MULTIPLIER & MASK
    return value ^ value >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions` of them."""
    return positive_hash(key) % partitions


def positive_hash(key: bytes) -> int:
    """What of a key's hash decides its partition."""
    return murmur2(key) & 0x7FFFFFFF
