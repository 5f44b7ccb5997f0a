"""Whatever is changed in files, lock store or rows, verification names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.entry import Entry, Head, decode_entry, encode_entry
from processors.audit.merkle import leaf_hash
from processors.audit.tiles import BUNDLE_LEVEL, TileId, decode_bundle, encode_bundle
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.verify import AuditReport
from tests.support.audit import PARTITIONS, AuditWorld

#: 2 partitions of 150 and 20 records, heads after each: a full tile, partial ones at every level; 5 are not published.
SIZE = 342


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log with an unpublished tail."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    await made.feed(2)
    return made


def store_of(world: AuditWorld) -> MemoryAuditStore:
    """The world's store, as its administrator sees it."""
    assert isinstance(world.store, MemoryAuditStore)
    return world.store


def differing(report: AuditReport) -> dict[str, str]:
    """Each red check's words."""
    return {check.name: check.first_difference or "" for check in report.checks if not check.ok}


def flip(path: Path, position: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the entries of a bundle."""
    path.write_bytes(encode_bundle(change(decode_bundle(path.read_bytes()))))


async def test_an_untouched_log_is_green(world: AuditWorld) -> None:
    """Nothing differs, published or not."""
    report = await world.verify()

    assert (True, {}, SIZE, SIZE + 5) == (report.ok, differing(report), report.size, report.sequenced)
    assert set(world.layout.directory.rglob("*.p")) == {
        world.layout.directory / name for name in ("tile/entries/001.p", "tile/0/001.p", "tile/1/000.p")
    }


async def test_an_empty_log_is_green(tmp_path: Path) -> None:
    """Before the first record there is nothing to differ."""
    report = await AuditWorld(tmp_path).verify()

    assert (True, 0) == (report.ok, report.size)


@pytest.mark.parametrize("number", [0, 130, 255])
async def test_a_flipped_bit_of_an_entry(world: AuditWorld, number: int) -> None:
    """The entry whose bytes changed is named, with its bundle."""
    path = world.layout.directory / "tile/entries/000"
    position = path.read_bytes().index(store_of(world).stored[number].entry) + 100
    flip(path, position)

    found = differing(await world.verify())
    assert found["entries"] == f"entry {number} (tile/entries/000) is not the entry whose hash was signed"
    assert "root" in found
    assert found["rows"].startswith(f"entry {number}:")


async def test_entries_reordered(world: AuditWorld) -> None:
    """Two entries that changed places are named by the first."""
    path = world.layout.directory / "tile/entries/000"
    rewrite(path, lambda entries: [*entries[:9], entries[10], entries[9], *entries[11:]])

    assert differing(await world.verify())["entries"] == "entry 9 (tile/entries/000) says that it is entry 10"


async def test_the_last_entries_dropped_from_a_bundle(world: AuditWorld) -> None:
    """A bundle with fewer entries than signed names the range."""
    rewrite(world.layout.directory / "tile/entries/001.p/86", lambda entries: entries[:-3])

    assert differing(await world.verify()) == {"entries": "tile/entries/001.p/86 (entries 256 to 341): has 83 entries"}


@pytest.mark.parametrize("name", ["tile/entries/000", "tile/entries/001.p/86"])
async def test_a_bundle_that_is_gone_or_junk(world: AuditWorld, name: str) -> None:
    """A missing bundle is named; so is one that can't be read."""
    path = world.layout.directory / name
    path.write_bytes(b"\xff\xff")
    assert name in differing(await world.verify())["entries"]
    path.unlink()
    assert "missing" in differing(await world.verify())["entries"]


@pytest.mark.parametrize(
    ("name", "position", "words"),
    [
        ("tile/0/000", 33, "tile/0/000 item 1 is not the hash of what it covers"),
        ("tile/0/001.p/86", 32 * 83, "tile/0/001.p/86 item 83 is not the hash of what it covers"),
        ("tile/1/000.p/1", 0, "tile/1/000.p/1 item 0 is not the hash of what it covers"),
    ],
)
async def test_a_flipped_bit_of_a_tile(world: AuditWorld, name: str, position: int, words: str) -> None:
    """The root says that the entries are right, so the tile is wrong, and which item."""
    flip(world.layout.directory / name, position)

    assert differing(await world.verify()) == {"tiles": words}


async def test_a_missing_tile(world: AuditWorld) -> None:
    """A tile that is gone is named."""
    (world.layout.directory / "tile/0/000").unlink()

    assert "tile/0/000 is missing" in differing(await world.verify())["tiles"]


@pytest.mark.parametrize("word", ["quaestor.local", "342", "\u2014 quaestor"])
async def test_a_changed_checkpoint(world: AuditWorld, word: str) -> None:
    """Origin, size or signature line changed: the checkpoint does not open."""
    path = world.layout.directory / "checkpoint"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(word, word.replace("a", "b").replace("342", "341").replace("\u2014", "-"), 1), "utf-8")

    assert "checkpoint" in differing(await world.verify())


