"""Verification of Merkle proofs, first of two independent implementations: inner path and border.

The shape of a proof follows from index and sizes alone, so a prover can't choose it. Shares no code with
`verify_rfc9162`, against which it is fuzzed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that `leaf` is the leaf hash at `index` of the tree of `size` with `root`."""
    if not 0 <= index < size or not _are_hashes([leaf, root, *proof]):
        return False
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(proof) != inner + border:
        return False
    return _border(_inner(leaf, proof[:inner], index), proof[inner:]) == root


def verify_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether the proof shows that the tree of `new_size` only appends to the tree of `old_size`; never from size 0."""
    if not 0 < old_size <= new_size or not _are_hashes([old_root, new_root, *proof]):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    shift = (old_size & -old_size).bit_length() - 1
    inner = ((old_size - 1) ^ (new_size - 1)).bit_length()
    border = ((old_size - 1) >> inner).bit_count()
    inner -= shift
    start = 0 if old_size == 1 << shift else 1
    if len(proof) != start + inner + border:
        return False
    seed, rest = (proof[0] if start else old_root), proof[start:]
    mask = (old_size - 1) >> shift
    old = _border(_inner_right(seed, rest[:inner], mask), rest[inner:])
    new = _border(_inner(seed, rest[:inner], mask), rest[inner:])
    return old == old_root and new == new_root


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _inner(seed: bytes, proof: Sequence[bytes], mask: int) -> bytes:
    for bit, sibling in enumerate(proof):
        seed = _node(sibling, seed) if mask >> bit & 1 else _node(seed, sibling)
    return seed


def _inner_right(seed: bytes, proof: Sequence[bytes], mask: int) -> bytes:
    for bit, sibling in enumerate(proof):
        if mask >> bit & 1:
            seed = _node(sibling, seed)
    return seed


def _border(seed: bytes, proof: Sequence[bytes]) -> bytes:
    for sibling in proof:
        seed = _node(sibling, seed)
    return seed
