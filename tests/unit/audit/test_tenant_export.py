"""A tenant's bundle: whole under the signed root, and refused in words of its own when anything is amiss."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.commitment import commitment
from processors.audit.edge import TreeEdge
from processors.audit.entry import NO_HEAD, Entry, Head, decode_entry, encode_entry
from processors.audit.export import ExportError, verify_export, write_end, write_entry, write_start
from processors.audit.heads import HeadsProof, HeadsTree
from processors.audit.merkle import NodeReader
from processors.audit.segment import Segment, bundle_of, read_entries
from processors.audit.trust import Trust
from schemas.topics import SYSTEM_TENANT
from sinks.audit.export import export_tenant
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.reader import DirectoryLog
from tests.support.audit import SALTS, AuditWorld, nodes_of

TENANT = "tenant_1"


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log of 4 tenants."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20, 40)
    return made


def trust_of(world: AuditWorld) -> Trust:
    """The log's key."""
    return Trust((world.signer.verifier,))


def entries_of(world: AuditWorld) -> list[bytes]:
    """All of the log."""
    assert isinstance(world.store, MemoryAuditStore)
    return [row.entry for row in world.store.stored]


@dataclass
class Bundle:
    """A bundle's parts, so that a dishonest one can be put together."""

    world: AuditWorld
    tenant: str = TENANT
    note: str = ""
    entries: dict[int, bytes] = field(default_factory=dict)
    head: Head = NO_HEAD
    proof: HeadsProof = field(default_factory=lambda: HeadsProof(0, 0, [], b""))
    nodes: NodeReader = lambda _level, _index: bytes(32)

    @classmethod
    def of(cls, world: AuditWorld, entries: list[bytes] | None = None) -> Bundle:
        """The honest bundle of a log of these entries."""
        entries = entries or entries_of(world)
        segment = read_entries(0, entries, bundle_of)
        edge, _ = TreeEdge().grow(entries)
        note = sign_checkpoint(Checkpoint(world.signer.name, edge.size, edge.root()), world.signer)
        proof = heads_tree(segment).proof(TENANT)
        assert proof is not None
        mine = {
            number: data
            for number, data in enumerate(entries)
            if decode_entry(data).source.tenant_id == TENANT or number == len(entries) - 1
        }
        return cls(world, TENANT, note, mine, segment.heads[TENANT], proof, nodes_of(entries))

    def check(self) -> int:
        """How many entries the tenant finds proven; raises ExportError."""
        pieces, first = [write_start(self.note, self.tenant, has_salts=False)], 0
        for position, data in sorted(self.entries.items()):
            pieces.append(write_entry(first, position, data, b"", self.nodes))
            first = position + 1
        pieces.append(write_end(self.head, self.proof))
        return verify_export(io.BytesIO(b"".join(pieces)).read, trust_of(self.world)).entries


def heads_tree(segment: Segment) -> HeadsTree:
    """The tree that the log's last entry commits to."""
    tree = HeadsTree()
    tree.move({tenant: head for tenant, head in segment.heads.items() if tenant != "_log"})
    return tree


@pytest.mark.parametrize("tenant", ["tenant_0", "tenant_1", "tenant_2", SYSTEM_TENANT])
@pytest.mark.parametrize("salted", [False, True])
async def test_a_bundle_holds_everything_of_its_tenant(
    world: AuditWorld, tmp_path: Path, tenant: str, *, salted: bool
) -> None:
    """Every entry of the tenant, from the first to the last; with salts each can be opened, by the file's owner."""
    path, taken = tmp_path / "bundle", []
    salts = SALTS if salted else None
    log = DirectoryLog(world.files)
    made = await export_tenant(log, trust_of(world), tenant, path, salts, lambda _done, _total: None)

    with path.open("rb") as file:
        found = verify_export(file.read, trust_of(world), lambda entry, salt: taken.append((entry, salt)))
    mine = [entry for entry in map(decode_entry, entries_of(world)) if entry.source.tenant_id == tenant]
    assert mine == [entry for entry, _ in taken]
    assert found == made
    assert not salted or path.stat().st_mode & 0o077 == 0
    assert (len(mine), salted, 423) == (found.entries, found.has_salts, found.signed.checkpoint.size)
    for entry, salt in taken:
        value = b"\0\0\0\0\5value %d" % entry.source.offset
        assert (salt is not None) == salted
        assert salt is None or commitment(value, salt) == entry.source.commitment


async def test_a_tenant_without_entries_gets_no_file(world: AuditWorld, tmp_path: Path) -> None:
    """Nothing is written, nothing is left over."""
    path = tmp_path / "bundle" / "file"
    path.parent.mkdir()
    log = DirectoryLog(world.files)
    assert await export_tenant(log, trust_of(world), "nobody", path, None, lambda _done, _total: None) is None
    assert not names_in(path.parent)


