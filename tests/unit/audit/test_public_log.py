"""A whole log verified from its public files alone: whatever is changed in them is found, each in words of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from processors.audit.edge import TreeEdge
from processors.audit.entry import decode_entry, encode_entry
from processors.audit.note import Signer, parse_note
from processors.audit.tiles import BUNDLE_LEVEL, decode_bundle, tiles_of
from processors.audit.trust import Trust
from sinks.audit.reader import DirectoryLog
from sinks.audit.verify import AuditReport
from sinks.audit.verify_public import verify_public
from tests.support.audit import ORIGIN, AuditWorld

#: 2 partitions of 150 and 20 records, heads after each.
SIZE = 342


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    return made


async def check(world: AuditWorld, *earlier: str) -> AuditReport:
    """What somebody with the files and the public key finds."""
    named = [(f"seen {number}", note) for number, note in enumerate(earlier)]
    report, _ = await verify_public(DirectoryLog(world.files), Trust((world.signer.verifier,)), named)
    return report


def differing(report: AuditReport) -> dict[str, str]:
    """Each red check's words."""
    return {each.name: each.first_difference or "" for each in report.checks if not each.ok}


def entries_of(world: AuditWorld) -> list[bytes]:
    """Every published entry, from the files."""
    size = parse_checkpoint(parse_note(published(world))[0]).size
    return [entry for tile in tiles_of(BUNDLE_LEVEL, size) for entry in decode_bundle(world.files.read(tile))]


def published(world: AuditWorld) -> str:
    """The checkpoint file."""
    return (world.layout.directory / "checkpoint").read_text("utf-8")


def serve(world: AuditWorld, entries: list[bytes], signer: Signer | None = None) -> str:
    """Put a log of these entries in place of the world's, signed; its checkpoint."""
    signer = signer or world.signer
    edge, files = TreeEdge().grow(entries)
    for tile, data in files:
        path = world.layout.directory / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    note = sign_checkpoint(Checkpoint(signer.name, edge.size, edge.root()), signer)
    (world.layout.directory / "checkpoint").write_text(note, "utf-8")
    return note


async def test_an_untouched_log_passes(world: AuditWorld) -> None:
    """Also beside every checkpoint that it published before."""
    first = published(world)
    await world.grow(40)
    second = published(world)
    await world.grow(300)

    report = await check(world, first, second, published(world))
    assert ({}, SIZE + 81 + 601, 4) == (differing(report), report.size, report.tenants)


@pytest.mark.parametrize(
    ("name", "position", "kind", "words"),
    [
        ("tile/entries/000", 2, "entries", "entry 0 (tile/entries/000): the bytes do not begin as an entry"),
        ("tile/entries/000", 160, "entries", "entry 0 (tile/entries/000)"),
        ("tile/entries/001.p/86", 11, "entries", "entry 256 (tile/entries/001) says that it is entry "),
        ("tile/0/000", 32 * 17, "tiles", "tile/0/000 item 17 is not the hash of what it covers"),
        ("tile/0/001.p/86", 3, "tiles", "tile/0/001.p/86 item 0 is not the hash of what it covers"),
        ("tile/1/000.p/1", 31, "tiles", "tile/1/000.p/1 item 0 is not the hash of what it covers"),
        ("checkpoint", 3, "checkpoint", "checkpoint: "),
        ("checkpoint", 27, "checkpoint", "checkpoint: the signature of quaestor.local/audit/test is wrong"),
        ("checkpoint", 40, "checkpoint", "checkpoint: the signature of quaestor.local/audit/test is wrong"),
        ("checkpoint", -9, "checkpoint", "checkpoint: "),
    ],
)
async def test_a_flipped_bit(world: AuditWorld, name: str, position: int, kind: str, words: str) -> None:
    """Entry, tile, checkpoint and signature: what was changed is named."""
    path = world.layout.directory / name
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)

    assert differing(await check(world))[kind].startswith(words)


@pytest.mark.parametrize("number", [130, SIZE - 1])
async def test_every_byte_of_an_entry_counts(world: AuditWorld, number: int) -> None:
    """Whichever byte is flipped, the entry is named."""
    tile = next(tile for tile in tiles_of(BUNDLE_LEVEL, SIZE) if tile.number == number // 256)
    path, entry = world.layout.directory / tile.path, entries_of(world)[number]
    sound = path.read_bytes()
    start = sound.index(entry)
    for position in range(start, start + len(entry)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 4]) + sound[position + 1 :])
        assert f"entry {number} " in differing(await check(world))["entries"]


def swapped(entries: list[bytes]) -> list[bytes]:
    """Two tenants' entries in each other's places."""
    return [*entries[:8], entries[9], entries[8], *entries[10:]]


def renumbered(entries: list[bytes]) -> list[bytes]:
    """The same, each saying that it is where it is."""
    decoded = [decode_entry(entry) for entry in swapped(entries)]
    return [encode_entry(entry._replace(seq=number)) for number, entry in enumerate(decoded)]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda entries: entries[:-9], "tenants", "the checkpoint of 333 entries does not end with a heads entry"),
        (lambda entries: entries[1:], "entries", "entry 0 (tile/entries/000) says that it is entry 1"),
        (
            lambda entries: entries[:40] + entries[41:],
            "entries",
            "entry 40 (tile/entries/000) says that it is entry 41",
        ),
        (swapped, "entries", "entry 8 (tile/entries/000) says that it is entry 9"),
        (renumbered, "chains", "entry 11: does not continue the chain of tenant_2 after its entry 3"),
    ],
    ids=["last", "first", "middle", "swapped", "renumbered"],
)
async def test_a_signed_log_that_is_wrong(
    world: AuditWorld, change: Callable[[list[bytes]], list[bytes]], kind: str, words: str
) -> None:
    """Whoever has the key can sign anything; entries that were dropped or moved are found all the same."""
    serve(world, change(entries_of(world)))

    assert differing(await check(world))[kind].startswith(words)


async def test_a_log_that_went_back(world: AuditWorld) -> None:
    """Its last entries dropped and an older checkpoint served: who remembers a newer one is told."""
    old = published(world)
    await world.grow(30)
    newer = published(world)
    (world.layout.directory / "checkpoint").write_text(old, "utf-8")
    serve(world, entries_of(world))

    assert differing(await check(world, newer)) == {
        "history": "the log went back: seen 0 was signed over 403 entries, this one over 342"
    }


@pytest.mark.parametrize("grown", [0, 30])
async def test_two_histories(world: AuditWorld, grown: int) -> None:
    """Another log under the same key and name, as long or longer: the two checkpoints are the proof."""
    entries = entries_of(world)
    other = encode_entry(decode_entry(entries[-1])._replace(prev_chain=bytes(32)))
    mine = published(world)
    theirs = serve(world, [*entries[:-1], other])
    serve(world, entries)
    if grown:
        await world.grow(grown)

    assert differing(await check(world, mine)) == {}
    words = differing(await check(world, theirs))["history"]
    assert words.startswith("two histories: ")
    assert "seen 0" in words


async def test_a_checkpoint_of_somebody_else(world: AuditWorld) -> None:
    """What is compared with must be signed by the log's key."""
    stranger = Signer(ORIGIN, bytes(32))
    foreign = sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), stranger)

    assert differing(await check(world, foreign)) == {"history": "seen 0: no known key signed the note"}


async def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    """An empty directory is not a log that passes."""
    assert "checkpoint" in differing(await check(AuditWorld(tmp_path)))
