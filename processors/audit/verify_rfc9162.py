"""Verification of Merkle proofs, second of two independent implementations: RFC 9162, sections 2.1.3.2 and 2.1.4.2.

Walks `fn` and `sn` as the RFC writes it. Shares no code with `verify_inner_border`, against which it is fuzzed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

DIGEST_BYTES = 32


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that `leaf` is the leaf hash at `index` of the tree of `size` with `root`."""
    if index < 0 or index >= size or any(len(value) != DIGEST_BYTES for value in (leaf, root, *proof)):
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = _hash_children(p, r)
            fn, sn = _skip_right_edges(fn, sn)
        else:
            r = _hash_children(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether the proof shows that the tree of `new_size` only appends to the tree of `old_size`; never from size 0."""
    if old_size < 1 or old_size > new_size or any(len(value) != DIGEST_BYTES for value in (old_root, new_root, *proof)):
        return False
    if old_size == new_size:
        return len(proof) == 0 and old_root == new_root
    if len(proof) == 0:
        return False
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    return _walk(old_size - 1, new_size - 1, path) == (old_root, new_root)


def _walk(fn: int, sn: int, path: list[bytes]) -> tuple[bytes, bytes] | None:
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            fr, sr = _hash_children(c, fr), _hash_children(c, sr)
            fn, sn = _skip_right_edges(fn, sn)
        else:
            sr = _hash_children(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr) if sn == 0 else None


def _skip_right_edges(fn: int, sn: int) -> tuple[int, int]:
    while not fn & 1 and fn != 0:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _hash_children(left: bytes, right: bytes) -> bytes:
    digest = hashlib.sha256(b"\x01")
    digest.update(left)
    digest.update(right)
    return digest.digest()
