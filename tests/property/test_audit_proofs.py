"""What proves something about random audit logs: true when made honestly, refused after any change."""

from __future__ import annotations

import io
import pickle
from itertools import count, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.audit import verify_inner_border, verify_rfc9162
from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.commitment import Salts
from processors.audit.edge import TreeEdge
from processors.audit.entry import (
    LOG_TENANT,
    NO_HEAD,
    EntryError,
    EntryScan,
    Head,
    Source,
    decode_entry,
    heads_source,
    seal,
)
from processors.audit.export import ExportError, verify_export, write_end, write_entry, write_start
from processors.audit.heads import HeadsTree
from processors.audit.merkle import NodeReader, SparseTree, inclusion_proof, leaf_hash, perfect_subtrees, root_at
from processors.audit.note import Signer
from processors.audit.proof_file import ProofError, ProofFile, parse_proof, verify_proof, write_proof
from processors.audit.segment import bundle_of, read_entries, read_files
from processors.audit.tiles import BUNDLE_LEVEL, TileId, encode_bundle
from processors.audit.trust import Trust
from processors.audit.walk import Differences, EntryWalk
from schemas.errors import IntegrityError
from tests.support.audit import entries_of, nodes_of

SIGNER = Signer("example.com/log", bytes(32))
TRUST = Trust((SIGNER.verifier,))
SALTS = Salts(bytes(32))
TENANTS = ["a", "b", "c\u00e9", "_system"]


class Log(NamedTuple):
    """A log as it was entered, batch by batch."""

    entries: list[bytes]
    heads: dict[str, Head]
    tree: HeadsTree
    note: str
    node: NodeReader


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Batches of records of a few tenants, heads at the end of each."""
    heads: dict[str, Head] = {}
    tree, entries, records = HeadsTree(), list[bytes](), count()
    for batch in draw(st.lists(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=9), min_size=1, max_size=7)):
        sources = [source(tenant, next(records)) for tenant in batch]
        sealed = seal(sources, len(entries), heads)
        tree.move({tenant: heads[tenant] for tenant in batch})
        own = {LOG_TENANT: heads.get(LOG_TENANT, NO_HEAD)}
        sealed += seal([heads_source(tree.commitment(), 7)], len(entries) + len(sealed), own)
        heads |= own
        entries += [each.entry for each in sealed]
    edge, _ = TreeEdge().grow(entries)
    note = sign_checkpoint(Checkpoint(SIGNER.name, edge.size, edge.root()), SIGNER)
    return Log(entries, heads, tree, note, nodes_of(entries))


def source(tenant: str, number: int) -> Source:
    """A made-up record, unlike every other."""
    commitment = SALTS.commitment(b"%d" % number, tenant, "id", 0, number)
    return Source(tenant, "topic", "id", 0, number, 7, 5, commitment, number, "USD", "", f"r{number}", "KIND")


def bundle(log: Log, tenant: str) -> bytes:
    """A tenant's bundle of a log."""
    pieces, first = [write_start(log.note, tenant, has_salts=False)], 0
    for position, data in enumerate(log.entries):
        if decode_entry(data).source.tenant_id == tenant or position == len(log.entries) - 1:
            pieces.append(write_entry(first, position, data, b"", log.node))
            first = position + 1
    proof = log.tree.proof(tenant)
    assert proof is not None
    return b"".join([*pieces, write_end(log.heads[tenant], proof)])


@given(logs(), st.data())
def test_a_receipt_goes_round_and_a_changed_one_is_refused(log: Log, data: st.DataObject) -> None:
    """Any entry of any log; any byte of the file."""
    position = data.draw(st.integers(0, len(log.entries) - 1))
    path = inclusion_proof(position, len(log.entries), log.node)
    proof = ProofFile(position, tuple(path), log.note, log.entries[position])
    written = write_proof(proof)
    assert proof == parse_proof(written)
    assert log.entries[position] == verify_proof(proof, TRUST).data

    at, bit = data.draw(st.integers(0, len(written) - 1)), 1 << data.draw(st.integers(0, 7))
    try:
        verify_proof(parse_proof(written[:at] + bytes([written[at] ^ bit]) + written[at + 1 :]), TRUST)
    except ProofError:
        return
    raise AssertionError(f"byte {at} may have bit {bit} changed")


@given(logs(), st.data())
def test_both_verifiers_say_the_same_of_a_changed_path(log: Log, data: st.DataObject) -> None:
    """Whatever path, index and size are claimed."""
    size = len(log.entries)
    position = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(position, size, log.node)
    claimed, total = data.draw(st.integers(0, size)), data.draw(st.integers(0, size + 1))
    changed = data.draw(st.permutations(path)) + data.draw(st.lists(st.just(bytes(32)), max_size=1))
    root = root_at(size, log.node)
    claim = (claimed, total, leaf_hash(log.entries[position]), changed, root)

    verdict = verify_inner_border.verify_inclusion(*claim)
    assert verdict == verify_rfc9162.verify_inclusion(*claim)
    assert verdict or (claimed, total, changed) != (position, size, path)


