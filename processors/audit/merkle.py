"""RFC 6962 Merkle trees over SHA-256: hashes, the compact range that grows a tree, and the proofs about it.

Positions: `(level, index)` names the complete subtree over leaves [index * 2**level, (index + 1) * 2**level). A
function that fetches its hash is all a proof needs, wherever the hashes are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
LEAF_PREFIX = b"\x00"
NODE_PREFIX = b"\x01"
#: Root of the tree without leaves.
EMPTY_ROOT = sha256(b"").digest()

#: Fetches the hash of a complete subtree by (level, index); raises KeyError or what its store raises.
NodeReader = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """The leaf hash of an entry."""
    return sha256(LEAF_PREFIX + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(NODE_PREFIX + left + right).digest()


def perfect_subtrees(first: int, end: int) -> list[tuple[int, int]]:
    """The maximal complete subtrees (level, index) that cover the leaves [first, end), left to right."""
    found: list[tuple[int, int]] = []
    while first < end:
        aligned = (first & -first).bit_length() - 1 if first else 63
        level = min(aligned, (end - first).bit_length() - 1)
        found.append((level, first >> level))
        first += 1 << level
    return found


def fold_root(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees given left to right, largest first; the empty root for none."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def root_at(size: int, node: NodeReader) -> bytes:
    """The root of the first `size` leaves."""
    return fold_root([node(level, index) for level, index in perfect_subtrees(0, size)])


class CompactRange:
    """The right edge of a growing tree: one hash per 1-bit of its size."""

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Resume at a size with its subtree roots, left to right; raises ValueError when their count does not fit."""
        self._hashes = list(hashes)
        if size < 0 or len(self._hashes) != size.bit_count():
            raise ValueError(f"a range of size {size} has {size.bit_count()} hashes, not {len(self._hashes)}")
        self.size = size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, left to right."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add the next leaf hash."""
        hashes, size = self._hashes, self.size
        while size & 1:
            leaf = sha256(NODE_PREFIX + hashes.pop() + leaf).digest()
            size >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of everything appended."""
        return fold_root(self._hashes)


class SparseTree:
    """The root of a tree of which some leaves are given, and the complete subtrees that lie between them.

    Where they lie follows from the leaves' positions alone (`perfect_subtrees` of each gap), left to right. Memory is
    one hash per bit of the size.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.size = 0
        self._hashes: list[bytes] = []

    def add(self, level: int, node: bytes) -> None:
        """Append a complete subtree over 2**level leaves; raises ValueError where none can begin."""
        if self.size % (1 << level):
            raise ValueError(f"no subtree of level {level} begins at {self.size}")
        bits = self.size >> level
        while bits & 1:
            node = node_hash(self._hashes.pop(), node)
            bits >>= 1
        self._hashes.append(node)
        self.size += 1 << level

    def root(self) -> bytes:
        """The root over everything appended."""
        return fold_root(self._hashes)


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """PATH(index, D[size]), leaf sibling first; raises ValueError when the index is not in the tree."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    return _path(index, 0, size, node)


def _path(index: int, first: int, end: int, node: NodeReader) -> list[bytes]:
    found: list[bytes] = []
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            found.append(_range_root(middle, end, node))
            end = middle
        else:
            found.append(_range_root(first, middle, node))
            first = middle
    return found[::-1]


def consistency_proof(old_size: int, new_size: int, node: NodeReader) -> list[bytes]:
    """PROOF(old_size, D[new_size]); empty for equal sizes; raises ValueError from size 0 or backwards."""
    if not 0 < old_size <= new_size:
        raise ValueError(f"no proof leads from size {old_size} to {new_size}")
    found: list[bytes] = []
    first, end, whole = 0, new_size, True
    while old_size != end:
        middle = first + _split(end - first)
        if old_size <= middle:
            found.append(_range_root(middle, end, node))
            end = middle
        else:
            found.append(_range_root(first, middle, node))
            first, whole = middle, False
    if not whole:
        found.append(_range_root(first, end, node))
    return found[::-1]


def _split(size: int) -> int:
    """The largest power of two strictly below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_root(first: int, end: int, node: NodeReader) -> bytes:
    return fold_root([node(level, index) for level, index in perfect_subtrees(first, end)])
