"""What every store of budget snapshots keeps, in memory and in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from schemas.errors import FencedError, IntegrityError
from schemas.limits import SNAPSHOT_CHUNK_BYTES
from sinks.postgres.snapshots import PostgresSnapshots
from sinks.redis.snapshots import MemorySnapshots, Minute, Snapshot, SnapshotStore, digest_of_chunk
from tests.support.databases import postgres_databases

TOPIC = "topic-1"


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[SnapshotStore]:
    """Each store in turn, empty."""
    if request.param == "memory":
        yield MemorySnapshots()
        return
    made = PostgresSnapshots(await postgres_databases().emptied("snapshots"))
    yield made
    await made.close()


def snapshot(cursor: int, *chunks: bytes, partition: int = 3, topic_id: str = TOPIC) -> Snapshot:
    """One of the first chunk for its tenants, and one minute with the others."""
    digests = tuple(map(digest_of_chunk, chunks))
    return Snapshot(partition, topic_id, cursor, (1, 2), digests[:1], (Minute("019a0000", digests[1:], 7),), 5)


def named(*chunks: bytes) -> dict[str, bytes]:
    """Chunks by their digests."""
    return {digest_of_chunk(chunk): chunk for chunk in chunks}


async def test_what_is_kept_is_given_back(store: SnapshotStore) -> None:
    """Every field of it, and its chunks, byte for byte."""
    kept = snapshot(10, b"tenants", b"\0" * SNAPSHOT_CHUNK_BYTES)
    await store.put(kept, 1, named(b"tenants", b"\0" * SNAPSHOT_CHUNK_BYTES))

    assert await store.newest(3, TOPIC) == [kept]
    assert await store.chunks(3, list(kept.chunks)) == [b"tenants", b"\0" * SNAPSHOT_CHUNK_BYTES]


async def test_the_newest_two_are_kept(store: SnapshotStore) -> None:
    """In the order of their cursors, the newest first."""
    for cursor in (10, 20, 30):
        await store.put(snapshot(cursor, b"a"), 1, named(b"a"))

    assert [each.cursor for each in await store.newest(3, TOPIC)] == [30, 20]


async def test_a_chunk_that_is_kept_need_not_be_given_again(store: SnapshotStore) -> None:
    """What did not change since the snapshot before is written once."""
    await store.put(snapshot(10, b"a", b"minute"), 1, named(b"a", b"minute"))
    await store.put(snapshot(20, b"b", b"minute"), 1, named(b"b"))

    assert await store.chunks(3, [digest_of_chunk(b"minute")]) == [b"minute"]


async def test_a_chunk_nobody_needs_goes(store: SnapshotStore) -> None:
    """With the last of the two snapshots that has it."""
    for cursor, body in ((10, b"a"), (20, b"b"), (30, b"c")):
        await store.put(snapshot(cursor, body), 1, named(body))

    with pytest.raises(IntegrityError):
        await store.chunks(3, [digest_of_chunk(b"a")])
    assert await store.chunks(3, [digest_of_chunk(b"b")]) == [b"b"]


async def test_a_snapshot_without_one_of_its_chunks_is_refused(store: SnapshotStore) -> None:
    """And nothing of it is kept."""
    with pytest.raises(IntegrityError):
        await store.put(snapshot(10, b"a", b"missing"), 1, named(b"a"))

    assert await store.newest(3, TOPIC) == []


async def test_an_owner_of_before_is_fenced(store: SnapshotStore) -> None:
    """Whatever its cursor says."""
    await store.put(snapshot(10, b"a"), 2, named(b"a"))
    with pytest.raises(FencedError):
        await store.put(snapshot(20, b"b"), 1, named(b"b"))

    assert [each.cursor for each in await store.newest(3, TOPIC)] == [10]


async def test_the_same_again_replaces_it(store: SnapshotStore) -> None:
    """Another owner may take one at the same cursor."""
    await store.put(snapshot(10, b"a"), 1, named(b"a"))
    await store.put(snapshot(10, b"b"), 2, named(b"b"))

    assert [list(each.chunks) for each in await store.newest(3, TOPIC)] == [list(named(b"b"))]


async def test_partitions_know_nothing_of_each_other(store: SnapshotStore) -> None:
    """Neither of snapshots nor of chunks."""
    await store.put(snapshot(10, b"a"), 9, named(b"a"))
    await store.put(snapshot(5, b"a", partition=4), 1, named(b"a"))

    assert [each.cursor for each in await store.newest(4, TOPIC)] == [5]
    with pytest.raises(IntegrityError):
        await store.chunks(5, [digest_of_chunk(b"a")])


async def test_those_of_a_topic_that_was_re_created_go(store: SnapshotStore) -> None:
    """They are no snapshots of this log, and their higher cursors count for nothing."""
    await store.put(snapshot(1_000, b"a"), 1, named(b"a"))
    await store.put(snapshot(5, b"b", topic_id="topic-2"), 2, named(b"b"))

    assert await store.newest(3, TOPIC) == []
    assert [each.cursor for each in await store.newest(3, "topic-2")] == [5]


async def test_a_damaged_chunk_is_noticed() -> None:
    """Its name is what it must be."""
    store = MemorySnapshots()
    await store.put(snapshot(10, b"a"), 1, named(b"a"))
    store.bodies = dict.fromkeys(store.bodies, b"b")

    with pytest.raises(IntegrityError):
        await store.chunks(3, [digest_of_chunk(b"a")])


async def test_postgres_notices_a_damaged_manifest_and_chunk() -> None:
    """Whatever wrote to the tables: the snapshot is passed over, the chunk is refused."""
    dsn = await postgres_databases().emptied("snapshots")
    store = PostgresSnapshots(dsn)
    for cursor, body in ((10, b"a"), (20, b"b")):
        await store.put(snapshot(cursor, body), 1, named(body))
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE quaestor.budget_snapshot SET manifest = manifest || '\\x00' WHERE log_offset = 20")
    await connection.execute("UPDATE quaestor.budget_snapshot_chunk SET body = 'c' WHERE body = 'a'")
    await connection.close()

    assert [each.cursor for each in await store.newest(3, TOPIC)] == [10]
    with pytest.raises(IntegrityError):
        await store.chunks(3, [digest_of_chunk(b"a")])
    await store.close()