async def test_a_changed_signature(world: AuditWorld) -> None:
    """One character of the signature: the checkpoint does not open, and the rest is still compared."""
    path = world.layout.directory / "checkpoint"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-20] + ("A" if text[-20] != "A" else "B") + text[-19:], "utf-8")

    assert list(differing(await world.verify())) == ["checkpoint"]


async def test_two_histories(world: AuditWorld) -> None:
    """Another root signed at the same size is not the one in the lock store, nor that of the entries."""
    note = sign_checkpoint(Checkpoint(world.signer.name, SIZE, bytes(32)), world.signer)
    (world.layout.directory / "checkpoint").write_text(note, "utf-8")

    found = differing(await world.verify())
    assert found["lock"] == "the lock store has another root at 342 entries than the published checkpoint"
    assert found["root"] == "the entries do not give the root signed at 342 entries"


async def test_a_lock_store_that_was_put_back(world: AuditWorld) -> None:
    """The lock store is never behind what was published."""
    world.layout.lock_file.unlink()

    assert differing(await world.verify()) == {"lock": "the lock store has 0 entries, the published checkpoint 342"}


@pytest.mark.parametrize("column", ["tenant_id", "tseq", "chain", "leaf", "entry", "topic", "partition", "offset"])
@pytest.mark.parametrize("number", [17, 300, 342])
async def test_a_changed_row(world: AuditWorld, column: str, number: int) -> None:
    """Each column of a published row, or one in the tail, is compared with the entry's own bytes."""
    stored = store_of(world).stored
    value = getattr(stored[number], column)
    other = {str: "other", int: 99_999, bytes: bytes(len(value)) if isinstance(value, bytes) else b""}[type(value)]
    stored[number] = stored[number]._replace(**{column: other})

    found = differing(await world.verify())
    assert found.get("rows", found.get("entries", "")).startswith(f"entry {number}")


@pytest.mark.parametrize(("column", "value"), [("event_id", "x"), ("request_id", "x"), ("amount_nano", -1)])
async def test_a_changed_public_column(world: AuditWorld, column: str, value: object) -> None:
    """Ids and amounts in columns are those of the entry."""
    stored = store_of(world).stored
    stored[17] = stored[17]._replace(**{column: value})

    words = f"entry 17: column {column} of its row is not what the entry says"
    assert differing(await world.verify()) == {"rows": words}


@pytest.mark.parametrize("number", [17, 339, 343])
async def test_a_deleted_row(world: AuditWorld, number: int) -> None:
    """A row that is gone is named."""
    store = store_of(world)
    del store.stored[number]

    assert differing(await world.verify())["rows"].startswith(f"entry {number}")


async def test_a_tail_cut_off(world: AuditWorld) -> None:
    """The last rows gone, and the log's counter put back with them: the heads still know."""
    store = store_of(world)
    del store.stored[-2:]
    store.log = type(store.log)(store.log.epoch, SIZE + 3, store.log.integrated_size, store.log.integrated_root)

    assert {"heads", "cursors"} <= set(differing(await world.verify()))


