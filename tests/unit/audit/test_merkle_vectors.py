"""RFC 6962 hashes and roots against published values, and compact ranges around tile borders against a naive tree."""

from __future__ import annotations

import pytest

from processors.audit.edge import TreeEdge, load_edge
from processors.audit.merkle import EMPTY_ROOT, CompactRange, leaf_hash, node_hash, perfect_subtrees, root_at
from schemas.errors import IntegrityError
from tests.support.audit import entries_of, naive_root, nodes_of

#: The reference leaves of Certificate Transparency and the roots of their prefixes.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    """No entries have the root SHA-256("")."""
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert CompactRange().root() == EMPTY_ROOT == TreeEdge().root()


def test_leaves_and_nodes_are_hashed_apart() -> None:
    """Published leaf and node hashes come out."""
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_of_the_reference_tree(size: int) -> None:
    """Three ways to a root give the published one."""
    entries = [bytes.fromhex(leaf) for leaf in LEAVES[:size]]
    grown = CompactRange()
    for entry in entries:
        grown.append(leaf_hash(entry))

    edge, _ = TreeEdge().grow(entries)

    assert [ROOTS[size - 1]] * 3 == [grown.root().hex(), edge.root().hex(), naive_root(entries).hex()]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537])
def test_an_edge_has_the_naive_root_however_it_grew(size: int) -> None:
    """Grown in uneven steps and loaded from the files it made, an edge has the root of the naive tree."""
    entries, files, edge, position = entries_of(size), {}, TreeEdge(), 0
    for step in [1, 254, 1, 1, 300, 7, 65_000, size]:
        taken = entries[position : position + step]
        position += len(taken)
        edge, made = edge.grow(taken)
        files.update(made)

    assert naive_root(entries) == edge.root() == load_edge(size, files.__getitem__).root()


@pytest.mark.parametrize("size", [1, 3, 255, 256, 257, 1_000])
def test_a_root_from_complete_subtrees(size: int) -> None:
    """Any reader of complete subtrees gives the root."""
    entries = entries_of(size)

    assert naive_root(entries) == root_at(size, nodes_of(entries))


def test_a_range_of_leaves_is_cut_into_complete_subtrees() -> None:
    """Aligned, largest first on the way up, smaller on the way down."""
    assert perfect_subtrees(3, 9) == [(0, 3), (2, 1), (0, 8)]
    assert perfect_subtrees(0, 0) == []


def test_a_compact_range_refuses_a_wrong_count() -> None:
    """A range resumes only with one hash per 1-bit of its size."""
    with pytest.raises(ValueError, match="2 hashes"):
        CompactRange(3, [EMPTY_ROOT])


def test_an_edge_refuses_a_bundle_that_its_tile_does_not_know() -> None:
    """Loading checks the partial bundle against the hashes above it."""
    _, files = TreeEdge().grow(entries_of(5))
    other, _ = TreeEdge().grow([b"x"] * 5)
    tampered = {tile: data if tile.level == 0 else b"\0\1x" * 5 for tile, data in files}

    with pytest.raises(IntegrityError, match=r"tile/entries/000\.p/5"):
        load_edge(5, tampered.__getitem__)
    assert other.size == 5
