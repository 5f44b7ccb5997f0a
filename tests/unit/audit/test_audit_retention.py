"""A log that retention cut: it verifies, goes on, and shows every change of what is left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from processors.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from processors.audit.kept import EVERYTHING, encode_kept, parse_kept
from processors.audit.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at
from processors.audit.proof_file import parse_proof, verify_proof
from processors.audit.tiles import subtree_hash, tile_of_node
from processors.audit.trust import Trust
from processors.audit.verify_inner_border import verify_consistency, verify_inclusion
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.export import export_tenant
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.reader import DirectoryLog
from sinks.audit.rebuild import rebuild
from sinks.audit.receipts import build_receipts
from sinks.audit.retention import Gone, carry_out, plan_cut
from sinks.audit.verify import AuditReport
from sinks.audit.verify_public import verify_public
from tests.support.audit import AuditWorld, spans_of
from tests.unit.audit.test_audit_crashes import CrashError, Failing

#: 2 partitions of 100, 200 and 100 records, heads after each; then the entry of the cut, and its heads.
SIZE, CUT = 803, 512
KEEP_DAYS = 400
#: After every entry of these tests.
LATER_MICROS = 1_800_000_000_000_000


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying process loses nothing that was written; only a dying machine would need the sync."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def store_of(world: AuditWorld) -> MemoryAuditStore:
    """The world's store, whose partitions are as small as bundles."""
    assert isinstance(world.store, MemoryAuditStore)
    world.store.partition_entries = 256
    return world.store


async def grown(folder: Path) -> AuditWorld:
    """A log whose tenants 3 to 8 have entries below the cut only."""
    world = AuditWorld(folder)
    await world.claim()
    world.tenants = 9
    await world.grow(100)
    world.tenants = 3
    await world.grow(200, 100)
    return world


async def cut(world: AuditWorld, begin: int = 0, end: int = CUT) -> Gone:
    """Cut the log as retention does."""
    await world.tell_of_cut()
    return await carry_out(world.files, store_of(world), begin, end, KEEP_DAYS)


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A log that was cut."""
    made = await grown(tmp_path)
    await cut(made)
    return made


def differing(report: AuditReport) -> dict[str, str]:
    """Each red check's words."""
    return {check.name: check.first_difference or "" for check in report.checks if not check.ok}


async def test_a_cut_log_is_green_and_says_where_it_begins(world: AuditWorld) -> None:
    """Bundles and rows below the minimum index are gone, everything else is as it was signed."""
    report = await world.verify()

    assert (True, {}, SIZE + 2, CUT, 10) == (
        report.ok, differing(report), report.size, report.minimum_index, report.tenants,
    )  # fmt: skip
    left = {path.name for path in (world.layout.directory / "tile/entries").iterdir()}
    assert {"002", "003.p"} == left
    assert 512 == store_of(world).first_row


async def test_what_a_cut_dropped_is_told(tmp_path: Path) -> None:
    """Two bundles and as many table partitions; a second time the files are gone already."""
    world = await grown(tmp_path)

    assert Gone(2, 2) == await cut(world)
    assert Gone(2, 0) == await carry_out(world.files, store_of(world), 0, CUT, KEEP_DAYS)


async def test_a_cut_log_goes_on_across_restarts(world: AuditWorld) -> None:
    """Two more processes sequence and publish; a later cut begins where the first ended."""
    for _ in range(2):
        world.begin()
        await world.claim()
        await world.grow(120)
        report = await world.verify()
        assert report.ok, report.first_difference
    assert Gone(2, 2) == await cut(world, CUT, 1_024)
    world.begin()
    await world.claim()
    await world.grow(10)

    report = await world.verify()
    assert (True, 1_024) == (report.ok, report.minimum_index), report.first_difference


async def test_proofs_of_what_is_gone_still_verify(world: AuditWorld, tmp_path: Path) -> None:
    """Hash tiles stay: an old entry's inclusion, and consistency from sizes below the cut on, as ever."""
    whole = await grown(tmp_path / "whole")
    note = world.files.checkpoint()
    assert note is not None
    now = open_checkpoint(note, world.signer.verifier)

    def node(level: int, index: int) -> bytes:
        tile, first, height = tile_of_node(level, index, now.size)
        return subtree_hash(world.files.read(tile), first, height)

    for index in (0, 17, 255, 511, 512, 802):
        entry = store_of(whole).stored[index].entry
        assert verify_inclusion(index, now.size, leaf_hash(entry), inclusion_proof(index, now.size, node), now.root), (
            index
        )
    for size, text in (await world.store.checkpoints()).items():
        old = open_checkpoint(text, world.signer.verifier)
        proof = consistency_proof(size, now.size, node)
        assert verify_consistency(size, now.size, proof, old.root, now.root), size


