"""Which files a log of a size has, what is in them, and how they are named."""

from __future__ import annotations

from collections import Counter

import pytest

from processors.audit.edge import TreeEdge
from processors.audit.tiles import (
    BUNDLE_LEVEL,
    TILE_WIDTH,
    TileId,
    changed_tiles,
    decode_bundle,
    encode_bundle,
    index_path,
    parse_path,
    subtree_hash,
    tile_root,
    tile_set,
)
from tests.support.audit import entries_of, naive_root


@pytest.mark.parametrize(
    ("number", "path"), [(0, "000"), (70, "070"), (999, "999"), (1000, "x001/000"), (1_234_067, "x001/x234/067")]
)
def test_numbers_are_written_in_groups_of_three(number: int, path: str) -> None:
    """The examples of the specification."""
    assert path == index_path(number)


def test_the_tiles_of_seventy_thousand_entries() -> None:
    """273 full level-0 tiles and one of 112, one full level-1 tile and one of 17, one level-2 tile of 1."""
    tiles = list(tile_set(70_000))

    assert Counter(tile.level for tile in tiles if tile.width == TILE_WIDTH) == {-1: 273, 0: 273, 1: 1}
    assert [tile.path for tile in tiles if tile.width < TILE_WIDTH] == [
        "tile/entries/273.p/112",
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/x000/001",
        "tile/0/" + "x001/" * 2_000 + "000",
        "tile/e/000",
    ],
)
def test_other_paths_are_no_tiles(path: str) -> None:
    """Only the canonical form names a tile."""
    assert parse_path(path) is None


def test_partial_tiles_of_every_width() -> None:
    """Grown one entry at a time, each width's partial tile and bundle hold exactly the entries so far."""
    entries, edge = entries_of(TILE_WIDTH), TreeEdge()
    for width in range(1, TILE_WIDTH):
        edge, files = edge.grow(entries[width - 1 : width])
        written = dict(files)
        assert entries[:width] == decode_bundle(written[TileId(BUNDLE_LEVEL, 0, width)])
        assert len(written[TileId(0, 0, width)]) == 32 * width
        assert set(written) == {TileId(BUNDLE_LEVEL, 0, width), TileId(0, 0, width)}


def test_the_last_entry_makes_a_full_tile_and_the_level_above() -> None:
    """256 entries: full bundle, full tile, and the level above has its first hash."""
    entries = entries_of(TILE_WIDTH)
    _, files = TreeEdge().grow(entries)

    written = dict(files)
    assert ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"] == [tile.path for tile in written]
    assert naive_root(entries) == tile_root(written[TileId(0, 0, 256)]) == written[TileId(1, 0, 1)]


@pytest.mark.parametrize("size", [255, 256, 257, 512, 65_535, 65_536, 65_537, 70_000])
def test_growing_in_one_step_makes_the_whole_tile_set(size: int) -> None:
    """From nothing to a size, the files are those of the tile set, and items are roots of what they cover."""
    entries = entries_of(size)
    _, files = TreeEdge().grow(entries)

    assert set(tile_set(size)) == {tile for tile, _ in files} == set(changed_tiles(0, size))
    for tile, data in files:
        if tile.level > 0:
            span = TILE_WIDTH**tile.level
            first = tile.number * TILE_WIDTH * span
            assert naive_root(entries[first : first + span]) == data[:32]


def test_growing_makes_only_what_changed() -> None:
    """From 250 to 300: the bundle and tile that filled up, the new partial ones, and the level above."""
    edge, _ = TreeEdge().grow(entries_of(250))
    _, files = edge.grow(entries_of(50))

    assert {tile for tile, _ in files} == set(changed_tiles(250, 300))


def test_only_a_full_tile_has_a_hash_above_it() -> None:
    """A partial tile is never hashed into the level above."""
    with pytest.raises(ValueError, match="full tile"):
        tile_root(bytes(32 * 255))


def test_a_subtree_within_a_tile() -> None:
    """Items 2 and 3 give the hash of the subtree over them."""
    entries = entries_of(4)
    _, files = TreeEdge().grow(entries)

    assert naive_root(entries[2:4]) == subtree_hash(dict(files)[TileId(0, 0, 4)], 2, 1)


def test_an_entry_over_the_limit_is_refused() -> None:
    """A length has two bytes."""
    assert len(encode_bundle([bytes(65_535)])) == 65_537
    with pytest.raises(ValueError, match="65535"):
        encode_bundle([bytes(65_536)])


@pytest.mark.parametrize(("bundle", "words"), [(b"\0", "length"), (b"\0\2x", "entry")])
def test_a_cut_bundle_is_refused(bundle: bytes, words: str) -> None:
    """A length that leads past the end is no bundle."""
    with pytest.raises(ValueError, match=words):
        decode_bundle(bundle)
