"""What must have caught up before a report is read, on a log in memory."""

from __future__ import annotations

from collections.abc import Mapping

from api.report.run import catch_up, margin_micros, offsets_of
from api.settings import Settings
from schemas.limits import LEASE_SECONDS, REQUEST_TIMEOUT_SECONDS
from schemas.topics import BUDGETS, COSTS
from streams.log import OutgoingRecord, Partition
from streams.memory import MemoryLog
from streams.partitioner import partition_of

KEY = b"acme"
BUDGETS_AT, COSTS_AT = (Partition(topic.name, partition_of(KEY, topic.partitions)) for topic in (BUDGETS, COSTS))


class Store:
    """A store that stands somewhere."""

    def __init__(self, cursors: Mapping[Partition, int]) -> None:
        """Here."""
        self._cursors = cursors

    async def cursors(self) -> Mapping[Partition, int]:
        """As the seam says."""
        return self._cursors


def filled() -> MemoryLog:
    """A movement and two costs."""
    log = MemoryLog()
    for topic in (BUDGETS, COSTS, COSTS):
        log.append(OutgoingRecord(topic.name, KEY, b"", ()))
    return log


def commit(log: MemoryLog, group: str, cursors: Mapping[Partition, int]) -> None:
    """What a stream did."""
    reader = log.group_reader(group)
    reader.commit_hint(cursors)
    reader.close()


async def lacking(log: MemoryLog, store: Mapping[Partition, int]) -> list[str]:
    """Who did not get there, by name."""
    found = await catch_up(log.reader(), log.group_reader, Store(store), lambda *_: None, seconds=0.0)
    return [words.partition(":")[0] for words in found]


WHOLE = {BUDGETS_AT: 1, COSTS_AT: 2}


async def test_everything_stands_at_the_barrier() -> None:
    """Then nothing is lacking."""
    log = filled()
    commit(log, "stream-budgets", {BUDGETS_AT: 1})
    commit(log, "stream-ledger", WHOLE)

    assert [] == await lacking(log, WHOLE)


async def test_each_that_lags_is_named() -> None:
    """The streams by what they committed, Postgres by its cursors."""
    log = filled()
    commit(log, "stream-ledger", {BUDGETS_AT: 1, COSTS_AT: 1})

    assert ["stream-budgets", "stream-ledger", "sink-postgres"] == await lacking(log, {BUDGETS_AT: 1})


async def test_an_empty_log_lacks_nothing() -> None:
    """Streams that committed nothing have nothing to do."""
    assert [] == await lacking(MemoryLog(), {})


def test_the_margin_covers_a_requests_whole_life() -> None:
    """Its last hold may be placed at its time-out, and the hold may expire."""
    assert margin_micros(Settings()) > (REQUEST_TIMEOUT_SECONDS + LEASE_SECONDS) * 1_000_000


def test_offsets_are_told_by_topic() -> None:
    """As JSON has them."""
    assert {BUDGETS.name: {str(BUDGETS_AT.number): 1}, COSTS.name: {str(COSTS_AT.number): 2}} == offsets_of(WHOLE)
