"""Plans in real Postgres: what only a database can show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from schemas.errors import FencedError, StoreUnavailableError
from sinks.clickhouse.plans import Draft, Known, Planned
from sinks.postgres.plans import PostgresPlanStore
from streams.log import Partition
from tests.support.databases import postgres_databases

PROJECTION = "clickhouse@v1"
COSTS = Partition("quaestor.costs", 0)
#: 2020-03-01 and 2026-11-01.
OLD_MICROS, NEW_MICROS = 1_583_020_800_000_000, 1_793_491_200_000_000


def draft(first: int, after: int, at: int = NEW_MICROS, name: str = "e") -> Draft:
    """Events numbered by offset."""
    events = [Known("acme", f"{name}{offset}", at, offset, bytes(16)) for offset in range(first, after)]
    return Draft(COSTS, "tid", first, after, events)


@pytest.fixture
async def dsn() -> str:
    """A migrated database."""
    return await postgres_databases().emptied("plans")


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresPlanStore]:
    """A process."""
    made = PostgresPlanStore(dsn, "one")
    yield made
    await made.close()


async def planned(store: PostgresPlanStore, made: Draft, epoch: int) -> Planned:
    """What the store plans."""
    answer = await store.plan(PROJECTION, [made], {COSTS: epoch})
    assert isinstance(answer, Planned)
    return answer


async def claimed(store: PostgresPlanStore) -> int:
    """The epoch of the partition, claimed."""
    return (await store.claim(PROJECTION, [COSTS], {COSTS.topic: "tid"}))[COSTS].epoch


async def test_a_settled_plan_leaves_nothing_but_the_index(store: PostgresPlanStore, dsn: str) -> None:
    """Plans do not pile up; ids stay known."""
    epoch = await claimed(store)
    for first in (0, 5):
        plans = (await planned(store, draft(first, first + 5), epoch)).plans
        await store.settle(PROJECTION, plans, {COSTS: epoch})
    connection = await asyncpg.connect(dsn)
    counts = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM quaestor.clickhouse_plan), (SELECT count(*) FROM quaestor.clickhouse_event)"
    )
    await connection.close()

    assert (0, 10) == tuple(counts)
    assert {COSTS: 10} == await store.cursors(PROJECTION)


async def test_a_plan_survives_its_process_unchanged(store: PostgresPlanStore, dsn: str) -> None:
    """The successor finds the very plan, exclusions and token included."""
    epoch = await claimed(store)
    await store.settle(PROJECTION, (await planned(store, draft(0, 2), epoch)).plans, {COSTS: epoch})
    again = draft(2, 5)
    repeated = replace(again, events=[*again.events[:2], again.events[2]._replace(event_id="e0")])
    (plan,) = (await planned(store, repeated, epoch)).plans
    await store.close()
    successor = PostgresPlanStore(dsn, "two")
    newer = await claimed(successor)
    (found,) = await successor.left_open(PROJECTION, [COSTS])
    await successor.close()

    assert (4,) == plan.pieces[0].excluded
    assert plan == replace(found, age_seconds=0.0)
    assert newer == epoch + 1


async def test_an_earlier_owner_neither_plans_nor_settles(store: PostgresPlanStore, dsn: str) -> None:
    """The epoch fences both ends of a plan."""
    epoch = await claimed(store)
    plans = (await planned(store, draft(0, 2), epoch)).plans
    successor = PostgresPlanStore(dsn, "two")
    await claimed(successor)
    with pytest.raises(FencedError):
        await store.settle(PROJECTION, plans, {COSTS: epoch})
    with pytest.raises(FencedError):
        await store.plan(PROJECTION, [draft(2, 3)], {COSTS: epoch})
    await successor.close()


async def test_days_behind_the_horizon_go_and_come_back(store: PostgresPlanStore, dsn: str) -> None:
    """A claim drops old days of the index; a process that still trusts one makes it again on its next try."""
    epoch = await claimed(store)
    await store.settle(PROJECTION, (await planned(store, draft(0, 2, OLD_MICROS), epoch)).plans, {COSTS: epoch})
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE quaestor.clickhouse_event_day SET made_at = now() - interval '3 days'")
    other = PostgresPlanStore(dsn, "two")
    newer = await claimed(other)
    with pytest.raises(StoreUnavailableError):
        await planned(store, draft(2, 3, OLD_MICROS), newer)
    await planned(store, draft(2, 3, OLD_MICROS), newer)
    days = await connection.fetch("SELECT day::text FROM quaestor.clickhouse_event_day")
    await connection.close()
    await other.close()

    assert ["2020-03-01"] == [row["day"] for row in days]


async def test_a_database_without_migrations_is_unavailable() -> None:
    """`quaestor migrate` brings it; until then the runner waits."""
    store = PostgresPlanStore(postgres_databases().dsn("nowhere"), "one")
    with pytest.raises(StoreUnavailableError, match="migrate"):
        await store.open()
    await store.close()
