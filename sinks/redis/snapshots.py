"""Snapshots of live budgets: what a budgets partition's tenants have applied at one offset, kept outside Redis.

A snapshot is a list of chunks that are named by their own SHA-256: the tenants' sums and open holds, and for each
minute of hold ids how its holds ended. A minute that nothing happened to is the chunk it was before, and written once.
`MemorySnapshots` and `sinks.postgres.snapshots.PostgresSnapshots` keep them; tests/contract/test_budget_snapshots.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from processors.budgets.live import Ended, LiveTenant, Words
from schemas import limits
from schemas.errors import FencedError, IntegrityError

T = TypeVar("T")

#: How many are kept of a partition.
KEPT = 2


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """The chunks of a minute of hold ids, and how many holds ended in it."""

    minute: str
    chunks: tuple[str, ...]
    holds: int


class Snapshot(msgspec.Struct, frozen=True):
    """What a partition's tenants had applied at an offset."""

    partition: int
    #: The topic's UUID.
    topic_id: str
    #: Every event below it is folded in, but those that were set aside.
    cursor: int
    #: Offsets below the cursor that were set aside when it was taken. One that was redriven since makes it worthless.
    set_aside: tuple[int, ...]
    #: Digests of the chunks with sums and open holds.
    tenants: tuple[str, ...]
    #: In order.
    minutes: tuple[Minute, ...]
    #: Microseconds since the epoch.
    taken_at: int

    @property
    def chunks(self) -> Iterator[str]:
        """Digests of all its chunks."""
        yield from self.tenants
        for each in self.minutes:
            yield from each.chunks

    @property
    def holds(self) -> int:
        """Resolved holds it remembers."""
        return sum(each.holds for each in self.minutes)


class SnapshotStore(Protocol):
    """Where snapshots are kept, the newest two of each partition. Every call may raise StoreUnavailableError."""

    async def newest(self, partition: int, topic_id: str) -> list[Snapshot]:
        """Those kept of this partition of this very topic, the newest first; one that can't be read is left out."""

    async def chunks(self, partition: int, digests: Sequence[str]) -> list[bytes]:
        """Chunks in the order asked for; raises IntegrityError where one is gone or is not what its name says."""

    async def put(self, snapshot: Snapshot, epoch: int, chunks: Mapping[str, bytes]) -> None:
        """Keep a snapshot, with those of its chunks that the one before does not have; older ones go.

        All or nothing. Raises FencedError when a later owner of the partition has kept one, and IntegrityError when a
        chunk is neither given nor kept.
        """


class MemorySnapshots(SnapshotStore):
    """Snapshots in this process, for tests: every seam ships its fake."""

    def __init__(self) -> None:
        """Nothing is kept."""
        self.kept: dict[int, dict[int, tuple[int, Snapshot]]] = {}
        self.bodies: dict[tuple[int, str], bytes] = {}

    async def newest(self, partition: int, topic_id: str) -> list[Snapshot]:
        """As the seam says."""
        found = self.kept.get(partition, {})
        return [found[cursor][1] for cursor in sorted(found, reverse=True) if found[cursor][1].topic_id == topic_id]

    async def chunks(self, partition: int, digests: Sequence[str]) -> list[bytes]:
        """As the seam says."""
        return [checked(digest, self.bodies.get((partition, digest))) for digest in digests]

    async def put(self, snapshot: Snapshot, epoch: int, chunks: Mapping[str, bytes]) -> None:
        """As the seam says."""
        kept = self.kept.setdefault(snapshot.partition, {})
        if any(held > epoch for held, _ in kept.values()):
            raise FencedError(f"snapshots of partition {snapshot.partition}", epoch)
        of_topic = {cursor: each for cursor, each in kept.items() if each[1].topic_id == snapshot.topic_id}
        of_topic[snapshot.cursor] = (epoch, snapshot)
        bodies = self.bodies | {(snapshot.partition, digest): body for digest, body in chunks.items()}
        if any((snapshot.partition, digest) not in bodies for digest in snapshot.chunks):
            raise IntegrityError("a chunk of the snapshot is neither given nor kept")
        left = {cursor: of_topic[cursor] for cursor in sorted(of_topic)[-KEPT:]}
        used = {(snapshot.partition, digest) for _, each in left.values() for digest in each.chunks}
        self.kept[snapshot.partition] = left
        self.bodies = {name: body for name, body in bodies.items() if name[0] != snapshot.partition or name in used}


def checked(digest: str, body: bytes | None) -> bytes:
    """A chunk that is what its name says; raises IntegrityError."""
    if body is None or digest_of_chunk(body) != digest:
        raise IntegrityError(f"chunk {digest} of a snapshot is {'gone' if body is None else 'not what it was'}")
    return body


def digest_of_chunk(body: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


class Packed(NamedTuple):
    """Chunks by their digests, in order."""

    digests: tuple[str, ...]
    bodies: dict[str, bytes]


def pack_tenants(tenants: Mapping[str, LiveTenant]) -> Packed:
    """Sums and open holds of all tenants."""
    rows = ((name, live.cursor, live.posted, live.held, live.holds) for name, live in sorted(tenants.items()))
    return _packed(msgspec.msgpack.encode(list(rows)))


def unpack_tenants(bodies: Iterable[bytes]) -> dict[str, LiveTenant]:
    """The inverse of pack_tenants; raises IntegrityError."""
    rows = _unpacked(bodies, list[tuple[str, int, dict[str, int], dict[str, int], dict[str, Words]]])
    return {row[0]: LiveTenant(*row[1:]) for row in rows}


def pack_minute(ended: Ended) -> Packed:
    """How the holds of a minute ended; the same for the same holds, in whatever order they ended."""
    return _packed(msgspec.msgpack.encode({name: dict(sorted(ended[name].items())) for name in sorted(ended)}))


def unpack_minute(bodies: Iterable[bytes]) -> Ended:
    """The inverse of pack_minute; raises IntegrityError."""
    return _unpacked(bodies, Ended)


def _unpacked(bodies: Iterable[bytes], form: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(b"".join(bodies), type=form)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"a snapshot of another form: {error}") from error


def _packed(body: bytes) -> Packed:
    parts = [
        body[first : first + limits.SNAPSHOT_CHUNK_BYTES] for first in range(0, len(body), limits.SNAPSHOT_CHUNK_BYTES)
    ]
    digests = tuple(map(digest_of_chunk, parts))
    return Packed(digests, dict(zip(digests, parts, strict=True)))
