"""Plans in real Postgres: what only a database can show."""

from __future__ import annotations

import time
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
LATER = "clickhouse@v2"
OLD_MICROS, NEW_MICROS, FAR_MICROS = 1_583_020_800_000_000, 1_593_561_600_000_000, 7_000_000_000_000_000
#: Their days.
OLD_DAY, NEW_DAY = "2020-03-01", "2020-07-01"
DAYS = "SELECT inhrelid::regclass::text AS day FROM pg_inherits WHERE inhparent = 'quaestor.clickhouse_event'::regclass"


def draft(first: int, after: int, at: int = NEW_MICROS, name: str = "e") -> Draft:
    """Events numbered by offset."""
    events = [Known("acme", f"{name}{offset}", at, offset, bytes(16)) for offset in range(first, after)]
    return Draft(COSTS, "tid", first, after, events)


@pytest.fixture
async def dsn() -> str:
    """A migrated database, without the days of the test before."""
    made = await postgres_databases().emptied("plans")
    connection = await asyncpg.connect(made)
    for row in await connection.fetch(DAYS):
        await connection.execute(f"DROP TABLE {row['day']}")
    await connection.close()
    return made


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresPlanStore]:
    """A process."""
    made = PostgresPlanStore(dsn, "one")
    yield made
    await made.close()


async def planned(store: PostgresPlanStore, made: Draft, epoch: int, projection: str = PROJECTION) -> Planned:
    """What the store plans."""
    answer = await store.plan(projection, [made], {COSTS: epoch})
    assert isinstance(answer, Planned)
    return answer


async def claimed(store: PostgresPlanStore, projection: str = PROJECTION) -> int:
    """The epoch of the partition, claimed."""
    return (await store.claim(projection, [COSTS], {COSTS.topic: "tid"}))[COSTS].epoch


async def entered(store: PostgresPlanStore, projection: str, *drafts: Draft) -> Planned:
    """Claims, and plans and settles one after the other; the last plan."""
    epoch = await claimed(store, projection)
    for made in drafts:
        last = await planned(store, made, epoch, projection)
        await store.settle(projection, last.plans, {COSTS: epoch})
    return last


async def pass_days(dsn: str, days: int) -> None:
    """So many days go by for the index."""
    connection = await asyncpg.connect(dsn)
    for column in ("event_day SET made_at = made_at", "day_use SET used_at = used_at"):
        await connection.execute(f"UPDATE quaestor.clickhouse_{column} - interval '{days} days'")
    await connection.close()


async def days_of(dsn: str) -> list[str]:
    """Days that the index has."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT day::text FROM quaestor.clickhouse_event_day ORDER BY day")
    await connection.close()
    return [row["day"] for row in rows]


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
    await entered(store, PROJECTION, draft(0, 2, OLD_MICROS), draft(2, 3))
    await pass_days(dsn, 3)
    other = PostgresPlanStore(dsn, "two")
    newer = await claimed(other)
    assert [NEW_DAY] == await days_of(dsn)
    with pytest.raises(StoreUnavailableError):
        await planned(store, draft(3, 4, OLD_MICROS), newer)
    await planned(store, draft(3, 4, OLD_MICROS), newer)
    await other.close()

    assert [OLD_DAY, NEW_DAY] == await days_of(dsn)


async def test_a_version_that_fills_up_beside_another_keeps_the_days_it_is_at(
    store: PostgresPlanStore, dsn: str
) -> None:
    """The first is long past a day. The second is not, and still knows an event that comes again after any claim."""
    await entered(store, PROJECTION, draft(0, 2, OLD_MICROS), draft(2, 3))
    await entered(store, LATER, draft(0, 2, OLD_MICROS))
    await pass_days(dsn, 30)
    await claimed(store)
    again = replace(draft(2, 3, OLD_MICROS), events=[draft(0, 1, OLD_MICROS).events[0]._replace(offset=2)])

    assert (2,) == (await entered(store, LATER, again)).plans[0].pieces[0].excluded


async def test_a_day_that_no_version_is_at_goes(store: PostgresPlanStore, dsn: str) -> None:
    """Once both are past it."""
    for projection in (PROJECTION, LATER):
        await entered(store, projection, draft(0, 2, OLD_MICROS), draft(2, 3))
    await pass_days(dsn, 3)
    await claimed(store)

    assert [NEW_DAY] == await days_of(dsn)


async def test_a_day_that_was_made_long_ago_and_is_used_stays(
    store: PostgresPlanStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow partition of a rebuild is still at it, while the fastest one has come to today."""
    monkeypatch.setattr("sinks.postgres.plans.DAY_USE_SECONDS", 0.0)
    epoch = await claimed(store)
    for made in (draft(0, 2, OLD_MICROS), draft(2, 3)):
        await store.settle(PROJECTION, (await planned(store, made, epoch)).plans, {COSTS: epoch})
    await pass_days(dsn, 3)
    await planned(store, draft(3, 4, OLD_MICROS), epoch)
    await claimed(store)

    assert [OLD_DAY, NEW_DAY] == await days_of(dsn)


async def test_an_event_of_a_time_to_come_takes_no_days_away(store: PostgresPlanStore, dsn: str) -> None:
    """A client whose clock is years ahead brings nobody past the days of now."""
    now_micros = int(time.time() * 1e6)
    await entered(store, PROJECTION, draft(0, 2, now_micros), draft(2, 3, FAR_MICROS))
    before = await days_of(dsn)
    await pass_days(dsn, 3)
    await claimed(store)

    assert before == await days_of(dsn)


async def test_a_database_without_migrations_is_unavailable() -> None:
    """`quaestor migrate` brings it; until then the runner waits."""
    store = PostgresPlanStore(postgres_databases().dsn("nowhere"), "one")
    with pytest.raises(StoreUnavailableError, match="migrate"):
        await store.open()
    await store.close()
