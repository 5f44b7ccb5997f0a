"""Compares every store with the log at one barrier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from processors.parity.checks import Check, store_holds_topic
from processors.parity.totals import LogFold, TopicTotals
from sinks.totals import StoreTotals
from streams.log import Partition

#: How long stores may take to reach the barrier before verification says that they lag.
CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.1
Barrier = Mapping[Partition, int]
#: Told the store's name and how many events it still lacks.
OnWait = Callable[[str, int], None]


class ComparedStore(Protocol):
    """What verification asks of a store."""

    async def cursors(self) -> Mapping[Partition, int]:
        """Where the store stands; raises StoreUnavailableError."""

    async def totals(self, barrier: Barrier) -> Mapping[str, StoreTotals]:
        """Its totals per topic below the barrier; raises StoreUnavailableError."""


@dataclass(frozen=True)
class NamedStore:
    """A store and what it is compared on."""

    name: str
    topics: tuple[str, ...]
    store: ComparedStore
    #: Whether amounts are kept as well as ids.
    amounts: bool = True
    #: Whether a quarantined record is kept as a row too (the audit log commits to its bytes).
    keeps_undecodable: bool = False


async def compare(named: NamedStore, barrier: Barrier, fold: LogFold, on_wait: OnWait) -> list[Check]:
    """One check per topic of the store, after it has reached the barrier; a store that does not is one failed check."""
    part = {partition: end for partition, end in barrier.items() if partition.topic in named.topics}
    missing = await _missing(named, part, on_wait)
    if missing:
        return [_lags(named.name, missing)]
    totals = await named.store.totals(part)
    return [_compare_topic(named, topic, fold, totals.get(topic)) for topic in named.topics if topic in totals]


def _compare_topic(named: NamedStore, topic: str, fold: LogFold, stored: StoreTotals | None) -> Check:
    found = stored or StoreTotals(0, 0, 0)
    log = fold.totals.get(topic, TopicTotals())
    amount = found.amount_nano if named.amounts else log.amount_nano
    records = found.records - (log.undecodable if named.keeps_undecodable else 0)
    return store_holds_topic(named.name, topic, log, TopicTotals(records, found.id_digest, amount), 0)


async def _missing(named: NamedStore, barrier: Barrier, on_wait: OnWait) -> dict[Partition, int]:
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        cursors = await named.store.cursors()
        behind = {
            partition: end - cursors.get(partition, 0)
            for partition, end in barrier.items()
            if cursors.get(partition, 0) < end
        }
        if not behind or time.monotonic() > deadline:
            return behind
        on_wait(named.name, sum(behind.values()))
        await asyncio.sleep(POLL_SECONDS)


def _lags(name: str, missing: Mapping[Partition, int]) -> Check:
    partition, events = max(missing.items(), key=lambda item: item[1])
    words = f"{events} events of {partition} not applied after {CATCH_UP_SECONDS:.0f} s: is its sink running?"
    return Check(
        f"{name} has reached the barrier", ok=False, expected=0, actual=sum(missing.values()), first_difference=words
    )


async def compare_all(stores: Sequence[NamedStore], barrier: Barrier, fold: LogFold, on_wait: OnWait) -> list[Check]:
    """The checks of all stores, compared side by side, in the order given."""
    found = await asyncio.gather(*(compare(store, barrier, fold, on_wait) for store in stores))
    return [check for checks in found for check in checks]
