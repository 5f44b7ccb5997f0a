"""The contract of sinks on the ClickHouse sink: the embedded front, plans in memory and in Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.migrations import Target, migrate
from sinks.clickhouse.plans import PlanStore
from sinks.clickhouse.reads import ClickHouseReads
from sinks.clickhouse.tables import TABLES
from sinks.postgres.migrations import migrate as migrate_postgres
from sinks.postgres.plans import PostgresPlanStore
from sinks.runner.seam import Sink
from sinks.totals import NO_TOTALS, StoreTotals
from streams.log import Partition
from tests.contract.test_sink_contract import (  # noqa: F401 - collected here under this module's harness
    FAR,
    screened,
    test_a_batch_that_was_partly_applied_is_trimmed,
    test_a_claim_tells_where_the_store_stands,
    test_a_gap_is_refused,
    test_a_new_partition_starts_at_zero,
    test_a_recreated_topic_is_refused,
    test_a_repeated_batch_changes_nothing,
    test_a_write_cancelled_anywhere_is_whole_or_absent,
    test_a_zombie_is_fenced,
    test_an_event_produced_twice_counts_once,
    test_everything_written_is_there,
    test_one_fenced_partition_keeps_the_whole_batch_out,
    test_the_same_id_with_other_bytes_stops,
)
from tests.support.clickhouse_server import ClickHouseServer, external_url
from tests.support.clickhouse_sink import RememberedRanges, RememberingSink
from tests.support.postgres_server import PostgresServer

NUMBERS = count()


class ClickHouseHarness:
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
        barrier = {Partition(topic, number): FAR for number in range(6)}
        return (await self.reads.totals(barrier)).get(topic, NO_TOTALS)

    async def kept_poison(self) -> int:
        """The runner keeps this sink's poison."""
        return 0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server for this module."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def clickhouse_url() -> Iterator[str]:
    """A server for this module."""
    url = external_url()
    if url is not None:
        yield url
        return
    server = ClickHouseServer()
    server.start()
    yield server.url
    server.remove()


@pytest.fixture(params=["memory plans", "postgres plans"])
async def harness(request: pytest.FixtureRequest, clickhouse_url: str) -> AsyncIterator[ClickHouseHarness]:
    """Both homes of plans, each on an empty database."""
    database = f"contract_{next(NUMBERS)}"
    dsn = None
    if request.param == "postgres plans":
        server: PostgresServer = request.getfixturevalue("postgres")
        dsn = server.dsn(database)
        await migrate_postgres(dsn)
    await migrate(clickhouse_url, Target(database))
    made = ClickHouseHarness(clickhouse_url, database, dsn)
    yield made
    await made.reads.close()


def test_every_topic_of_the_contract_is_a_fact_table() -> None:
    """The suite's topics are ones this sink projects."""
    assert {"quaestor.requests", "quaestor.costs", "quaestor.ledger", "quaestor.budgets", "quaestor.decisions"} <= set(
        TABLES
    )