@given(logs(), st.data())
def test_a_bundle_is_whole_and_a_changed_one_is_refused(log: Log, data: st.DataObject) -> None:
    """Any tenant of any log; any byte of the file."""
    tenant = data.draw(st.sampled_from(sorted(log.heads.keys() - {LOG_TENANT})))
    written = bundle(log, tenant)
    taken: list[int] = []
    found = verify_export(io.BytesIO(written).read, TRUST, lambda entry, _salt: taken.append(entry.tseq))
    assert (tenant, log.heads[tenant].tseq) == (found.tenant_id, found.entries)
    assert list(range(1, found.entries + 1)) == taken

    at, bit = data.draw(st.integers(0, len(written) - 1)), 1 << data.draw(st.integers(0, 7))
    try:
        verify_export(io.BytesIO(written[:at] + bytes([written[at] ^ bit]) + written[at + 1 :]).read, TRUST)
    except ExportError:
        return
    raise AssertionError(f"byte {at} may have bit {bit} changed")


@given(st.integers(1, 80), st.data())
def test_a_sparse_tree_has_the_root_of_the_whole(size: int, data: st.DataObject) -> None:
    """Whichever leaves are given, the subtrees between them make it up."""
    entries = entries_of(size)
    node, tree = nodes_of(entries), SparseTree()
    for position in sorted(data.draw(st.sets(st.integers(0, size - 1)))):
        for level, index in perfect_subtrees(tree.size, position):
            tree.add(level, node(level, index))
        tree.add(0, leaf_hash(entries[position]))
    for level, index in perfect_subtrees(tree.size, size):
        tree.add(level, node(level, index))

    assert (size, root_at(size, node)) == (tree.size, tree.root())


@given(logs(), st.data())
def test_runs_may_be_cut_anywhere(log: Log, data: st.DataObject) -> None:
    """A changed entry is found alike whether the log is read in one run or in many."""
    entries = list(log.entries)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(entries) - 1))
        byte = data.draw(st.integers(0, len(entries[at]) - 1))
        entries[at] = entries[at][:byte] + bytes([entries[at][byte] ^ 1]) + entries[at][byte + 1 :]
    cuts = sorted({0, len(entries), *data.draw(st.sets(st.integers(0, len(entries))))})

    def found(bounds: list[int]) -> dict[str, str]:
        differences = Differences()
        walk = EntryWalk(differences)
        for first, end in pairwise(bounds):
            walk.join(read_entries(first, entries[first:end], bundle_of))
        return differences.first

    assert found([0, len(entries)]) == found(cuts)
    assert (entries == log.entries) == (not found(cuts)) or entries[-1] != log.entries[-1]


@given(logs())
def test_a_run_is_the_same_in_another_process(log: Log) -> None:
    """What is sent there and what comes back survives the way, files that are missing too."""
    half = len(log.entries) // 2
    tiles = [TileId(BUNDLE_LEVEL, 0, len(log.entries)), TileId(BUNDLE_LEVEL, 1, 2)]
    files = [encode_bundle(log.entries), IntegrityError("tile/entries/001.p/2 is missing")]

    segment = read_files(*sent((tiles, files)), half, len(log.entries))
    assert read_files(tiles, files, half, len(log.entries)) == sent(segment)
    assert "tile/entries/001.p/2 is missing" in segment.found[0].words


def sent(value: Any) -> Any:
    """What another process gets of it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made one line above


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"\x01\0\0\0\0\0\0\0\x03", b"\x02\0\0\0\0\0\0\0\x03", "an amount without its mark"),
        (b"\x01\0\0\0\0\0\0\0\x03", b"\0\0\0\0\0\0\0\0\x03", "an amount without its mark"),
        (b"\x02r3", b"\x02\xff3", "a text of the entry can't be read"),
        (b"KIND", b"KIN\xff", "a text of the entry can't be read"),
        (b"\x02r3", b"\x03r3", "lengths do not meet"),
        (b"audit/v2", b"audit/v3", "of a known version"),
    ],
)
def test_both_readings_refuse_what_is_not_canonical(old: bytes, new: bytes, words: str) -> None:
    """A second mark of an amount, an amount without one, a text that is none, a length that leads elsewhere."""
    (sealed,) = seal([source("a", 3)], 0, {})
    assert old in sealed.entry
    for read in (decode_entry, EntryScan().scan):
        with pytest.raises(EntryError, match=words):
            read(sealed.entry.replace(old, new))


def test_both_readings_take_a_request_id_that_is_not_ascii() -> None:
    """What is unusual is read by the exact one."""
    (sealed,) = seal([source("a", 3)._replace(request_id="\u00e9")], 0, {})
    assert decode_entry(sealed.entry).tseq == EntryScan().scan(sealed.entry)[2]


@given(logs(), st.data())
def test_the_fast_reading_of_an_entry_is_the_exact_one(log: Log, data: st.DataObject) -> None:
    """It takes what decode_entry takes, says the same of it, and refuses the rest with the same words."""
    entry = data.draw(st.sampled_from(log.entries))
    at, value = data.draw(st.integers(0, len(entry) - 1)), data.draw(st.integers(0, 255))
    changed = data.draw(
        st.sampled_from([entry, entry[:at] + bytes([value]) + entry[at + 1 :], entry[:at], entry + bytes([value])])
    )
    try:
        exact = decode_entry(changed)
    except EntryError as error:
        expected: object = str(error)
    else:
        of = exact.source
        texts = [of.tenant_id, of.topic, of.topic_id, of.currency, of.kind]
        place = (exact.magic, exact.seq, exact.tseq, exact.prev_chain, of.partition, of.offset, of.time_micros)
        expected = (*place, of.commitment, texts)
    try:
        scanned: object = EntryScan().scan(changed)
    except EntryError as error:
        scanned = str(error)
    assert expected == scanned