def names_in(folder: Path) -> list[str]:
    """What lies there."""
    return [path.name for path in folder.iterdir()]


async def test_the_parts_put_together_are_a_bundle(world: AuditWorld) -> None:
    """What the tests below change is sound before."""
    bundle = Bundle.of(world)
    assert len(bundle.entries) - 1 == bundle.check() > 100


def without(bundle: Bundle, index: int) -> Bundle:
    """The bundle without the tenant's entry of this place in its order, as if it had never been the tenant's."""
    positions = sorted(bundle.entries)[:-1]
    kept = {position: data for position, data in bundle.entries.items() if position != positions[index]}
    return replace(bundle, entries=kept)


def swapped(bundle: Bundle) -> Bundle:
    """With another tenant's entry in place of one of its own."""
    at = sorted(bundle.entries)[4]
    return replace(bundle, entries=bundle.entries | {at: encode_entry(of_other(decode_entry(bundle.entries[at])))})


def of_other(entry: Entry) -> Entry:
    """The entry as another tenant's."""
    return entry._replace(source=entry.source._replace(tenant_id="tenant_2"))


def amended(bundle: Bundle, index: int) -> Bundle:
    """With another amount in one entry."""
    at = sorted(bundle.entries)[index]
    entry = decode_entry(bundle.entries[at])
    changed = encode_entry(entry._replace(source=entry.source._replace(amount_nano=1)))
    return replace(bundle, entries=bundle.entries | {at: changed})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda good: without(good, 0), "the tenant's entries 1 to 1 are withheld before it"),
        (lambda good: without(good, 7), "the tenant's entries 8 to 8 are withheld before it"),
        (lambda good: without(good, -1), r"the log has 120 entries of tenant_1, the bundle 119: its last are withheld"),
        (swapped, "entry 16 is one of tenant_2, not of tenant_1"),
        (lambda good: amended(good, 9), "does not continue the tenant's chain after its entry 10"),
        (lambda good: amended(good, -2), "the last entry of tenant_1 is not the one that the log's heads say"),
        (lambda good: replace(good, tenant="tenant_2"), "entry 1 is one of tenant_1, not of tenant_2"),
        (lambda good: replace(good, head=Head(119, good.head.chain)), "the head of tenant_1: the path does not lead"),
        (lambda good: replace(good, proof=good.proof._replace(path=[])), "the head of tenant_1: the path does not"),
        (lambda good: replace(good, proof=good.proof._replace(root=bytes(32))), "does not commit to the heads that"),
        (lambda good: replace(good, proof=good.proof._replace(tenants=9)), "does not commit to the heads that"),
        (lambda good: replace(good, nodes=lambda _level, _index: bytes(32)), "do not give the root signed at 423"),
        (lambda good: replace(good, note=good.note.replace("423", "424")), "checkpoint: the signature .* is wrong"),
    ],
    ids=[
        *("first", "middle", "last", "swapped", "changed", "last changed", "tenant", "head", "path"),
        *("heads", "count", "hashes", "checkpoint"),
    ],
)
async def test_what_is_wrong_with_a_bundle_is_said(
    world: AuditWorld, change: Callable[[Bundle], Bundle], words: str
) -> None:
    """Withheld, swapped, changed: each has words of its own."""
    with pytest.raises(ExportError, match=words):
        change(Bundle.of(world)).check()


async def test_an_older_head_does_not_hide_the_newest_entries(world: AuditWorld) -> None:
    """A bundle that ends before the log's last entry, with heads of before, is not one of this checkpoint."""
    older = Bundle.of(world, entries_of(world)[:342])
    newer = Bundle.of(world)
    kept = {position: data for position, data in newer.entries.items() if position < 342 or position == 422}
    mixed = replace(newer, entries=kept, head=older.head, proof=older.proof)

    assert older.check() == 98
    with pytest.raises(ExportError, match="does not commit to the heads that the bundle gives"):
        mixed.check()


async def test_a_bundle_with_any_byte_changed_or_cut_is_refused(world: AuditWorld, tmp_path: Path) -> None:
    """No byte of it can be another one, none can be missing, none follow (bytes taken in steps)."""
    path, trust = tmp_path / "bundle", trust_of(world)
    await export_tenant(DirectoryLog(world.files), trust, TENANT, path, None, lambda _done, _total: None)
    sound = path.read_bytes()
    for at in [*range(500), *range(500, len(sound) - 400, 131), *range(len(sound) - 400, len(sound))]:
        changed = sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :]
        with pytest.raises(ExportError):
            verify_export(io.BytesIO(changed).read, trust)
        with pytest.raises(ExportError):
            verify_export(io.BytesIO(sound[:at]).read, trust)
    with pytest.raises(ExportError, match="something follows"):
        verify_export(io.BytesIO(sound + b"\0").read, trust)
