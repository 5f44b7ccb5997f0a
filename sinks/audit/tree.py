"""The log as its published checkpoint commits to it: entries and inclusion proofs read from its files."""

from __future__ import annotations

from functools import lru_cache

from processors.audit.checkpoint import Checkpoint
from processors.audit.marks import Included
from processors.audit.merkle import HASH_BYTES, inclusion_proof
from processors.audit.tiles import (
    BUNDLE_LEVEL,
    TILE_WIDTH,
    TileId,
    decode_bundle,
    level_size,
    subtree_hash,
    tile_of_node,
)
from schemas.errors import IntegrityError
from sinks.audit.files import LogFiles

#: Tiles and bundles kept of one checkpoint: 8 KiB and some 100 KiB each.
TILES_CACHED_MAX = 256
BUNDLES_CACHED_MAX = 32


class PublishedTree:
    """Reads below one checkpoint. Calls block on the disk and raise IntegrityError for files that don't fit."""

    def __init__(self, files: LogFiles, checkpoint: Checkpoint) -> None:
        """Nothing is read before it is needed."""
        self.checkpoint = checkpoint
        self._tile = lru_cache(maxsize=TILES_CACHED_MAX)(files.read)
        self._bundle = lru_cache(maxsize=BUNDLES_CACHED_MAX)(lambda tile: decode_bundle(files.read(tile)))

    def included(self, index: int) -> Included:
        """An entry below the checkpoint with its proof; nothing is verified yet."""
        return Included(self._entry(index), inclusion_proof(index, self.checkpoint.size, self._node))

    def _entry(self, index: int) -> bytes:
        number, item = divmod(index, TILE_WIDTH)
        width = min(level_size(BUNDLE_LEVEL, self.checkpoint.size) - number * TILE_WIDTH, TILE_WIDTH)
        tile = TileId(BUNDLE_LEVEL, number, width)
        try:
            return self._bundle(tile)[item]
        except (ValueError, IndexError):
            raise IntegrityError(f"{tile.path} can't be read: entry {index} is not there") from None

    def _node(self, level: int, index: int) -> bytes:
        tile, item, height = tile_of_node(level, index, self.checkpoint.size)
        hashes = self._tile(tile)
        if len(hashes) != tile.width * HASH_BYTES:
            raise IntegrityError(f"{tile.path} has {len(hashes)} bytes")
        return subtree_hash(hashes, item, height)