def changed(world: AuditWorld, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the public minimum index."""
    path = world.layout.directory / "minimum-index"
    found = json.loads(path.read_bytes())
    change(found)
    path.write_text(json.dumps(found), "utf-8")


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (lambda found: found["chains"][2].__setitem__(2, "00" * 32), "chains", "entry 51"),
        (lambda found: found["chains"][2].__setitem__(1, 7), "chains", "entry 51"),
        (lambda found: found["chains"][7].__setitem__(2, "00" * 32), "tenants", "does not commit to the chains"),
        (lambda found: found["chains"].pop(7), "tenants", "does not commit to the chains"),
        (lambda found: found["chains"].append(["new", 1, "00" * 32]), "tenants", "does not commit to the chains"),
        (lambda found: found["chains"].pop(0), "chains", "_log goes from its entry 0"),
        (lambda found: found["partitions"][0].__setitem__(3, 7), "offsets", "quaestor.budgets/0 goes on at"),
        (lambda found: found.__setitem__("minimum_index", 256), "entries", "tile/entries/001 is missing"),
        (lambda found: found.__setitem__("minimum_index", 768), "chains", "goes from its entry"),
        (lambda found: found.__setitem__("minimum_index", 1_024), "retention", "the checkpoint's size 805"),
        (lambda found: found.__setitem__("minimum_index", 511), "retention", "not at the end of a bundle"),
        (lambda found: found.__setitem__("format", "other"), "retention", "not of this format"),
        (lambda found: found.pop("chains"), "retention", "can't be read"),
    ],
)
async def test_a_minimum_index_that_lies(
    world: AuditWorld, change: Callable[[dict[str, Any]], object], check: str, words: str
) -> None:
    """Whatever is changed in the file, the entries that follow it say otherwise."""
    changed(world, change)

    assert words in differing(await world.verify())[check]


async def test_a_cut_log_without_its_minimum_index(world: AuditWorld) -> None:
    """Entries that are missing and that no minimum index excuses are missing."""
    (world.layout.directory / "minimum-index").unlink()

    assert "entries 0 to 255): tile/entries/000 is missing" in differing(await world.verify())["entries"]


async def test_a_cut_that_no_entry_tells_of(tmp_path: Path) -> None:
    """Whoever drops entries without saying so in the log is found out."""
    world = await grown(tmp_path)
    await carry_out(world.files, store_of(world), 0, CUT, KEEP_DAYS)

    assert {"retention": "the log is cut, but no entry after the cut says so"} == differing(await world.verify())


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("tile/0/000", "tiles", "tile/1/000.p/3 item 0, or a tile below it, is not the hash that was signed"),
        ("tile/1/000.p/3", "tiles", "tile/1/000.p/3 item 0 is not the hash of what it covers"),
        ("tile/entries/002", "entries", "entry 512 (tile/entries/002)"),
    ],
)
async def test_a_flipped_bit_of_what_is_left(world: AuditWorld, name: str, check: str, words: str) -> None:
    """Hash tiles of what is gone, and entries that are left, are compared with the signed root."""
    path = world.layout.directory / name
    data = bytearray(path.read_bytes())
    data[31] ^= 1
    path.write_bytes(data)

    assert words in differing(await world.verify())[check]


async def test_a_missing_hash_tile_of_what_is_gone(world: AuditWorld) -> None:
    """Hash tiles stay when entries go."""
    (world.layout.directory / "tile/0/001").unlink()

    assert "tile/0/001 is missing" == differing(await world.verify())["retention"]


@pytest.mark.parametrize("number", [512, 600, 802])
async def test_a_changed_row_of_what_is_left(world: AuditWorld, number: int) -> None:
    """Rows from the minimum index on are compared as ever."""
    stored = store_of(world).stored
    stored[number] = stored[number]._replace(chain=bytes(32))

    assert differing(await world.verify())["rows"].startswith(f"entry {number}:")


@pytest.mark.parametrize("damage", ["entries", "0"])
async def test_what_is_not_sound_is_not_cut(tmp_path: Path, damage: str) -> None:
    """Entries that are not what their hashes say stay, so that the difference can still be seen."""
    world = await grown(tmp_path)
    path = world.layout.directory / f"tile/{damage}/001"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    with pytest.raises(IntegrityError, match="nothing was dropped"):
        await cut(world)
    assert EVERYTHING == world.files.kept()
    assert (world.layout.directory / "tile/entries/000").exists()


@pytest.mark.parametrize("error", [CrashError, StoreUnavailableError], ids=["crash", "fault"])
async def test_a_fault_at_every_step_of_a_cut(tmp_path: Path, error: type[Exception]) -> None:
    """Whatever step dies, or fails after it was done, the log verifies; cutting again ends it, and the log goes on."""
    probe = Failing(-1, error)
    world = await grown(tmp_path / "points")
    world.begin(probe)
    await world.claim()
    await world.tell_of_cut()
    first = len(probe.points)
    await carry_out(world.files, store_of(world), 0, CUT, KEEP_DAYS)
    points = probe.points[first:]
    steps = {"rename minimum-index", "minimum index published", "drop bundle", "dropped bundle", "drop rows"}
    assert steps | {"dropped rows"} <= set(points)

    for at, point in enumerate(points):
        world = await grown(tmp_path / str(at))
        await world.tell_of_cut()
        world.begin(Failing(at, error))
        with pytest.raises(error):
            await carry_out(world.files, store_of(world), 0, CUT, KEEP_DAYS)
        report = await world.verify()
        assert report.ok, f"after a fault at {point}: {report.first_difference}"
        world.begin()
        await carry_out(world.files, store_of(world), 0, CUT, KEEP_DAYS)
        await world.claim()
        await world.grow(5)
        report = await world.verify()
        assert (True, CUT, 512) == (report.ok, report.minimum_index, store_of(world).first_row), point


async def test_a_lost_directory_of_a_cut_log(world: AuditWorld) -> None:
    """It can't be made again from rows that are gone: the log stays closed, and says what to restore."""
    shutil.rmtree(world.layout.directory)
    store_of(world).first_row = 16_384
    world.begin()

    with pytest.raises(IntegrityError, match=r"entry 0 is missing from the database.* where retention cut the log"):
        await world.claim()


def test_the_file_says_what_it_was_told() -> None:
    """What is written is read back, and nothing is a log that was never cut."""
    assert EVERYTHING == parse_kept(encode_kept(EVERYTHING))


async def test_the_true_border(tmp_path: Path) -> None:
    """Of 65,537 entries the first 65,536 may go, and the log goes on from what is left; of fewer none may."""
    whole = AuditWorld(tmp_path / "whole")
    await whole.claim()
    await whole.grow(32_766)

    for records, size, end in ((1, 65_535, 0), (2, 65_536, 0), (3, 65_537, 65_536)):
        world = await grown_by(whole, tmp_path / str(size), records)
        plan = plan_cut(world.files, size, LATER_MICROS, ())
        assert ((await world.store.state()).next_seq, plan.end) == (size, end)
    await cut(world, 0, end)
    for _ in range(2):
        world.begin()
        await world.claim()
        await world.grow(3)
    report = await world.verify()
    assert (True, 65_536) == (report.ok, report.minimum_index), report.first_difference


async def grown_by(whole: AuditWorld, folder: Path, records: int) -> AuditWorld:
    """A copy of a log, continued by so many records of one partition and their heads."""
    shutil.copytree(whole.layout.data, folder)
    world = AuditWorld(folder)
    entries = store_of(whole).stored
    # The entries themselves never change.
    world.store, world.offset = deepcopy(whole.store, {id(entries): [*entries]}), whole.offset
    world.begin()
    await world.claim()
    await world.sequencer.append(spans_of(world.offset, records)[:1])
    await world.publish()
    return world


async def test_the_public_files_of_a_cut_log(tmp_path: Path) -> None:
    """They verify from the minimum index on, beside checkpoints of before it; two histories are found there too."""
    world = await grown(tmp_path)
    roots = {at: root_at(at, world.files.nodes(SIZE)) for at in (100, 403, 700)}
    old = [sign_checkpoint(Checkpoint(world.signer.name, at, root), world.signer) for at, root in roots.items()]
    await cut(world)
    trust, log = Trust((world.signer.verifier,)), DirectoryLog(world.files)

    report, _ = await verify_public(log, trust, [(note.split("\n")[1], note) for note in old])
    assert ({}, CUT, SIZE + 2) == (differing(report), report.minimum_index, report.size)
    forged = sign_checkpoint(Checkpoint(world.signer.name, 100, bytes(32)), world.signer)
    report, _ = await verify_public(log, trust, [("seen", forged)])
    assert differing(report)["history"].startswith("two histories: the log's hashes do not give the root that seen has")
    (world.layout.directory / "minimum-index").unlink()
    report, _ = await verify_public(log, trust)
    assert "tile/entries/000 is missing" in differing(report)["entries"]


async def test_what_a_cut_log_can_no_longer_give(world: AuditWorld, tmp_path: Path) -> None:
    """No bundle holds all of a tenant, and no empty database is filled again; receipts of what is left are made."""
    trust, log = Trust((world.signer.verifier,)), DirectoryLog(world.files)
    note = await log.checkpoint() or ""

    with pytest.raises(IntegrityError, match="entries below 512 are gone by retention"):
        await export_tenant(log, trust, "tenant_1", tmp_path / "bundle", None, lambda _done, _total: None)
    with pytest.raises(IntegrityError, match="entries below 512 are gone by retention"):
        await rebuild(MemoryAuditStore(), log, note, trust, "test", None, lambda _done, _total: None)
    (built,) = await build_receipts(log, note, SIZE + 2, [CUT])
    assert verify_proof(parse_proof(built.data), trust).entry.seq == CUT
    with pytest.raises(IntegrityError, match="tile/entries/000 is missing"):
        await build_receipts(log, note, SIZE + 2, [7])
