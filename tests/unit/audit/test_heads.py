"""The heads' tree: the RFC's root over sorted rows, whatever way it grew, and a proof for every tenant."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from processors.audit import verify_inner_border, verify_rfc9162
from processors.audit.entry import Head
from processors.audit.heads import HeadsTree, heads_commitment, heads_row
from processors.audit.merkle import EMPTY_ROOT, leaf_hash
from tests.support.audit import naive_root


def head_of(tenant_id: str, tseq: int) -> Head:
    """A made-up head."""
    return Head(tseq, sha256(f"{tenant_id} {tseq}".encode()).digest())


def expected_root(heads: dict[str, Head]) -> bytes:
    """The root as the RFC writes it, over the rows in the order of their names' bytes."""
    return naive_root([heads_row(name, heads[name]) for name in sorted(heads, key=str.encode)])


def test_a_row_is_golden() -> None:
    """Length, name, number, chain."""
    assert heads_row("ä", Head(7, b"\x11" * 32)) == b"\0\2\xc3\xa4" + (7).to_bytes(8, "big") + b"\x11" * 32


def test_without_tenants_the_root_is_the_empty_one() -> None:
    """And the commitment is over it and no tenants."""
    tree = HeadsTree()
    assert (EMPTY_ROOT, heads_commitment(0, EMPTY_ROOT)) == (tree.root(), tree.commitment())
    assert tree.proof("nobody") is None


@pytest.mark.parametrize("seed", range(30))
def test_the_root_is_that_of_the_rows_however_it_grew(seed: int) -> None:
    """New tenants in front, between and behind, and known ones that move, in steps of any size."""
    draw = random.Random(seed)
    tree, heads = HeadsTree(), dict[str, Head]()
    for step in range(40):
        names = {f"{draw.choice('aÄ_z')}{draw.randrange(60)}" for _ in range(draw.choice([0, 1, 1, 2, 9]))}
        moved = {name: head_of(name, step + 1) for name in names}
        heads |= moved
        tree.move(moved)
        assert expected_root(heads) == tree.root(), f"seed {seed}, step {step}"
        assert heads_commitment(len(heads), tree.root()) == tree.commitment()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100])
def test_every_tenant_has_a_proof_that_both_verifiers_accept(count: int) -> None:
    """Its row is included under the root; another row is not."""
    heads = {f"tenant_{number}": head_of(f"tenant_{number}", number + 1) for number in range(count)}
    tree = HeadsTree()
    tree.move(heads)
    for name, head in heads.items():
        proof = tree.proof(name)
        assert proof is not None
        for verify in (verify_inner_border.verify_inclusion, verify_rfc9162.verify_inclusion):
            place = proof.position, proof.tenants
            assert verify(*place, leaf_hash(heads_row(name, head)), proof.path, proof.root)
            assert not verify(
                *place, leaf_hash(heads_row(name, Head(head.tseq - 1, head.chain))), proof.path, proof.root
            )