async def test_a_database_behind_the_checkpoint(world: AuditWorld) -> None:
    """A restored backup is called what it is."""
    store = store_of(world)
    del store.stored[200:]
    store.log = type(store.log)(store.log.epoch, 200, 200, bytes(32))

    assert differing(await world.verify())["rows"] == (
        "the database has 200 entries, the checkpoint 342: an older backup?"
    )


async def test_a_changed_head(world: AuditWorld) -> None:
    """A tenant's head is the end of its chain."""
    store_of(world).tenant_heads["tenant_1"] = Head(1, bytes(32))

    assert differing(await world.verify())["heads"].startswith("the chain of tenant_1")


async def test_a_changed_cursor(world: AuditWorld) -> None:
    """Cursors are where each partition's entries end."""
    store_of(world).positions[PARTITIONS[0]] = ("topic-uuid-of-budgets", 99)

    assert list(differing(await world.verify())) == ["cursors"]


def rewrite_history(world: AuditWorld, number: int, change: Callable[[Entry], Entry]) -> None:
    """As an administrator with all rights would: entry, row and tile changed together; only a signature is missing."""
    stored = store_of(world).stored
    entry = encode_entry(change(decode_entry(stored[number].entry)))
    stored[number] = stored[number]._replace(entry=entry, leaf=leaf_hash(entry))
    at, width = number % 256, min(SIZE - number // 256 * 256, 256)
    bundle, hashes = (TileId(level, number // 256, width).path for level in (BUNDLE_LEVEL, 0))
    rewrite(world.layout.directory / bundle, lambda old: [*old[:at], entry, *old[at + 1 :]])
    path = world.layout.directory / hashes
    tile = bytearray(path.read_bytes())
    tile[at * 32 : at * 32 + 32] = leaf_hash(entry)
    path.write_bytes(tile)


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (
            lambda entry: entry._replace(source=entry.source._replace(amount_nano=1)),
            "chains",
            "does not continue the chain of",
        ),
        (lambda entry: entry._replace(prev_chain=bytes(32)), "chains", "entry 40: does not continue the chain of"),
        (lambda entry: entry._replace(tseq=entry.tseq + 1), "chains", "entry 40: tenant_"),
        (lambda entry: entry._replace(source=entry.source._replace(offset=7_000)), "offsets", "entry 40: "),
        (lambda entry: entry._replace(source=entry.source._replace(tenant_id="other")), "chains", "entry 40: "),
    ],
    ids=["amount", "chain", "tseq", "offset", "tenant"],
)
async def test_history_rewritten_everywhere(
    world: AuditWorld, change: Callable[[Entry], Entry], check: str, words: str
) -> None:
    """Entry, row and tile changed together still do not give the signed root, and chain or offsets break too."""
    rewrite_history(world, 40, change)

    found = differing(await world.verify())
    assert found["root"] == "the entries do not give the root signed at 342 entries"
    assert words in found[check]


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"commitment": bytes(32)}, "tenants", "entry 341: does not commit to the chains of the 4 tenants before it"),
        ({"kind": "COMPLETED"}, "tenants", "entry 341: does not commit"),
        ({"time_micros": 1}, "clock", "entry 341: its time is before that of the heads entry before it"),
        ({"tenant_id": "tenant_1"}, "tenants", "the checkpoint of 342 entries does not end with a heads entry"),
    ],
    ids=["commitment", "kind", "clock", "tenant"],
)
async def test_heads_that_lie(world: AuditWorld, change: dict[str, object], check: str, words: str) -> None:
    """An entry that says where the tenants stand must say so truly, at a time that never goes back."""
    rewrite_history(world, 341, lambda entry: entry._replace(source=entry.source._replace(**change)))  # type: ignore[arg-type]

    assert differing(await world.verify())[check].startswith(words)


async def test_a_partial_tile_that_grew_long_ago(tmp_path: Path) -> None:
    """A partial tile is compared at the published size, also when no entry of the last ones is under it."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(2_047, 3)
    flip(world.layout.directory / "tile/1/000.p/16", 0)

    assert {"tiles": "tile/1/000.p/16 item 0 is not the hash of what it covers"} == differing(await world.verify())
