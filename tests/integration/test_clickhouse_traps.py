"""The traps of inserts with deduplication tokens: what the server does, and that the sink stays out of each.

Where a test inserts by hand, it shows the trap on the tables as they are migrated; where it uses the sink, it shows
that the same turn of events loses and doubles nothing.
"""

# ruff: noqa: S608 - names are this module's own

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.errors import StoreUnavailableError
from schemas.events import CostEvent, Event
from sinks.clickhouse import sink as sink_module
from sinks.clickhouse.client import INSERT_SETTINGS, ClickHouse
from sinks.clickhouse.migrations import WINDOW_INSERTS
from sinks.clickhouse.sink import ClickHouseSink
from sinks.clickhouse.tables import TABLES
from sinks.runner.seam import Batch, Decoded
from streams.log import Partition
from tests.contract.test_sink_contract import batch_of, claim
from tests.integration.test_clickhouse_sink import (  # noqa: F401 - fixtures of that module
    CrashError,
    World,
    world,
)
from tests.support.stories import Offsets, request_story

pytestmark = pytest.mark.stack
COSTS = TABLES["quaestor.costs"]
MICROS_PER_MONTH = 31 * 86_400 * 1_000_000
#: As many events of one kind, one nano-unit dearer each.
PRICES = [1_000 + number for number in range(60)]


def costs(prices: Sequence[int], months: int = 1) -> list[Event]:
    """One cost event per price, of one request each, spread over months."""
    found: list[Event] = []
    for number, price in enumerate(prices):
        cost = next(event for event in request_story(number, amount_nano=price) if isinstance(event, CostEvent))
        moved = cost.occurred_at + (number % months) * MICROS_PER_MONTH
        # All of one partition, so that ranges are what the test says.
        found.append(msgspec.structs.replace(cost, occurred_at=moved, request_id="one"))
    return found


def batch(prices: Sequence[int], first: int = 0, months: int = 1) -> Batch:
    """A batch of costs from an offset on, as it would be cut from one log."""
    whole = batch_of(Offsets(), costs(PRICES, months))
    (span,) = whole.spans
    records = [record for record in span.records if first <= record.offset < first + len(prices)]
    span.records, span.first_offset, span.next_offset = records, first, first + len(prices)
    return whole


def part(first: int, after: int, months: int = 1) -> Batch:
    """The batch of offsets [first, after)."""
    return batch(PRICES[first:after], first, months)


async def insert(world: World, given: Batch, token: str) -> None:  # noqa: F811 - the fixture's value
    """Insert a batch by hand, as the sink's client does."""
    (span,) = given.spans
    columns = COSTS.columns_of([(span.partition.number, span.topic_id, span.records)])
    await world.client.insert(COSTS.name, COSTS.column_names, COSTS.column_types, columns, token)


async def counted(world: World) -> tuple[int, int, Decimal]:  # noqa: F811
    """Rows in the table, events in the rollup, money in the rollup."""
    rows = await world.one("SELECT count() FROM {db}.costs")
    rollup = await world.one("SELECT sum(events), sum(amount) FROM {db}.rollup_cost_hourly")
    return int(rows[0]), int(rollup[0]), rollup[1]


def whole(events: int) -> tuple[int, int, Decimal]:
    """What the first events make, each once."""
    return events, events, Decimal(sum(PRICES[:events])) / 10**9


async def crashed(world: World, given: Batch) -> ClickHouseSink:  # noqa: F811
    """A sink that inserted a batch and died before it settled its plan."""
    sink = world.sink()
    world.ranges.remember(part(0, len(PRICES)))
    await claim(sink, given)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await sink.write(given)
    world.plans.crash_before_settle = False
    await sink.close()
    return sink


