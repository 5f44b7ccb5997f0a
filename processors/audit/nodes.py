"""Hashes of complete subtrees out of tiles: what a proof needs is found first, read at once, and then put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from processors.audit.merkle import EMPTY_ROOT, NodeReader
from processors.audit.tiles import TileId, subtree_hash, tile_of_node

NODES_CACHED_MAX = 4_096


def tiles_for(size: int, proof: Callable[[NodeReader], object]) -> list[TileId]:
    """The tiles of a log of `size` that a proof reads, whatever is in them."""
    needed: dict[TileId, None] = {}

    def node(level: int, index: int) -> bytes:
        needed[tile_of_node(level, index, size)[0]] = None
        return EMPTY_ROOT

    proof(node)
    return list(needed)


def nodes_of_tiles(size: int, tiles: Mapping[TileId, bytes]) -> NodeReader:
    """Reads the nodes of a log of `size` from these tiles; raises KeyError for one that is not among them."""

    @lru_cache(maxsize=NODES_CACHED_MAX)
    def node(level: int, index: int) -> bytes:
        tile, first, height = tile_of_node(level, index, size)
        return subtree_hash(tiles[tile], first, height)

    return node
