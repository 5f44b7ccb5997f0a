"""Which partition a key belongs to: murmur2 as the JVM clients, Faust and librdkafka's `murmur2_random` hash it."""

from __future__ import annotations

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF
WORD_BYTES = 4


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 hash of a key, unsigned."""
    value = SEED ^ len(key)
    whole = len(key) - len(key) % WORD_BYTES
    for start in range(0, whole, WORD_BYTES):
        word = int.from_bytes(key[start : start + WORD_BYTES], "little") * MULTIPLIER & MASK
        word = (word ^ word >> 24) * MULTIPLIER & MASK
        value = (value * MULTIPLIER & MASK) ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * MULTIPLIER & MASK
    value = (value ^ value >> 13) * MULTIPLIER & MASK
    return value ^ value >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions` of them."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