class Lossy(ClickHouse):
    """A connection that loses every insert, before or after the server applied it, however it is sent."""

    when = "before"

    async def insert(self, *arguments: Any) -> None:
        """Columns."""
        await self._losing(super().insert, arguments)

    async def insert_block(self, *arguments: Any) -> None:
        """A block."""
        await self._losing(super().insert_block, arguments)

    async def _losing(self, send: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
        if self.when == "after":
            await send(*arguments)
        raise StoreUnavailableError(f"lost {self.when}")


class InsertedAs(ClickHouse):
    """A connection with other settings than ours."""

    def __init__(self, url: str, database: str, settings: dict[str, int]) -> None:
        """These come over ours."""
        super().__init__(url, database)
        self._settings = {**INSERT_SETTINGS, **settings}

    async def insert(self, table: str, names: Sequence[str], _: Any, columns: list[Any], token: str) -> None:  # type: ignore[override]
        """As the client does."""
        client = await self._opened()
        settings = {**self._settings, "insert_deduplication_token": token}
        into = f"{self.database}.{table}"
        await self._run(
            lambda: client.insert(into, columns, column_names=list(names), column_oriented=True, settings=settings)
        )


async def lost(world: World, given: Batch, when: str, months: int = 1) -> None:  # noqa: F811
    """A sink whose insert was lost before or after the server applied it; the process ends there."""
    client = Lossy(world.url, world.database)
    client.when = when
    sink = world.sink(client)
    world.ranges.remember(part(0, len(PRICES), months))
    await claim(sink, given)
    with pytest.raises(StoreUnavailableError):
        await sink.write(given)
    await sink.close()


async def write(world: World, *given: Batch) -> None:  # noqa: F811
    """A fresh sink writes batches."""
    sink = world.sink()
    await claim(sink, given[0])
    for each in given:
        await sink.write(each)
    await sink.close()


async def test_trap_a_token_covers_whatever_it_first_came_with(world: World) -> None:  # noqa: F811
    """By hand: the same token with more rows answers success and drops the new ones, in table and rollup."""
    await insert(world, part(0, 20), "token")
    await insert(world, part(0, 30), "token")

    assert whole(20) == await counted(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("after", [10, 30, 45], ids=["shrunk", "the same", "grown"])
async def test_a_retry_that_would_cut_a_different_range_inserts_the_planned_one(
    world: World,  # noqa: F811
    when: str,
    after: int,
) -> None:
    """After a lost insert or a lost answer, a successor that cuts other batches loses and doubles nothing."""
    await lost(world, part(0, 30), when)
    await write(world, part(0, after), part(0, len(PRICES)))

    assert whole(len(PRICES)) == await counted(world)


async def test_trap_a_range_cut_anew_under_new_tokens_is_doubled(world: World) -> None:  # noqa: F811
    """By hand: 0 to 30, then 0 to 20 and 20 to 40 under their own tokens: thirty rows stand there twice."""
    for first, after in ((0, 30), (0, 20), (20, 40)):
        await insert(world, part(first, after), f"{first}-{after}")

    assert 70 == (await counted(world))[0]


async def test_a_range_cut_anew_goes_on_behind_the_plan(world: World) -> None:  # noqa: F811
    """The same cuts through the sink: the plan's range first, then what is behind it."""
    await lost(world, part(0, 30), "after")
    await write(world, part(0, 20), part(20, 40))

    assert whole(40) == await counted(world)


async def test_trap_a_token_older_than_the_window_is_no_guard(world: World) -> None:  # noqa: F811
    """By hand: a window of three inserts has forgotten the first of five."""
    setting = "MODIFY SETTING non_replicated_deduplication_window = 3"
    await world.client.command(f"ALTER TABLE {world.database}.costs {setting}")
    for first in range(5):
        await insert(world, part(first, first + 1), f"token {first}")
    await insert(world, part(0, 1), "token 0")

    assert 6 == (await counted(world))[0]


async def test_a_plan_older_than_the_window_is_counted_not_inserted(world: World) -> None:  # noqa: F811
    """The window has truly forgotten the plan's token; its rows are there, so it is settled without an insert."""
    await crashed(world, part(0, 30))
    for table in ("costs", "rollup_cost_hourly"):
        setting = "MODIFY SETTING non_replicated_deduplication_window = 3"
        await world.client.command(f"ALTER TABLE {world.database}.{table} {setting}")
    for number in range(5):
        await insert(world, part(55, 56), f"another {number}")
    before = await counted(world)
    world.plans.age_seconds = sink_module.TRUSTED_AGE_SECONDS + 1.0
    await write(world, part(30, 31))

    assert 1 == (await counted(world))[0] - before[0]


async def test_a_plan_older_than_the_window_that_never_landed_is_inserted(world: World) -> None:  # noqa: F811
    """None of its rows is there: all of them go in, once."""
    await lost(world, part(0, 30), "before")
    world.plans.age_seconds = sink_module.TRUSTED_AGE_SECONDS + 1.0
    await write(world, part(30, 40))

    assert whole(40) == await counted(world)


@pytest.mark.parametrize("how", ["TRUNCATE TABLE {table}", "ALTER TABLE {table} DROP PARTITION 202611"])
async def test_a_run_again_after_truncate_inserts_again(world: World, how: str) -> None:  # noqa: F811
    """A rebuild that empties table and rollup by TRUNCATE or DROP PARTITION may use the same tokens again."""
    await insert(world, part(0, 30), "token")
    for table in ("costs", "rollup_cost_hourly"):
        await world.client.command(how.format(table=f"{world.database}.{table}"))
    assert (0, 0) == (await counted(world))[:2]
    await insert(world, part(0, 30), "token")

    assert whole(30) == await counted(world)


async def test_an_open_plan_after_truncate_is_inserted_again(world: World) -> None:  # noqa: F811
    """A table emptied between insert and settle: the successor's repeat brings the rows back, once."""
    await crashed(world, part(0, 30))
    for table in ("costs", "rollup_cost_hourly"):
        await world.client.command(f"TRUNCATE TABLE {world.database}.{table}")
    await write(world, part(0, 40))

    assert whole(40) == await counted(world)


async def test_trap_a_run_again_after_delete_inserts_nothing(world: World) -> None:  # noqa: F811
    """By hand: ALTER DELETE leaves the tokens, so a rebuild under them answers success and stays empty."""
    await insert(world, part(0, 30), "token")
    await world.client.command(f"ALTER TABLE {world.database}.costs DELETE WHERE 1 SETTINGS mutations_sync = 2")
    await insert(world, part(0, 30), "token")

    assert 0 == (await counted(world))[0]


@pytest.mark.parametrize("left", [0, 20], ids=["none", "some"])
async def test_an_open_plan_whose_token_outlived_its_rows_is_made_whole(world: World, left: int) -> None:  # noqa: F811
    """As a full disk or a broken part leaves it: the repeat is dropped, the rows go in by offset, each once."""
    await crashed(world, part(0, 30))
    for table in ("costs", "rollup_cost_hourly"):
        await world.client.command(f"ALTER TABLE {world.database}.{table} DELETE WHERE 1 SETTINGS mutations_sync = 2")
    if left:
        await insert(world, part(0, left), "what is left")
    world.plans.age_seconds = sink_module.DROPPED_AGE_SECONDS
    await write(world, part(0, 40))

    assert whole(40) == await counted(world)


async def test_rows_that_may_still_come_are_waited_for(world: World) -> None:  # noqa: F811
    """A plan of this moment may be on its way: nothing is repaired, nothing is settled."""
    await crashed(world, part(0, 30))
    await world.client.command(f"ALTER TABLE {world.database}.costs DELETE WHERE 1 SETTINGS mutations_sync = 2")
    with pytest.raises(StoreUnavailableError, match="30 rows"):
        await claim(world.sink(), part(0, 30))

    assert 0 == (await counted(world))[0]


async def test_another_version_of_the_projection_has_tokens_of_its_own(world: World) -> None:  # noqa: F811
    """The version stands in every token: what one version's tokens cover, another version inserts."""
    await write(world, part(0, 30))
    for table in ("costs", "rollup_cost_hourly"):
        await world.client.command(f"ALTER TABLE {world.database}.{table} DELETE WHERE 1 SETTINGS mutations_sync = 2")
    second = ClickHouseSink(world.client, world.plans, world.ranges, projection="clickhouse@v2")
    await claim(second, part(0, 30))
    await second.write(part(0, 30))

    assert whole(30) == await counted(world)


async def test_every_target_of_a_view_has_a_window_of_its_own(world: World) -> None:  # noqa: F811
    """As the server has them: each table that an insert reaches, itself or through a view, remembers its tokens."""
    rows = await world.client.query(
        f"SELECT name, create_table_query FROM system.tables WHERE database = '{world.database}'"
        " AND engine LIKE '%MergeTree%' AND name != 'migrations'"
    )

    reached = {table.name for table in TABLES.values()} | {"rollup_cost_hourly", "rollup_requests_hourly"}
    assert reached == {name for name, _ in rows}
    assert [] == [name for name, query in rows if f"deduplication_window = {WINDOW_INSERTS}" not in query]


async def test_trap_a_view_without_a_window_counts_a_repeat(world: World) -> None:  # noqa: F811
    """By hand: with no window on the target the facts stay right and the rollup doubles."""
    setting = "MODIFY SETTING non_replicated_deduplication_window = 0"
    await world.client.command(f"ALTER TABLE {world.database}.rollup_cost_hourly {setting}")
    await insert(world, part(0, 30), "token")
    await insert(world, part(0, 30), "token")

    assert (30, 60) == (await counted(world))[:2]


async def test_a_view_that_fails_at_first_has_everything_after_the_repeat(world: World) -> None:  # noqa: F811
    """A view throws within the insert, and a server may say so: facts land without it, the repeat brings the rest."""
    view = f"{world.database}.rollup_cost_hourly_view"
    create = f"CREATE MATERIALIZED VIEW {view} TO {world.database}.rollup_cost_hourly AS "
    (ours,) = await world.one("SELECT as_select FROM system.tables WHERE concat(database, '.', name) = '" + view + "'")
    await world.client.command(f"DROP VIEW {view}")
    await world.client.command(
        f"{create}SELECT toStartOfHour(occurred_at, 'UTC') AS hour, "
        f"toInt64(throwIf(costs.quantity > 0, 'no')) AS quantity "
        f"FROM {world.database}.costs"
    )
    sink = world.sink()
    await claim(sink, part(0, 30))
    world.plans.crash_before_settle = True
    with pytest.raises((CrashError, StoreUnavailableError)):
        await sink.write(part(0, 30))
    world.plans.crash_before_settle = False
    assert (30, 0) == (await counted(world))[:2]
    await world.client.command(f"DROP VIEW {view}")
    await world.client.command(f"{create}{ours}")
    await sink.write(part(0, 30))
    await sink.close()

    assert whole(30) == await counted(world)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_batch_over_several_months_is_one_insert(world: World, when: str) -> None:  # noqa: F811
    """Rows of three table partitions under one token: a repeat adds to none of them and lacks in none."""
    await lost(world, part(0, 30, months=3), when, months=3)
    await write(world, part(0, 30, months=3))

    months = await world.client.query(f"SELECT count() FROM {world.database}.costs GROUP BY toYYYYMM(occurred_at)")
    assert [(10,)] * 3 == months
    assert whole(30) == await counted(world)


async def test_trap_a_repeat_without_our_setting_for_views(world: World) -> None:  # noqa: F811
    """By hand: views that are not told to drop what they have."""
    (span,) = part(0, 30).spans
    columns = COSTS.columns_of([(span.partition.number, span.topic_id, span.records)])
    client = InsertedAs(world.url, world.database, {"deduplicate_blocks_in_dependent_materialized_views": 0})
    for _ in range(2):
        await client.insert(COSTS.name, COSTS.column_names, COSTS.column_types, columns, "token")
    await client.close()

    assert (30, 60) == (await counted(world))[:2]


async def test_trap_a_table_that_replaces_rows_has_views_that_do_not(world: World) -> None:  # noqa: F811
    """By hand: the same rows under another token are one each for FINAL, and two each for the view's target."""
    of = world.database
    for statement in (
        f"CREATE TABLE {of}.replaced (place Int64, amount Int64) ENGINE = ReplacingMergeTree ORDER BY place",
        f"CREATE TABLE {of}.summed (amount Int64) ENGINE = SummingMergeTree ORDER BY ()",
        f"CREATE MATERIALIZED VIEW {of}.summing TO {of}.summed AS SELECT amount FROM {of}.replaced",
        *[f"INSERT INTO {of}.replaced SETTINGS insert_deduplication_token = '{n}' VALUES (1, 5)" for n in "ab"],
    ):
        await world.client.command(statement)

    assert (5,) == await world.one("SELECT sum(amount) FROM {db}.replaced FINAL")
    assert (10,) == await world.one("SELECT sum(amount) FROM {db}.summed")


def decoded(given: Batch) -> list[Decoded]:
    """The records of a batch."""
    return [record for span in given.spans for record in span.records]


def test_the_cuts_of_this_module_are_of_one_partition() -> None:
    """Ranges mean what the tests say."""
    assert list(range(10, 20)) == [record.offset for record in decoded(part(10, 20))]
    assert {Partition("quaestor.costs", part(0, 5).spans[0].partition.number)} == {
        span.partition for span in part(30, 40).spans
    }
