"""Recall: finds the snapshot a partition may be restored from, if there is one that can be trusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from processors.budgets.live import Ended
from schemas.errors import IntegrityError, StoreUnavailableError
from schemas.topics import BUDGETS
from sinks.redis.restore import AppliedState
from sinks.redis.snapshots import Minute, Snapshot, SnapshotStore, unpack_minute, unpack_tenants
from sinks.runner.seam import QuarantineStore
from streams.log import Partition

log = structlog.get_logger()


class Recalled(NamedTuple):
    """A snapshot's state, or why there is none."""

    state: AppliedState | None
    detail: str


class Recall:
    """Asks the store, the quarantine and the log."""

    def __init__(
        self,
        store: SnapshotStore,
        end_of: Callable[[Partition], Awaitable[int]],
        quarantine: QuarantineStore | None,
        projection: str,
    ) -> None:
        """`end_of` answers a partition's end offset; `projection` is the one whose records were set aside."""
        self._store = store
        self._end_of = end_of
        self._quarantine = quarantine
        self._projection = projection
        #: Snapshots that turned out to be damaged while they were restored, by partition and cursor.
        self._damaged: set[tuple[int, int]] = set()

    def distrust(self, partition: int, cursor: int) -> None:
        """Pass over this snapshot: it could not be restored."""
        self._damaged.add((partition, cursor))

    async def newest(self, partition: int, topic_id: str, above: int) -> Recalled:
        """The newest valid snapshot that spares reading the log from `above`; while its store is away, there is none.

        Raises StoreUnavailableError while it can't be found out whether one is valid.
        """
        try:
            found = await self._store.newest(partition, topic_id)
        except StoreUnavailableError as error:
            return Recalled(None, f"no snapshot can be read: {error}")
        for snapshot in found:
            if snapshot.cursor > above and await self._is_valid(snapshot):
                try:
                    return Recalled(await self.state(snapshot), f"snapshot at offset {snapshot.cursor}")
                except IntegrityError as error:
                    log.warning("snapshot_damaged", partition=partition, detail=str(error))
        return Recalled(None, "no snapshot that is valid and newer" if found else "no snapshot")

    async def set_aside(self, partition: int) -> frozenset[int]:
        """Offsets that are quarantined, parked or discarded. Raises StoreUnavailableError."""
        if self._quarantine is None:
            return frozenset()
        whole = {Partition(BUDGETS.name, partition): 0}
        standings = await self._quarantine.standings(self._projection, whole)
        return frozenset(offset for standing in standings.values() for offset in standing.known)

    async def latest(self, partition: int, topic_id: str) -> Snapshot | None:
        """The newest valid snapshot itself. Raises StoreUnavailableError."""
        for snapshot in await self._store.newest(partition, topic_id):
            if await self._is_valid(snapshot):
                return snapshot
        return None

    async def state(self, snapshot: Snapshot) -> AppliedState:
        """What it says. Raises StoreUnavailableError and IntegrityError, now or when a minute is asked for."""
        minutes = {each.minute: each for each in snapshot.minutes}

        async def ended(minute: str) -> Ended:
            return await self.minute(snapshot.partition, minutes[minute])

        tenants = unpack_tenants(await self._store.chunks(snapshot.partition, snapshot.tenants))
        return AppliedState(snapshot.cursor, tenants, list(minutes), ended)

    async def minute(self, partition: int, minute: Minute) -> Ended:
        """How the holds of a minute ended. Raises StoreUnavailableError and IntegrityError."""
        return unpack_minute(await self._store.chunks(partition, minute.chunks))

    def demand_known(self, partition: Partition, offsets: Sequence[int]) -> None:
        """Raise IntegrityError for records that can't be folded and that nobody set aside."""
        if offsets and self._quarantine is not None:
            raise IntegrityError(f"{partition}@{offsets[0]} can't be read now, and is not set aside")

    async def _is_valid(self, snapshot: Snapshot) -> bool:
        """Whether it is a fold of the log as it stands, and of what is applied of it now."""
        if (snapshot.partition, snapshot.cursor) in self._damaged:
            return False
        if snapshot.cursor > await self._end_of(Partition(BUDGETS.name, snapshot.partition)):
            return False
        aside = await self.set_aside(snapshot.partition)
        return sorted(each for each in aside if each < snapshot.cursor) == list(snapshot.set_aside)
