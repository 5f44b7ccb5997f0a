"""A naive Merkle tree, straight from RFC 6962, and audit logs to try things on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

from processors.audit.merkle import NodeReader


def entries_of(count: int) -> list[bytes]:
    """Distinct entries of uneven lengths."""
    return [b"entry %d" % number + b"." * (number % 7) for number in range(count)]


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH(D[n]) as the RFC writes it."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\1" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) as the RFC writes it."""
    if len(entries) == 1:
        return []
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if index < k:
        return [*naive_path(index, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(index - k, entries[k:]), naive_root(entries[:k])]


def naive_consistency(old_size: int, entries: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b) as the RFC writes it."""
    if old_size == len(entries):
        return [] if whole else [naive_root(entries)]
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if old_size <= k:
        return [*naive_consistency(old_size, entries[:k], whole=whole), naive_root(entries[k:])]
    return [*naive_consistency(old_size - k, entries[k:], whole=False), naive_root(entries[:k])]


def nodes_of(entries: Sequence[bytes]) -> NodeReader:
    """Reads complete subtrees of these entries."""

    @cache
    def node(level: int, index: int) -> bytes:
        return naive_root(entries[index << level : (index + 1) << level])

    return node
