"""What a starting log refuses, and what it mends: backups, lost stores, foreign keys, lost tiles, two owners."""

from __future__ import annotations

import fcntl
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from processors.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from processors.audit.entry import (
    KIND_HEADS,
    MAGIC_UNSALTED,
    NO_HEAD,
    Entry,
    Head,
    Sealed,
    chain_hash,
    decode_entry,
    encode_entry,
)
from processors.audit.merkle import leaf_hash
from schemas.errors import ConfigurationError, FencedError, GapError, IntegrityError, StoreUnavailableError
from sinks.audit.files import LogFiles, write_durable
from sinks.audit.keys import load_or_make_signer, load_signer
from sinks.audit.lock import FileLockStore, MemoryLockStore
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.publisher import Publisher
from sinks.audit.sequencer import Sequencer
from sinks.audit.store import CursorMove
from tests.support.audit import PARTITIONS, SALTS, TOPIC_ID, AuditWorld, spans_of


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log of 300 records and their heads entry."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150)
    return made


def store_of(world: AuditWorld) -> MemoryAuditStore:
    """The world's store."""
    assert isinstance(world.store, MemoryAuditStore)
    return world.store


def restore_backup(store: MemoryAuditStore, size: int) -> None:
    """Put the database back to where it was at a size."""
    del store.stored[size:]
    store.log = replace(store.log, next_seq=size, integrated_size=min(size, store.log.integrated_size))


async def test_a_restored_backup_is_refused(world: AuditWorld) -> None:
    """A database behind the last signed checkpoint does not run, and is told what to do."""
    restore_backup(store_of(world), 299)
    world.begin()

    with pytest.raises(IntegrityError, match=r"has 299 audit entries, but a checkpoint over 301 was signed.*Restore"):
        await world.publisher.check(await world.store.state())
    with pytest.raises(IntegrityError, match="older backup"):
        await world.claim()


async def test_a_database_that_went_another_way_is_refused(world: AuditWorld) -> None:
    """As many entries as signed, but others: the log stays closed."""
    store = store_of(world)
    restore_backup(store, 280)
    await Sequencer(store, SALTS, "other").claim({})
    store.positions = dict.fromkeys(PARTITIONS, (TOPIC_ID, 140))
    await world.sequencer.claim({})
    for span in spans_of(140, 20):
        span.records.reverse()
        await world.sequencer.append([span])
    world.begin()

    with pytest.raises(IntegrityError, match="do not give the root"):
        await world.claim()


async def test_a_lost_lock_store_is_refused(world: AuditWorld) -> None:
    """Published beyond what the lock store knows: someone must look first."""
    world.layout.lock_file.unlink()
    world.begin()

    with pytest.raises(IntegrityError, match="lock store was lost or put back"):
        await world.claim()


async def test_a_foreign_key_is_refused(world: AuditWorld) -> None:
    """A log is never continued under another key."""
    world.layout.key_file.unlink()
    world.begin()

    with pytest.raises(ConfigurationError, match=r"restore secrets/audit\.key"):
        await world.claim()


async def test_lost_tiles_are_made_again(world: AuditWorld) -> None:
    """With the directory gone, the same tiles come out of the rows, under the same checkpoint."""
    before = (await world.verify()).root
    shutil.rmtree(world.layout.directory)
    world.begin()
    await world.claim()

    report = await world.verify()
    assert (True, before, 301) == (report.ok, report.root, report.size)


async def test_a_damaged_edge_is_refused(world: AuditWorld) -> None:
    """The tiles that would be grown from must give the root that the database has."""
    path = world.layout.directory / "tile/1/000.p/1"
    path.write_bytes(bytes(32))
    world.begin()

    with pytest.raises(IntegrityError, match=r"move that directory away"):
        await world.claim()


async def test_a_crash_between_lock_and_publication_is_finished(world: AuditWorld) -> None:
    """What was signed and locked, but not published, is published at the next start."""
    older = world.files.checkpoint()
    await world.grow(10)
    newest = world.files.checkpoint()
    assert older is not None
    world.files.publish(older)
    world.begin()
    await world.claim()

    assert newest == world.files.checkpoint()


async def test_a_row_changed_before_integration_stops_the_log(world: AuditWorld) -> None:
    """What is put into tiles is checked against what was sequenced."""
    await world.feed(5)
    stored = store_of(world).stored
    stored[305] = stored[305]._replace(entry=stored[304].entry)
    world.publisher._recent.clear()

    with pytest.raises(IntegrityError, match="row 305"):
        await world.publish()


