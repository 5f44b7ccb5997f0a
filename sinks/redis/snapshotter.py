"""Snapshotter: takes the snapshots of live budgets, beside the sink that applies them.

A snapshot is a fold of the log, never a copy of Redis: the snapshot before it, and the events since then, read again
by a reader of its own. So it takes nothing of the sink's time with Redis, and what is wrong in Redis never gets into
what mends it. Only what the sink has applied is read, so everything that was set aside of it is known by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from processors.budgets.live import MINUTE_DIGITS, MINUTE_MILLIS, LiveFold
from schemas import limits
from schemas.errors import FencedError, IntegrityError, LogUnavailableError
from schemas.topics import BUDGETS
from sinks.redis.movements import Movements
from sinks.redis.owned import Applied
from sinks.redis.recall import Recall
from sinks.redis.slices import Slices
from sinks.redis.slot_event import SlotEvent
from sinks.redis.snapshots import Minute, Snapshot, SnapshotStore, pack_minute, pack_tenants
from streams.codec import Codec
from streams.log import LogReader, LogRecord, Partition
from streams.runs import runs_of

T = TypeVar("T")

READ_SECONDS = 1.0
#: Reads in a row that may bring nothing though the sink has applied more.
EMPTY_READS_MAX = 10
#: Minutes of hold ids that stay in memory between two snapshots: most holds end in them.
HOT_MILLIS = 15 * 60_000


class Taken(NamedTuple):
    """What became of one."""

    partition: int
    #: Every event below it is in the snapshot.
    cursor: int
    events: int
    seconds: float
    #: Of chunks that the snapshot before did not have.
    new_bytes: int


@dataclass(slots=True)
class Draft:
    """The next snapshot of a partition, as far as it is folded."""

    topic_id: str
    set_aside: tuple[int, ...]
    fold: LiveFold
    cursor: int = 0
    #: When the last event that is folded in was acknowledged, milliseconds: the log's own time, also while it is old.
    log_millis: int = 0
    #: Minutes of hold ids as the snapshot before has them; only some of them are in the fold's memory.
    minutes: dict[str, Minute] = field(default_factory=dict)

    def packed(self, partition: int, now_micros: int) -> tuple[Snapshot, dict[str, bytes]]:
        """The snapshot, and those of its chunks that the one before may not have."""
        self.fold.forget(self.log_millis)
        for minute in [each for each in self.minutes if self.fold.is_over(each, self.log_millis)]:
            del self.minutes[minute]
        tenants = pack_tenants(self.fold.tenants)
        chunks = dict(tenants.bodies)
        for minute in self.fold.changed & self.fold.ended.keys():
            ended = {name: holds for name, holds in self.fold.ended[minute].items() if holds}
            packed = pack_minute(ended)
            chunks |= packed.bodies
            self.minutes[minute] = Minute(minute, packed.digests, sum(map(len, ended.values())))
        minutes = tuple(self.minutes[minute] for minute in sorted(self.minutes))
        aside = _before(self.set_aside, self.cursor)
        return Snapshot(partition, self.topic_id, self.cursor, aside, tenants.digests, minutes, now_micros), chunks

    def kept(self) -> None:
        """The snapshot is in the store: let go of what is not likely to change any more."""
        self.fold.changed.clear()
        lately = self.log_millis - HOT_MILLIS
        self.fold.unload([each for each in self.fold.ended if (int(each, 16) + 1) * MINUTE_MILLIS < lately])


class Snapshotter:
    """Takes a snapshot of every open partition now and then. One call at a time."""

    def __init__(
        self,
        store: SnapshotStore,
        recall: Recall,
        make_reader: Callable[[], LogReader],
        codec: Codec,
        projection: str,
        *,
        tombstone_seconds: int = limits.HOLD_TOMBSTONE_SECONDS,
    ) -> None:
        """`make_reader` makes a reader of its own; `projection` is the sink's."""
        self._store = store
        self._recall = recall
        self._make_reader = make_reader
        self._slices = Slices(codec, projection)
        self._tombstone_seconds = tombstone_seconds
        self._reader: LogReader | None = None
        #: Where the reader stands.
        self._reading: tuple[int, int] | None = None
        self._drafts: dict[int, Draft] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")

    async def close(self) -> None:
        """Let go of the reader."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await self._in_thread(reader.close)
        self._thread.shutdown(wait=False)

    def own(self, partitions: Sequence[int]) -> None:
        """Forget drafts of partitions that others have now."""
        self._drafts = {number: self._drafts[number] for number in self._drafts.keys() & set(partitions)}

    async def take(self, applied: Applied, now_micros: int) -> Taken | None:
        """Keep a snapshot of a partition as it is applied; None when nothing came since the last one.

        Raises StoreUnavailableError and LogUnavailableError (try again later), FencedError (the partition is another's
        now), and IntegrityError when there can't be one of this log now.
        """
        started = time.monotonic()
        draft = await self._draft(applied)
        first = draft.cursor
        if first >= applied.cursor:
            return None
        kept_bytes = 0
        while draft.cursor < applied.cursor:
            await self._advance(draft, applied)
            if draft.cursor >= applied.cursor or draft.fold.remembered > limits.SNAPSHOT_ENDED_MAX:
                kept_bytes += await self._put(draft, applied, now_micros)
        return Taken(applied.partition, draft.cursor, draft.cursor - first, time.monotonic() - started, kept_bytes)

    async def _put(self, draft: Draft, applied: Applied, now_micros: int) -> int:
        """Keep the draft as it is; answers how many bytes of it were new."""
        snapshot, chunks = await self._in_thread(lambda: draft.packed(applied.partition, now_micros))
        new_bytes = sum(map(len, chunks.values()))
        if new_bytes > limits.SNAPSHOT_BYTES_MAX:
            raise IntegrityError(f"a snapshot of partition {applied.partition} would be too large")
        try:
            await self._store.put(snapshot, applied.epoch, chunks)
        except (FencedError, IntegrityError):
            self._drafts.pop(applied.partition, None)
            raise
        draft.kept()
        return new_bytes

    async def _draft(self, applied: Applied) -> Draft:
        """Where to go on: in memory, from the newest valid snapshot, or from nothing."""
        aside = await self._recall.set_aside(applied.partition)
        below = tuple(sorted(offset for offset in aside if offset < applied.cursor))
        draft = self._drafts.get(applied.partition)
        if draft is not None and draft.topic_id == applied.topic_id:
            is_same = _before(draft.set_aside, draft.cursor) == _before(below, draft.cursor)
            draft.set_aside = below
            if is_same:
                return draft
        fold = LiveFold(self._tombstone_seconds)
        draft = Draft(applied.topic_id, below, fold)
        snapshot = await self._recall.latest(applied.partition, applied.topic_id)
        if snapshot is not None and snapshot.cursor <= applied.cursor:
            state = await self._recall.state(snapshot)
            fold.tenants.update(state.tenants)
            draft.cursor, draft.minutes = snapshot.cursor, {each.minute: each for each in snapshot.minutes}
        self._drafts[applied.partition] = draft
        return draft

    async def _advance(self, draft: Draft, applied: Applied) -> None:
        """Fold one slice in. Rests as long as it worked: the sink is in the same process, and more urgent."""
        started = time.monotonic()
        made, following, log_millis = await self._in_thread(lambda: self._read(draft, applied))
        needed = {event.hold_id[:MINUTE_DIGITS] for events in made.by_tenant.values() for event in events}
        for minute in (needed & draft.minutes.keys()) - draft.fold.ended.keys():
            draft.fold.load(minute, await self._recall.minute(applied.partition, draft.minutes[minute]))
        await self._in_thread(lambda: _fold(draft.fold, made.by_tenant, following))
        draft.cursor, draft.log_millis = following, max(log_millis, draft.log_millis)
        await asyncio.sleep(time.monotonic() - started)

    def _read(self, draft: Draft, applied: Applied) -> tuple[Movements, int, int]:
        """What the next records move, the offset after them, and the last one's time. Blocks; on the thread."""
        if self._reader is None:
            self._reader = self._make_reader()
        place = Partition(BUDGETS.name, applied.partition)
        if self._reading != (applied.partition, draft.cursor):
            self._reading = None
            self._reader.assign({place: draft.cursor})
        records = self._consume(self._reader, applied.cursor)
        following = records[-1].offset + 1
        self._reading = (applied.partition, following)
        records = [record for record in records if record.offset < applied.cursor]
        log_millis = records[-1].timestamp_millis if records else 0
        return self._movements(place, draft, records), min(following, applied.cursor), log_millis

    def _consume(self, reader: LogReader, end: int) -> list[LogRecord]:
        for _ in range(EMPTY_READS_MAX):
            records = reader.consume(limits.SNAPSHOT_SLICE_RECORDS, READ_SECONDS)
            if records:
                return records
        raise LogUnavailableError(f"the log gives out nothing below offset {end}")

    def _movements(self, place: Partition, draft: Draft, records: Sequence[LogRecord]) -> Movements:
        found = self._slices.read(place, runs_of(records), draft.topic_id, frozenset(draft.set_aside))
        self._recall.demand_known(place, found.unknown)
        return found.movements

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _before(offsets: Sequence[int], cursor: int) -> tuple[int, ...]:
    return tuple(offset for offset in offsets if offset < cursor)


def _fold(fold: LiveFold, by_tenant: Mapping[str, Sequence[SlotEvent]], following: int) -> None:
    for tenant_id, events in by_tenant.items():
        fold.apply(tenant_id, events, following)
