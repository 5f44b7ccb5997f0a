"""The contract of sinks on the ClickHouse sink: the embedded front, plans in memory and in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.plans import PlanStore
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.tables import TABLES
from sinks.postgres.plans import PostgresPlanStore
from sinks.runner import columns
from sinks.runner.seam import Sink
from sinks.totals import NO_TOTALS, StoreTotals
from tests.contract.test_sink_contract import (  # noqa: F401 - collected here under this module's harness
    test_a_batch_that_was_partly_applied_is_trimmed,
    test_a_claim_tells_where_the_store_stands,
    test_a_gap_is_refused,
    test_a_new_partition_starts_at_zero,
    test_a_recreated_topic_is_refused,
    test_a_repeated_batch_changes_nothing,
    test_a_write_cancelled_anywhere_is_ended_by_the_next,
    test_a_write_cancelled_anywhere_is_whole_or_absent,
    test_a_zombie_is_fenced,
    test_an_event_produced_twice_counts_once,
    test_everything_written_is_there,
    test_one_fenced_partition_keeps_the_whole_batch_out,
    test_the_same_id_with_other_bytes_stops,
    test_what_can_not_be_claimed_keeps_no_other_partition_from_it,
)
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.databases import ClickHouseDatabases, postgres_databases
from tests.support.sink_harnesses import FAR, CountedHarness, everything


class ClickHouseHarness(CountedHarness):
    """A database of its own, and plans that outlive the sinks."""

    def __init__(self, url: str, database: str, dsn: str | None) -> None:
        """Plans stand in Postgres where `dsn` says so, else in memory."""
        self.url = url
        self.database = database
        self.dsn = dsn
        self.memory = MemoryPlanStore()
        self.ranges = RememberedRanges()
        self.reads = ClickHouseReads(ClickHouse(url, database), self.plans("reads"))

    def plans(self, owner: str) -> PlanStore:
        """A process's face of the plans."""
        return PostgresPlanStore(self.dsn, owner) if self.dsn else self.memory

    def sink(self, owner: str) -> Sink:
        """As the harness says."""
        return RememberingSink(ClickHouse(self.url, self.database), self.plans(owner), self.ranges)

    async def totals(self, topic: str) -> StoreTotals:
        """As the harness says."""
        return (await self.reads.totals(everything(topic))).get(topic, NO_TOTALS)

    async def kept_poison(self) -> int:
        """The runner keeps this sink's poison."""
        return 0


@pytest.fixture(params=["memory plans, one by one", "postgres plans, columns"])
def way(request: pytest.FixtureRequest) -> tuple[bool, bool]:
    """Whether plans stand in Postgres, and whether records come decoded side by side.

    A plan store is given drafts and never sees records, so two of the four pairs say all.
    """
    plans, records = str(request.param).split(", ")
    return plans == "postgres plans", records == "columns"


@pytest.fixture(autouse=True)
def screened(way: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """How records come, instead of the suite's own fixture."""
    monkeypatch.setattr(columns, "RECORDS_MIN", 1 if way[1] else FAR)


@pytest.fixture
async def harness(way: tuple[bool, bool], clickhouse: ClickHouseDatabases) -> AsyncIterator[ClickHouseHarness]:
    """Both homes of plans, each on an empty database."""
    dsn = await postgres_databases().emptied("plans") if way[0] else None
    made = ClickHouseHarness(clickhouse.url, clickhouse.name(), dsn)
    yield made
    await made.reads.close()


def test_every_topic_of_the_contract_is_a_fact_table() -> None:
    """The suite's topics are ones this sink projects."""
    assert {"quaestor.requests", "quaestor.costs", "quaestor.ledger", "quaestor.budgets", "quaestor.decisions"} <= set(
        TABLES
    )