async def test_tiles_hold_what_was_sequenced_whatever_the_rows_say(world: AuditWorld) -> None:
    """Entries just committed are integrated from memory, so that a row changed meanwhile shows in verification."""
    await world.feed(5)
    stored = store_of(world).stored
    stored[305] = stored[305]._replace(entry=stored[304].entry)
    await world.publish()

    report = await world.verify()
    assert ["rows"] == [check.name for check in report.checks if not check.ok]
    assert (report.first_difference or "").startswith("entry 305")


async def test_a_full_tile_under_a_signature_is_never_overwritten(world: AuditWorld) -> None:
    """Other bytes where a checkpoint covers them are a fault; a leftover beyond it is replaced."""
    files = LogFiles(world.layout.directory)
    tile, data = next(iter(world.publisher._edge.grow([b"x"] * 300)[1]))
    files.write([(tile, data)], 300)
    files.write([(tile, data + b"leftover")], 300)
    covered = tile._replace(number=0)

    with pytest.raises(IntegrityError, match="signed checkpoint covers it"):
        files.write([(covered, data)], 300)


async def test_two_sequencers_one_is_fenced(world: AuditWorld) -> None:
    """After a second one claims, the first neither enters nor integrates nor forks; the log goes on and verifies."""
    await world.feed(10)
    second = Sequencer(world.store, SALTS, "second")
    publisher = Publisher(world.store, world.files, world.lock, world.ring)
    await publisher.open(await second.claim(dict.fromkeys(PARTITIONS, TOPIC_ID)))
    with pytest.raises(FencedError):
        await world.sequencer.append(spans_of(160, 5))
    with pytest.raises(FencedError):
        await world.publisher.integrate()
    await second.append(spans_of(160, 5))
    await publisher.integrate()
    await publisher.publish()

    report = await world.verify()
    assert (True, 333) == (report.ok, report.size)


async def taken_over(world: AuditWorld) -> tuple[Sequencer, Publisher]:
    """The owner after one that integrated and did not sign."""
    await world.feed(10)
    await world.publisher.integrate()
    second = Publisher(world.store, world.files, world.lock, world.ring)
    sequencer = Sequencer(world.store, SALTS, "second")
    await second.open(await sequencer.claim(dict.fromkeys(PARTITIONS, TOPIC_ID)))
    return sequencer, second


async def test_a_late_signature_of_the_owner_before_us_is_adopted(world: AuditWorld) -> None:
    """The first signs what it had integrated after the second has looked: the second goes on from there."""
    sequencer, second = await taken_over(world)
    await world.publisher.publish()
    await sequencer.append(spans_of(160, 5))
    await second.integrate()
    await second.publish()

    report = await world.verify()
    assert (True, 333) == (report.ok, report.size)


async def test_one_that_wakes_up_after_its_successor_signed_is_fenced(world: AuditWorld) -> None:
    """Frozen between its tiles and its signature, it finds a longer log signed: of its successor, not of a stranger."""
    sequencer, second = await taken_over(world)
    await sequencer.append(spans_of(160, 5))
    await second.integrate()
    await second.publish()

    with pytest.raises(FencedError):
        await world.publisher.publish()


async def test_a_foreign_history_in_the_lock_store_stops_the_log(world: AuditWorld) -> None:
    """A checkpoint of our key but another tree in the lock store: never sign over it."""
    latest = world.lock.latest()
    forged = sign_checkpoint(Checkpoint(world.signer.name, 301, bytes(32)), world.signer)
    assert world.lock.swap(latest, forged)
    await world.feed(5)
    await world.publisher.integrate()

    with pytest.raises(IntegrityError, match="another history"):
        await world.publisher.publish()


def test_a_lock_that_a_frozen_process_holds_is_told(tmp_path: Path) -> None:
    """Nobody can take it from a process that lives; who waits for it says so instead of waiting in silence."""
    lock = FileLockStore(tmp_path / "checkpoint", held_seconds=0.1)
    assert lock.swap(None, "one")

    with (tmp_path / "checkpoint.lock").open("ab") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailableError, match="stands still"):
            lock.swap("one", "two")

    assert lock.swap("one", "two")


async def test_a_gap_is_refused_and_names_the_cursor(world: AuditWorld) -> None:
    """A batch that begins above the cursor is refused."""
    with pytest.raises(GapError) as refused:
        await world.sequencer.append(spans_of(151, 1))

    assert (150, 151) == (refused.value.cursor, refused.value.first_offset)


