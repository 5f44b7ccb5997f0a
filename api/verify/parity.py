"""Compares every store with the log at one barrier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api.verify.expected import Expected
from api.verify.kept import Whole
from processors.parity.checks import Check, empty, store_holds_topic
from processors.parity.totals import LogFold, TopicTotals
from sinks.clickhouse.reads import RollupSums
from sinks.content import ContentStore
from sinks.totals import StoreTotals
from streams.log import Partition

#: How long stores may take to reach the barrier before verification says that they lag.
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.1
#: What an operator does about a rollup.
REBUILD = "`quaestor migrate --rebuild-rollups` makes anew what differs"
Barrier = Mapping[Partition, int]
#: Told the store's name and how many events it still lacks.
OnWait = Callable[[str, int], None]


class Follower(Protocol):
    """What follows the log."""

    async def cursors(self) -> Mapping[Partition, int]:
        """Where it stands; raises StoreUnavailableError or LogUnavailableError."""


class ComparedStore(Follower, Protocol):
    """What verification asks of a store."""

    async def totals(self, barrier: Barrier) -> Mapping[str, StoreTotals]:
        """Its totals per topic below the barrier; raises StoreUnavailableError."""


@dataclass(frozen=True)
class NamedStore:
    """A store and what it is compared on."""

    name: str
    topics: tuple[str, ...]
    store: ComparedStore
    #: The same store, row by row.
    content: ContentStore
    #: Name of its sink in quarantine; empty for a store that takes every record.
    projection: str = ""
    #: What retention left of it.
    kept: Whole = field(default_factory=Whole)

    def part(self, barrier: Barrier) -> dict[Partition, int]:
        """The barrier of the topics it has."""
        return {partition: end for partition, end in barrier.items() if partition.topic in self.topics}


async def reach(
    name: str, follower: Follower, barrier: Barrier, on_wait: OnWait, seconds: float = CATCH_UP_SECONDS
) -> Check | None:
    """Wait until it has reached the barrier, for `seconds` at most; the check that says so when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        missing = await _missing(follower, barrier)
        if not missing:
            return None
        if time.monotonic() > deadline:
            return _lags(name, missing, seconds)
        on_wait(name, sum(missing.values()))
        await asyncio.sleep(POLL_SECONDS)


async def compare_totals(named: NamedStore, barrier: Barrier, fold: LogFold, expected: Expected) -> list[Check]:
    """One check per topic of a store that has reached the barrier: ids and money. Raises StoreUnavailableError."""
    totals = await named.store.totals(named.part(barrier))
    return [_compare_topic(named, topic, fold, expected, totals[topic]) for topic in named.topics if topic in totals]


def unread_records_are_kept(named: NamedStore, expected: Expected) -> Check:
    """Every record that can't be read, on the store's topics, is in its sink's quarantine: passed over, not lost."""
    lost = [f"{partition}@{offset}" for partition, offset in expected.lost if partition.topic in named.topics]
    what = "in neither store nor quarantine: record"
    return empty(f"{named.name}: unreadable records are in quarantine", lost, expected.unread, what)


def _compare_topic(named: NamedStore, topic: str, fold: LogFold, expected: Expected, found: StoreTotals) -> Check:
    stored = TopicTotals(found.records, found.id_digest, found.amount_nano)
    return store_holds_topic(named.name, topic, expected.totals(topic, fold), stored, named.kept.words(topic))


def rollup_agrees(found: RollupSums) -> Check:
    """A rollup of ClickHouse has every event of its facts once: a view's target that counts twice shows here alone."""
    name = f"clickhouse rollup = facts: {found.name}"
    if found.agrees:
        return Check(name, ok=True, expected=int(found.after[0]), actual=int(found.rollup[0]))
    expected, actual = (", ".join(map(str, sums)) for sums in (found.after, found.rollup))
    words = f"events, quantity and money are {actual} in the rollup, {expected} in its facts; {REBUILD}"
    return Check(name, ok=False, expected=expected, actual=actual, first_difference=words)


async def _missing(follower: Follower, barrier: Barrier) -> dict[Partition, int]:
    cursors = await follower.cursors()
    lacks = {partition: end - cursors.get(partition, 0) for partition, end in barrier.items()}
    return {partition: events for partition, events in lacks.items() if events > 0}


def _lags(name: str, missing: Mapping[Partition, int], seconds: float) -> Check:
    partition, events = max(missing.items(), key=lambda item: item[1])
    words = f"{events} events of {partition} not applied after {seconds:.0f} s: is it running?"
    return Check(
        f"{name} has reached the barrier", ok=False, expected=0, actual=sum(missing.values()), first_difference=words
    )


async def reach_all(stores: Sequence[NamedStore], barrier: Barrier, on_wait: OnWait) -> dict[str, Check]:
    """The stores that have not reached the barrier, waited for side by side."""
    reached = (reach(store.name, store.store, store.part(barrier), on_wait) for store in stores)
    found = await asyncio.gather(*reached)
    return {store.name: check for store, check in zip(stores, found, strict=True) if check is not None}
