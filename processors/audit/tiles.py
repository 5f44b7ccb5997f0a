"""The tile layout of c2sp.org/tlog-tiles: which files a log of a size has, what each holds, and entry bundles.

Tile height is 8: item i of tile (level, number) is the hash of the complete subtree over leaves
[(number * 256 + i) * 256**level, (number * 256 + i + 1) * 256**level). A partial tile is never hashed into the level
above.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from processors.audit.merkle import HASH_BYTES, NODE_PREFIX

TILE_WIDTH = 256
TILE_HEIGHT = 8
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 65_535
_LENGTH = struct.Struct(">H")
#: No log has tiles beyond 2**63 / 256: at most seven groups of three digits.
_PATH = re.compile(r"tile/(0|[1-9]\d?|entries)/((?:x\d{3}/){0,6}\d{3})(?:\.p/([1-9]\d{0,2}))?")


class TileId(NamedTuple):
    """One tile file. `level` is -1 for an entry bundle; `width` is 256 for a full tile."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """Where it lies, relative to the log's prefix."""
        kind = "entries" if self.level < 0 else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{kind}/{index_path(self.number)}{partial}"

    @property
    def end_index(self) -> int:
        """One past the last leaf it covers."""
        return (self.number * TILE_WIDTH + self.width) << (TILE_HEIGHT * max(self.level, 0))


BUNDLE_LEVEL = -1


def index_path(index: int) -> str:
    """A tile index as path: 1234067 is x001/x234/067."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def parse_path(path: str) -> TileId | None:
    """The tile a path names, or None when the path is not of a tile."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    level = BUNDLE_LEVEL if match[1] == "entries" else int(match[1])
    width = int(match[3]) if match[3] else TILE_WIDTH
    tile = TileId(level, int(match[2].replace("x", "").replace("/", "")), width)
    is_sound = level <= LEVEL_MAX and (match[3] is None or width < TILE_WIDTH)
    return tile if is_sound and tile.path == path else None


def level_size(level: int, size: int) -> int:
    """How many hashes level `level` of the tiles has in a log of `size`."""
    return size >> (TILE_HEIGHT * max(level, 0))


def tiles_of(level: int, size: int, first: int = 0) -> Iterator[TileId]:
    """The tiles of one level in a log of `size`, from tile index `first` on: full ones, then the partial one if any."""
    full, rest = divmod(level_size(level, size), TILE_WIDTH)
    for index in range(first, full):
        yield TileId(level, index, TILE_WIDTH)
    if rest and full >= first:
        yield TileId(level, full, rest)


def levels_of(size: int) -> range:
    """The levels that have hashes in a log of `size`."""
    return range(-(-max(size.bit_length(), 1) // TILE_HEIGHT) if size else 0)


def tile_set(size: int) -> Iterator[TileId]:
    """Every hash tile and entry bundle of a log of `size`."""
    for level in (BUNDLE_LEVEL, *levels_of(size)):
        yield from tiles_of(level, size)


def changed_tiles(old_size: int, new_size: int) -> Iterator[TileId]:
    """The files that growing from `old_size` to `new_size` adds: bundles first, then hash tiles from the bottom."""
    for level in (BUNDLE_LEVEL, *levels_of(new_size)):
        before = level_size(level, old_size)
        if level_size(level, new_size) > before:
            yield from tiles_of(level, new_size, before // TILE_WIDTH)


def tile_root(hashes: bytes) -> bytes:
    """The hash above a full tile's 256 hashes (8192 bytes)."""
    if len(hashes) != TILE_WIDTH * HASH_BYTES:
        raise ValueError("only a full tile has a hash in the level above")
    return subtree_hash(hashes, 0, TILE_HEIGHT)


def subtree_hash(hashes: bytes, first: int, height: int) -> bytes:
    """The hash over the 2**height items of a tile from item `first` on."""
    row = hashes[first * HASH_BYTES : (first + (1 << height)) * HASH_BYTES]
    for _ in range(height):
        # Left and right lie side by side: a pair is one slice.
        pairs = range(0, len(row), 2 * HASH_BYTES)
        row = b"".join([sha256(NODE_PREFIX + row[start : start + 2 * HASH_BYTES]).digest() for start in pairs])
    return row


def tile_of_node(level: int, index: int, size: int) -> tuple[TileId, int, int]:
    """Where the complete subtree (level, index) of a log of `size` is: its tile, first item, and height above that."""
    tile_level, height = divmod(level, TILE_HEIGHT)
    first = index << height
    tile_index, item = divmod(first, TILE_WIDTH)
    width = min(level_size(tile_level, size) - tile_index * TILE_WIDTH, TILE_WIDTH)
    return TileId(tile_level, tile_index, width), item, height


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle; raises ValueError for an entry over 65,535 bytes."""
    try:
        return b"".join([part for entry in entries for part in (_LENGTH.pack(len(entry)), entry)])
    except struct.error:
        raise ValueError(f"an entry of a bundle has at most {ENTRY_BYTES_MAX} bytes") from None


def decode_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a bundle; raises ValueError when a length leads past its end."""
    entries: list[bytes] = []
    position, end = 0, len(bundle)
    while position < end:
        first = position + 2
        if first > end:
            raise ValueError("the bundle ends inside a length")
        position = first + (bundle[first - 2] << 8 | bundle[first - 1])
        if position > end:
            raise ValueError("the bundle ends inside an entry")
        entries.append(bundle[first:position])
    return entries


def cut_tile(tile: TileId, whole: bytes) -> bytes:
    """A partial tile or bundle out of the full one's bytes; raises ValueError for a bundle that can't be read."""
    if tile.level == BUNDLE_LEVEL:
        return encode_bundle(decode_bundle(whole)[: tile.width])
    return whole[: tile.width * HASH_BYTES]
