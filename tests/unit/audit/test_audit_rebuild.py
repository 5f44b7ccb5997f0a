"""A lost or older database is put back from the log's own files, and only from what was signed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from processors.audit.entry import Head
from processors.audit.trust import Trust
from schemas.errors import IntegrityError, StoreUnavailableError
from sinks.audit.memory import MemoryAuditStore
from sinks.audit.reader import DirectoryLog
from sinks.audit.rebuild import Rebuilt, rebuild
from sinks.audit.store import AuditStore
from tests.support.audit import PARTITIONS, AuditWorld

SIZE = 342


@pytest.fixture
async def world(tmp_path: Path) -> AuditWorld:
    """A published log."""
    made = AuditWorld(tmp_path)
    await made.claim()
    await made.grow(150, 20)
    return made


def store_of(world: AuditWorld) -> MemoryAuditStore:
    """The rows."""
    assert isinstance(world.store, MemoryAuditStore)
    return world.store


async def put_back(world: AuditWorld, store: AuditStore) -> Rebuilt:
    """Rebuild into this database."""
    trust, log = Trust((world.signer.verifier,)), DirectoryLog(world.files)
    return await rebuild(store, log, world.lock.latest(), trust, "test", None, lambda _done, _total: None)


async def go_on(world: AuditWorld, store: MemoryAuditStore) -> None:
    """A new process on the rebuilt database enters what Kafka has beyond the signed log."""
    world.store = store
    world.begin()
    world.offset = (await store.cursors())[PARTITIONS[0]]
    await world.claim()
    await world.grow(30)


async def test_a_lost_database_is_put_back(world: AuditWorld) -> None:
    """Rows, heads and cursors are those that were lost, and the log goes on without a fork."""
    lost, store = store_of(world), MemoryAuditStore()
    done = await put_back(world, store)

    assert (0, SIZE, SIZE) == (done.kept, done.added, done.signed.size)
    assert (lost.stored, lost.tenant_heads) == (store.stored, store.tenant_heads)
    assert {at: cursor for at, cursor in lost.positions.items() if cursor[1]} == store.positions
    assert (SIZE, SIZE, done.signed.root) == (store.log.next_seq, store.log.integrated_size, store.log.integrated_root)
    assert {SIZE: world.lock.latest()} == store.notes
    await go_on(world, store)
    report = await world.verify()
    assert (True, SIZE + 61) == (report.ok, report.size), report.first_difference


async def test_an_older_backup_is_completed(world: AuditWorld) -> None:
    """What it has stays, what was signed behind it is added; entries that nobody signed are entered anew."""
    backup = copy.deepcopy(store_of(world))
    await world.grow(70, 9)
    await world.feed(4)
    done = await put_back(world, backup)

    assert (SIZE, 141 + 19) == (done.kept, done.added)
    await go_on(world, backup)
    report = await world.verify()
    assert (True, SIZE + 160 + 61) == (report.ok, report.size), report.first_difference


async def test_a_whole_database_stays_as_it_is(world: AuditWorld) -> None:
    """Nothing lacks: nothing is written, nobody is fenced."""
    await world.feed(4)
    done = await put_back(world, world.store)

    assert (SIZE + 9, 0) == (done.kept, done.added)
    await world.feed(1)


async def test_a_rebuild_that_was_interrupted_goes_on(world: AuditWorld) -> None:
    """Its transactions are whole: the next run finds an older backup."""
    await world.grow(4_000, 1_000)

    def failing(point: str) -> None:
        if point == "append" and store.stored:
            raise StoreUnavailableError

    store = MemoryAuditStore(failing)
    with pytest.raises(StoreUnavailableError):
        await put_back(world, store)
    assert 0 < len(store.stored) < len(store_of(world).stored)
    store.probe = lambda _point: None
    await put_back(world, store)

    assert (store_of(world).stored, store_of(world).tenant_heads) == (store.stored, store.tenant_heads)


async def test_what_was_signed_and_not_published_is_put_back_too(world: AuditWorld) -> None:
    """A crash between the lock store and the public file: the lock store's checkpoint is the log's."""
    path = world.layout.directory / "checkpoint"
    before = path.read_text("utf-8")
    await world.grow(5)
    path.write_text(before, "utf-8")
    store = MemoryAuditStore()

    assert (SIZE + 11) == (await put_back(world, store)).added


def flip(path: Path, position: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["tile/entries/000", "tile/entries/001.p/86", "tile/0/000", "tile/1/000.p/1"])
async def test_files_that_do_not_give_the_signed_root_are_refused(world: AuditWorld, name: str) -> None:
    """Nothing at all is written from a log that was changed."""
    flip(world.layout.directory / name, 20)
    store = MemoryAuditStore()
    with pytest.raises(IntegrityError, match="the log's files are not what was signed"):
        await put_back(world, store)

    assert (0, []) == (store.log.epoch, store.stored)


def other_row(store: MemoryAuditStore) -> None:
    """A row that was never signed."""
    store.stored[40] = store.stored[40]._replace(leaf=bytes(32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_row, "row 40 of the database is not the entry that was signed there"),
        (lambda store: store.stored.pop(), "row 341 of the database is not the entry"),
        (lambda store: store.tenant_heads.update(tenant_1=Head(3, bytes(32))), "heads are not those of its rows"),
    ],
)
async def test_a_database_with_another_history_is_refused(
    world: AuditWorld, change: Callable[[MemoryAuditStore], None], words: str
) -> None:
    """What is there must be the beginning of the signed log; it is never overwritten."""
    backup = copy.deepcopy(store_of(world))
    change(backup)
    await world.grow(70)
    before = copy.deepcopy(backup.stored)
    with pytest.raises(IntegrityError, match=words):
        await put_back(world, backup)

    assert (before, 1) == (backup.stored, backup.log.epoch)


async def test_nothing_signed_nothing_rebuilt(tmp_path: Path) -> None:
    """Without a checkpoint there is no telling what the log was."""
    with pytest.raises(IntegrityError, match="nothing was ever signed"):
        await put_back(AuditWorld(tmp_path), MemoryAuditStore())


async def test_a_lock_store_of_another_history_is_refused(world: AuditWorld) -> None:
    """Two checkpoints of one key that do not fit: no rebuild decides between them."""
    other = AuditWorld(world.layout.data / "other")
    other.layout.key_file.write_bytes(world.layout.key_file.read_bytes())
    other.begin()
    await other.claim()
    await other.grow(3, 200)
    world.layout.lock_file.write_bytes(other.layout.lock_file.read_bytes())
    with pytest.raises(IntegrityError, match="not what was signed"):
        await put_back(world, MemoryAuditStore())