async def test_what_was_entered_is_not_entered_again(world: AuditWorld) -> None:
    """A repeated batch, whole or in part, adds only what is new."""
    assert await world.sequencer.append(spans_of(0, 150)) == 0
    assert await world.sequencer.append(spans_of(140, 12)) == 4


async def test_a_recreated_topic_is_refused(world: AuditWorld) -> None:
    """Cursors of an earlier topic of the same name are never taken for the new one's."""
    with pytest.raises(IntegrityError, match="topic-uuid"):
        await world.sequencer.claim({PARTITIONS[0]: "another"})


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600, the same key afterwards, and refused when others may read it or it is damaged."""
    path = tmp_path / "secrets" / "audit.key"
    signer = load_or_make_signer(path, "origin")
    assert signer == load_or_make_signer(path, "origin")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_signer(path, "origin")
    path.chmod(0o600)
    path.write_text("junk")
    with pytest.raises(ConfigurationError, match="damaged"):
        load_signer(path, "origin")
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_signer(tmp_path / "none", "origin")


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_the_lock_store_compares_and_sets(tmp_path: Path, kind: str) -> None:
    """Only who knows what stands there may replace it."""
    lock = FileLockStore(tmp_path / "lock" / "log.checkpoint") if kind == "file" else MemoryLockStore()

    assert lock.latest() is None
    assert lock.swap(None, "one")
    assert not lock.swap(None, "two")
    assert not lock.swap("two", "three")
    assert lock.swap("one", "two")
    assert lock.latest() == "two"


def test_a_disk_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A folder that can't be made is StoreUnavailableError, not the end."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        LogFiles(tmp_path / "file" / "log").publish("note\n")


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    """What fails before the rename leaves the old file."""
    path = tmp_path / "checkpoint"
    write_durable(path, b"old")

    def dying(point: str) -> None:
        if point.startswith("rename "):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_durable(path, b"new", dying)
    assert path.read_bytes() == b"old"


async def test_every_checkpoint_is_kept(world: AuditWorld) -> None:
    """The database keeps each published checkpoint, for consistency between any two."""
    await world.grow(10, 10)

    kept = await world.store.checkpoints()
    assert [301, 322, 343] == [open_checkpoint(note, world.signer.verifier).size for note in kept.values()]


async def test_a_clock_that_goes_back_does_not_take_the_log_with_it(tmp_path: Path) -> None:
    """Heads keep the latest time they had, within a process and in the next one."""
    world = AuditWorld(tmp_path)
    await world.claim()
    times = iter([50.0, 20.0])
    world.sequencer = Sequencer(world.store, SALTS, "test", world.publisher.offer, lambda: next(times))
    await world.claim()
    await world.grow(1, 1)
    world.begin()
    world.sequencer = Sequencer(world.store, SALTS, "next", world.publisher.offer, lambda: 30.0)
    await world.claim()
    await world.grow(1)

    entries = [decode_entry(row.entry) for row in store_of(world).stored]
    assert [50_000_000] * 3 == [each.source.time_micros for each in entries if each.source.kind == KIND_HEADS]
    assert (await world.verify()).ok


async def test_a_log_of_before_heads_is_continued(tmp_path: Path) -> None:
    """Its last signed checkpoint stands, heads are entered first, and all of it verifies."""
    world = AuditWorld(tmp_path)
    await world.claim()
    await world.grow(5)
    store = store_of(world)
    old = [decode_entry(row.entry) for row in store.stored if row.event_id or row.topic]
    world = AuditWorld(tmp_path / "old")
    await world.claim()
    entered, heads = list[Sealed](), dict[str, Head]()
    for entry in old:
        tseq, chain = heads.get(entry.source.tenant_id, NO_HEAD)
        data = encode_entry(Entry(len(entered), tseq + 1, chain, entry.source, MAGIC_UNSALTED))
        heads[entry.source.tenant_id] = Head(tseq + 1, chain_hash(chain, leaf_hash(data)))
        head = heads[entry.source.tenant_id]
        entered.append(Sealed(len(entered), head.tseq, head.chain, leaf_hash(data), data, entry.source))
    moves = [CursorMove(partition, TOPIC_ID, 0, 5) for partition in PARTITIONS]
    await world.store.append((await world.store.state()).epoch, entered, heads, moves)
    await world.publish()
    assert (await world.verify()).size == 0

    world.begin()
    world.offset = 5
    await world.claim()
    await world.grow(2)

    report = await world.verify()
    assert (True, 10 + 1 + 4 + 1) == (report.ok, report.size), report.first_difference
