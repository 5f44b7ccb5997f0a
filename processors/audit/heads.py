"""The heads' tree (RFC 6962) over where every tenant's chain stands: nobody's newest entry can be withheld unseen.

A row is `uint16 length || tenant || uint64 tseq || chain` (docs/reference/audit-format.md); rows stand in the order of
the tenants' UTF-8 bytes. The tree is kept between two roots: only what changed is hashed again.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from processors.audit.entry import Head
from processors.audit.merkle import EMPTY_ROOT, leaf_hash, node_hash

HEADS_TAG = b"quaestor/audit/heads/v1\0"
_LENGTH = struct.Struct(">H")
_NUMBER = struct.Struct(">Q")


class HeadsProof(NamedTuple):
    """That a tenant's chain stands where it says, under a heads entry's commitment."""

    #: The tenant's row in the order of all, and how many there are.
    position: int
    tenants: int
    #: Inclusion proof of the row, leaf sibling first.
    path: list[bytes]
    root: bytes


def heads_row(tenant_id: str, head: Head) -> bytes:
    """The bytes of one tenant's row."""
    name = tenant_id.encode("utf-8")
    return _LENGTH.pack(len(name)) + name + _NUMBER.pack(head.tseq) + head.chain


def heads_commitment(count: int, root: bytes) -> bytes:
    """What a heads entry commits to: the number of tenants and the root over their rows."""
    return sha256(HEADS_TAG + _NUMBER.pack(count) + root).digest()


class HeadsTree:
    """All rows and every node above them. About 300 bytes per tenant."""

    def __init__(self) -> None:
        """No tenant."""
        self._names: list[bytes] = []
        #: Level 0 holds the leaf hashes; a node without a right sibling is carried up as it is: the RFC's split.
        self._levels: list[list[bytes]] = [[]]

    def __len__(self) -> int:
        """How many tenants."""
        return len(self._names)

    def move(self, heads: Mapping[str, Head]) -> None:
        """Take the present heads of these tenants; a new one shifts those behind it, which are hashed again."""
        leaves, changed, shifted = self._levels[0], set[int](), len(self._names)
        for name, tenant_id in sorted((tenant_id.encode("utf-8"), tenant_id) for tenant_id in heads):
            leaf = leaf_hash(heads_row(tenant_id, heads[tenant_id]))
            index = bisect_left(self._names, name)
            if index < len(self._names) and self._names[index] == name:
                leaves[index] = leaf
                changed.add(index)
            else:
                self._names.insert(index, name)
                leaves.insert(index, leaf)
                # In order of names: what is inserted later stands behind it.
                shifted = min(shifted, index)
        self._hash_again({index for index in changed if index < shifted}, shifted)

    def _hash_again(self, changed: set[int], shifted: int) -> None:
        """Make the nodes above some leaves, and above all from one on."""
        level = 0
        while len(below := self._levels[level]) > 1:
            if len(self._levels) == level + 1:
                self._levels.append([])
            above = self._levels[level + 1]
            shifted //= 2
            changed = {index // 2 for index in changed if index // 2 < shifted}
            for index in changed:
                above[index] = _node(below, index)
            above[shifted:] = [_node(below, index) for index in range(shifted, (len(below) + 1) // 2)]
            level += 1
        del self._levels[level + 1 :]

    def root(self) -> bytes:
        """The root over the rows."""
        return self._levels[-1][0] if self._names else EMPTY_ROOT

    def commitment(self) -> bytes:
        """What a heads entry says now."""
        return heads_commitment(len(self._names), self.root())

    def proof(self, tenant_id: str) -> HeadsProof | None:
        """The proof of a tenant's row; None when it has none."""
        name = tenant_id.encode("utf-8")
        index = bisect_left(self._names, name)
        if index == len(self._names) or self._names[index] != name:
            return None
        path, position = [], index
        for level in self._levels[:-1]:
            sibling = position ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            position //= 2
        return HeadsProof(index, len(self._names), path, self.root())


def _node(below: list[bytes], index: int) -> bytes:
    left = below[2 * index]
    return left if 2 * index + 1 == len(below) else node_hash(left, below[2 * index + 1])
