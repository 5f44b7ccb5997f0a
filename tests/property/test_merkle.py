"""Proofs: built as the RFC writes them, and judged alike by two independent verifiers, whatever is done to them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.audit import verify_inner_border, verify_rfc9162
from processors.audit.merkle import consistency_proof, inclusion_proof, leaf_hash
from processors.audit.tiles import decode_bundle, encode_bundle, parse_path, tile_of_node, tile_set
from tests.support.audit import entries_of, naive_consistency, naive_path, naive_root, nodes_of

HASHES = st.binary(min_size=32, max_size=32)
SIZES = st.integers(min_value=1, max_value=80)


@given(SIZES, st.data())
def test_an_inclusion_proof_is_the_rfcs_and_verifies(size: int, data: st.DataObject) -> None:
    """PATH(m, D[n]) for any leaf of any size; both verifiers accept it."""
    index = data.draw(st.integers(0, size - 1))
    entries = entries_of(size)
    proof = inclusion_proof(index, size, nodes_of(entries))

    assert naive_path(index, entries) == proof
    claim = (index, size, leaf_hash(entries[index]), proof, naive_root(entries))
    assert verify_inner_border.verify_inclusion(*claim)
    assert verify_rfc9162.verify_inclusion(*claim)


@given(SIZES, st.data())
def test_a_consistency_proof_is_the_rfcs_and_verifies(size: int, data: st.DataObject) -> None:
    """PROOF(m, D[n]) for any pair of sizes; both verifiers accept it."""
    old_size = data.draw(st.integers(1, size))
    entries = entries_of(size)
    proof = consistency_proof(old_size, size, nodes_of(entries))

    assert naive_consistency(old_size, entries) == proof
    claim = (old_size, size, proof, naive_root(entries[:old_size]), naive_root(entries))
    assert verify_inner_border.verify_consistency(*claim)
    assert verify_rfc9162.verify_consistency(*claim)


@st.composite
def tampered(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """A proof with something done to it."""
    what = draw(st.sampled_from(["flip", "drop", "add", "swap", "cut"]))
    changed = list(proof)
    position = draw(st.integers(0, max(len(proof) - 1, 0)))
    if what == "add" or not changed:
        changed.insert(position, draw(HASHES))
    elif what == "flip":
        changed[position] = bytes([changed[position][0] ^ 1]) + changed[position][1:]
    elif what == "drop":
        del changed[position]
    elif what == "cut":
        changed[position] = changed[position][:31]
    else:
        changed[position], changed[0] = changed[0], changed[position]
    return changed


@settings(max_examples=300)
@given(SIZES, st.data())
def test_both_verifiers_agree_on_tampered_inclusion(size: int, data: st.DataObject) -> None:
    """A tampered proof, index or size: the same verdict of both, and never yes for a changed proof."""
    index = data.draw(st.integers(0, size - 1))
    entries = entries_of(size)
    proof, root = inclusion_proof(index, size, nodes_of(entries)), naive_root(entries)
    changed = data.draw(tampered(proof))
    moved, resized = data.draw(st.integers(-1, size + 1)), data.draw(st.integers(0, 2 * size))
    for claim in (
        (index, size, leaf_hash(entries[index]), changed, root),
        (moved, size, leaf_hash(entries[index]), proof, root),
        (index, resized, leaf_hash(entries[index]), proof, root),
    ):
        verdict = verify_inner_border.verify_inclusion(*claim)
        assert verify_rfc9162.verify_inclusion(*claim) == verdict
        # A path of the same shape proves the same leaf in another size: only the signed size binds it.
        assert verdict == (claim[3] == proof and claim[0] == index and _shape(claim[1], index) == _shape(size, index))


def _shape(size: int, index: int) -> object:
    """The left-right turns of a path; sizes with the same turns have the same path."""
    if not 0 <= index < size:
        return None
    inner = (index ^ (size - 1)).bit_length()
    return (inner, (index >> inner).bit_count())


@settings(max_examples=300)
@given(SIZES, st.data())
def test_both_verifiers_agree_on_tampered_consistency(size: int, data: st.DataObject) -> None:
    """A tampered proof or other sizes: the same verdict of both, and never yes for a changed proof."""
    old_size = data.draw(st.integers(1, size))
    entries = entries_of(size)
    proof = consistency_proof(old_size, size, nodes_of(entries))
    roots = (naive_root(entries[:old_size]), naive_root(entries))
    changed = data.draw(tampered(proof))
    other_old, other_new = data.draw(st.integers(0, size)), data.draw(st.integers(0, 2 * size))
    for claim in (
        (old_size, size, changed, *roots),
        (other_old, size, proof, *roots),
        (old_size, other_new, proof, *roots),
    ):
        verdict = verify_inner_border.verify_consistency(*claim)
        assert verify_rfc9162.verify_consistency(*claim) == verdict
        assert not (verdict and changed != proof and claim[2] is changed)


@given(st.integers(min_value=1, max_value=70_000), st.data())
def test_every_node_is_in_a_tile_of_the_set(size: int, data: st.DataObject) -> None:
    """The tile that a complete subtree is read from is one the log has."""
    level = data.draw(st.integers(0, size.bit_length() - 1))
    index = data.draw(st.integers(0, (size >> level) - 1))
    tile, first, height = tile_of_node(level, index, size)

    assert first + (1 << height) <= tile.width
    assert tile in set(tile_set(size))


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_back_its_entries(entries: list[bytes]) -> None:
    """Encoding and decoding a bundle changes nothing."""
    assert entries == decode_bundle(encode_bundle(entries))


@given(st.integers(0, 10**12), st.integers(-1, 63), st.integers(1, 256))
def test_a_path_names_its_tile(number: int, level: int, width: int) -> None:
    """Every tile's path is read back as that tile."""
    tile = next(iter(tile_set(1)))._replace(level=level, number=number, width=width)

    assert tile == parse_path(tile.path)
