"""Snapshots of live budgets in Postgres: manifests, and chunks that several of them share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
import structlog

from schemas.errors import FencedError, IntegrityError
from sinks.postgres import snapshot_queries as queries
from sinks.postgres.quarantine import Pooled
from sinks.redis.keys import PROJECTION, Names
from sinks.redis.snapshots import KEPT, Snapshot, SnapshotStore, checked

log = structlog.get_logger()


class PostgresSnapshots(Pooled, SnapshotStore):
    """SnapshotStore for the Redis sink. Raises StoreUnavailableError."""

    def __init__(self, dsn: str, projection: str = PROJECTION) -> None:
        """Connects at first use; `projection` is redis@v<number>, whose snapshots no other version looks at."""
        super().__init__(dsn)
        self._projection = Names(projection).budgets

    async def newest(self, partition: int, topic_id: str) -> list[Snapshot]:
        """As the seam says."""
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.NEWEST, self._projection, partition, topic_id)
        found = []
        for row in rows:
            try:
                found.append(_snapshot(row["manifest"], row["digest"]))
            except (IntegrityError, msgspec.DecodeError) as error:
                log.warning("snapshot_not_readable", partition=partition, offset=row["log_offset"], detail=str(error))
        return found

    async def chunks(self, partition: int, digests: Sequence[str]) -> list[bytes]:
        """As the seam says."""
        names = [bytes.fromhex(digest) for digest in digests]
        async with self._transaction() as connection:
            rows = await connection.fetch(queries.CHUNKS, self._projection, partition, names)
        bodies = {bytes(row["digest"]).hex(): bytes(row["body"]) for row in rows}
        return [checked(digest, bodies.get(digest)) for digest in digests]

    async def put(self, snapshot: Snapshot, epoch: int, chunks: Mapping[str, bytes]) -> None:
        """As the seam says."""
        partition, manifest = snapshot.partition, msgspec.msgpack.encode(snapshot)
        used = sorted({bytes.fromhex(digest) for digest in snapshot.chunks})
        async with self._transaction() as connection:
            await connection.execute(queries.LOCK, self._projection, partition)
            if (await connection.fetchval(queries.EPOCH, self._projection, partition) or 0) > epoch:
                raise FencedError(f"snapshots of partition {partition}", epoch)
            rows = [(self._projection, partition, bytes.fromhex(digest), body) for digest, body in chunks.items()]
            await connection.executemany(queries.KEEP_CHUNK, rows)
            if await connection.fetchval(queries.CHUNKS_THERE, self._projection, partition, used) != len(used):
                raise IntegrityError("a chunk of the snapshot is neither given nor kept")
            digest = hashlib.sha256(manifest).digest()
            place = (self._projection, partition, snapshot.topic_id, snapshot.cursor)
            await connection.execute(queries.FORGET_SAME, *place)
            await connection.execute(queries.KEEP, *place, epoch, manifest, digest, used)
            await connection.execute(queries.FORGET, self._projection, partition, snapshot.topic_id, KEPT)
            await connection.execute(queries.FORGET_CHUNKS, self._projection, partition)


def _snapshot(manifest: bytes, digest: bytes) -> Snapshot:
    if hashlib.sha256(manifest).digest() != digest:
        raise IntegrityError("its manifest is not what it was")
    return msgspec.msgpack.decode(manifest, type=Snapshot)
