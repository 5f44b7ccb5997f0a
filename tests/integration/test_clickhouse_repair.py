"""What the ClickHouse sink makes whole again, on the real front: plans there in part, rollups beside their facts.

A table that loses rows stands for a disk that filled up or a part that broke; a plan's age is what the test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from schemas.errors import FencedError, StoreUnavailableError
from schemas.topics import REQUESTS
from sinks.clickhouse import rollups
from sinks.clickhouse import sink as sink_module
from sinks.clickhouse.client import ClickHouse
from sinks.clickhouse.memory import MemoryPlanStore
from sinks.clickhouse.plans import Draft, Misplaced, Piece, Planned, PlanStore
from sinks.clickhouse.rollups import Rollups
from streams.log import Partition
from tests.contract.test_sink_contract import claim
from tests.integration.test_clickhouse_sink import (  # noqa: F401 - fixtures of that module
    CrashError,
    World,
    everything,
    world,
)
from tests.integration.test_clickhouse_traps import counted, crashed, insert, lost, part, whole, write
from tests.support.clickhouse_sink import CALM_SECONDS, RememberingSink

pytestmark = pytest.mark.stack
YOUNG = sink_module.DROPPED_AGE_SECONDS
OLD = sink_module.TRUSTED_AGE_SECONDS + 1.0
#: A row of the rollup of costs, of another hour.
OF_NO_FACT = "(hour, tenant_id, events) VALUES ('2026-01-01 00:00:00', 'x', 7)"
DOUBLE = "INSERT INTO {table} SELECT * FROM {table} SETTINGS insert_deduplicate = 0"
AGES = pytest.mark.parametrize("age_seconds", [YOUNG, OLD], ids=["young", "old"])


async def delete(world: World, table: str, where: str = "1") -> None:  # noqa: F811 - the fixture's value
    """Lose rows of one table, and no token."""
    statement = f"ALTER TABLE {world.database}.{table} DELETE WHERE {where} SETTINGS mutations_sync = 2"
    await world.client.command(statement)


async def forget_tokens(world: World) -> None:  # noqa: F811
    """Push every token out of the windows of costs and their rollup, leaving no rows behind."""
    for table in ("costs", "rollup_cost_hourly"):
        setting = "MODIFY SETTING non_replicated_deduplication_window = 3"
        await world.client.command(f"ALTER TABLE {world.database}.{table} {setting}")
    for number in range(5):
        await insert(world, part(55 + number, 56 + number), f"another {number}")
    await delete(world, "costs", "_off >= 55")
    await world.client.command(f"TRUNCATE TABLE {world.database}.rollup_cost_hourly")
    await Rollups(world.client, look_again_seconds=0, calm_seconds=CALM_SECONDS).mend_all(0)


@pytest.mark.parametrize("lost_rows", ["_off = 0", "_off < 29", "_off % 2 = 1"])
async def test_an_old_plan_that_is_there_in_part_gets_what_is_missing(world: World, lost_rows: str) -> None:  # noqa: F811
    """Its token is forgotten: the offsets without a row are inserted, the others are not, and the rollup follows."""
    await crashed(world, part(0, 30))
    await delete(world, "costs", lost_rows)
    await forget_tokens(world)
    world.plans.age_seconds = OLD
    await write(world, part(30, 40))

    assert whole(40) == await counted(world)


@AGES
async def test_a_rollup_without_rows_that_its_facts_have_gets_them(world: World, age_seconds: float) -> None:  # noqa: F811
    """The view's insert was lost, its token was not: nothing that repeats the plan's insert would bring it."""
    await crashed(world, part(0, 30))
    await delete(world, "rollup_cost_hourly")
    world.plans.age_seconds = age_seconds
    await write(world, part(30, 40))

    assert whole(40) == await counted(world)


@AGES
async def test_facts_that_were_lost_alone_do_not_count_twice_in_the_rollup(world: World, age_seconds: float) -> None:  # noqa: F811
    """They come under another token, with which the view counts them again; the hours are made anew."""
    await crashed(world, part(0, 30))
    await delete(world, "costs", "_off >= 10")
    world.plans.age_seconds = age_seconds
    await write(world, part(30, 40))

    assert whole(40) == await counted(world)


@AGES
async def test_requests_lost_on_either_side_are_whole_again(world: World, age_seconds: float) -> None:  # noqa: F811
    """The rollup with states of quantiles too: a third of the facts is lost, and all of the other side."""
    sink, successor, batch = world.sink(), world.sink(), everything()
    await claim(sink, batch)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await sink.write(batch)
    world.plans.crash_before_settle = False
    await delete(world, "requests", "_off % 3 = 0")
    await delete(world, "rollup_requests_hourly")
    world.plans.age_seconds = age_seconds
    await claim(successor, batch)
    await sink.close()
    await successor.close()

    await world.assert_whole()


async def test_hours_that_no_plan_in_doubt_has_are_left_alone(world: World) -> None:  # noqa: F811
    """What stands in another hour of the rollup was not compared and stays, wrong as it is."""
    await crashed(world, part(0, 30))
    await world.client.command(f"INSERT INTO {world.database}.rollup_cost_hourly {OF_NO_FACT}")
    await delete(world, "rollup_cost_hourly", "tenant_id != 'x'")
    world.plans.age_seconds = OLD
    await write(world, part(30, 31))

    assert (31, 31 + 7) == (await counted(world))[:2]


async def test_months_that_retention_may_have_cut_are_not_made_anew(world: World) -> None:  # noqa: F811
    """A rollup outlives its facts: made from what is left of them it would lose what only it has."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    await delete(world, "requests", "_off % 3 = 0")
    much_later = Rollups(world.client, lambda: 1.0e10, 0, CALM_SECONDS)
    spans = [span for span in batch.spans if span.partition.topic == REQUESTS.name]
    pieces = [Piece(each.partition, each.topic_id, each.first_offset, each.next_offset, ()) for each in spans]
    await much_later.mend(REQUESTS.name, pieces)

    assert (40,) == await world.one("SELECT sum(requests) FROM {db}.rollup_requests_hourly")


async def test_every_rollup_is_made_anew_when_an_operator_asks(world: World) -> None:  # noqa: F811
    """Rows that are missing, doubled, or of no fact at all; how many hours were is told, and a second time none."""
    sink, batch = world.sink(), everything()
    await claim(sink, batch)
    await sink.write(batch)
    await sink.close()
    await delete(world, "rollup_cost_hourly", "tenant_id = 'acme'")
    await world.client.command(DOUBLE.format(table=f"{world.database}.rollup_requests_hourly"))
    await world.client.command(f"INSERT INTO {world.database}.rollup_cost_hourly {OF_NO_FACT}")
    keeper = Rollups(world.client, look_again_seconds=0, calm_seconds=CALM_SECONDS)

    assert {"rollup_cost_hourly": 2, "rollup_requests_hourly": 2} == await keeper.mend_all(0)
    assert {"rollup_cost_hourly": 0, "rollup_requests_hourly": 0} == await keeper.mend_all(0)
    await world.assert_whole()


class Disturbed(Rollups):
    """A rollup into which a view writes facts once more, just behind the statements that make an hour anew."""

    disturbances = 1

    async def _make_anew(self, rollup: rollups.Rollup, buckets: Sequence[rollups.Bucket]) -> None:
        await super()._make_anew(rollup, buckets)
        if self.disturbances:
            self.disturbances -= 1
            # As one whose facts were seen already.
            await self._clickhouse.command(DOUBLE.format(table=f"{self._clickhouse.database}.{rollup.name}"))


async def test_an_insert_that_comes_between_is_seen_and_the_hour_made_anew_again(world: World) -> None:  # noqa: F811
    """Other processes write the same hours: what a rebuild counted twice for them is there at the second look."""
    await crashed(world, part(0, 30))
    await delete(world, "rollup_cost_hourly")
    sink = world.sink()
    sink._rollups = disturbed = Disturbed(world.client, look_again_seconds=0, calm_seconds=CALM_SECONDS)
    world.plans.age_seconds = OLD
    await claim(sink, part(0, 30))
    await sink.close()

    assert whole(30) == await counted(world)
    assert 0 == disturbed.disturbances


async def test_a_rollup_that_keeps_differing_keeps_its_plan_open(world: World) -> None:  # noqa: F811
    """Nothing is settled that is not whole: it is tried again, as with a store that is away."""
    await crashed(world, part(0, 30))
    await delete(world, "rollup_cost_hourly")
    sink = world.sink()
    sink._rollups = disturbed = Disturbed(world.client, look_again_seconds=0, calm_seconds=CALM_SECONDS)
    disturbed.disturbances = rollups.TRIES_MAX
    with pytest.raises(StoreUnavailableError, match="keeps differing"):
        await claim(sink, part(0, 30))
    await sink.close()
    await write(world, part(0, 40))

    assert whole(40) == await counted(world)


class Frozen(MemoryPlanStore):
    """Plans whose answer reaches a process long after it was given."""

    def __init__(self, plans: PlanStore) -> None:
        """Of these plans."""
        self._plans = plans
        self.is_planned, self.goes_on = asyncio.Event(), asyncio.Event()

    def __getattribute__(self, name: str) -> object:
        """Everything else is the plans' own."""
        own = name.startswith("_") or name in {"plan", "is_planned", "goes_on"}
        return super().__getattribute__(name) if own else getattr(self._plans, name)

    async def plan(
        self, projection: str, drafts: Sequence[Draft], epochs: Mapping[Partition, int]
    ) -> Planned | Misplaced:
        """Plan, and answer when the process goes on."""
        planned = await self._plans.plan(projection, drafts, epochs)
        self.is_planned.set()
        await self.goes_on.wait()
        return planned


async def test_a_sink_frozen_behind_its_plan_inserts_nothing_that_its_successor_did(world: World) -> None:  # noqa: F811
    """It goes on when no token is left of what its successor inserted: it asks again, and is fenced."""
    now_seconds = [1_000.0]
    plans = Frozen(world.plans)
    frozen = RememberingSink(
        ClickHouse(world.url, world.database), plans, world.ranges, now_seconds=lambda: now_seconds[0]
    )
    await claim(frozen, part(0, 30))
    writing = asyncio.ensure_future(frozen.write(part(0, 30)))
    await plans.is_planned.wait()
    await write(world, part(0, 30))
    await forget_tokens(world)
    now_seconds[0] += sink_module.HELD_UP_SECONDS_MAX + 1
    plans.goes_on.set()
    with pytest.raises(StoreUnavailableError, match="held up"):
        await writing
    with pytest.raises(FencedError):
        await frozen.write(part(0, 30))
    await frozen.close()

    assert whole(30) == await counted(world)


async def test_time_is_looked_at_on_the_way_out(world: World) -> None:  # noqa: F811
    """A process that stops once it has its rows ready, waiting for a thread, has not sent them."""
    now_seconds = [1_000.0]

    class Slow(ClickHouse):
        async def insert_block(self, *arguments: object) -> None:
            now_seconds[0] += sink_module.HELD_UP_SECONDS_MAX + 1
            await super().insert_block(*arguments)  # type: ignore[arg-type]

        async def insert(self, *arguments: object) -> None:
            now_seconds[0] += sink_module.HELD_UP_SECONDS_MAX + 1
            await super().insert(*arguments)  # type: ignore[arg-type]

    sink = RememberingSink(
        Slow(world.url, world.database), world.plans, world.ranges, now_seconds=lambda: now_seconds[0]
    )
    await claim(sink, part(0, 30))
    with pytest.raises(StoreUnavailableError, match="held up"):
        await sink.write(part(0, 30))
    await sink.close()

    assert 0 == (await counted(world))[0]


async def test_an_old_plan_that_waits_to_be_inserted_is_not_inserted_by_one_held_up(world: World) -> None:  # noqa: F811
    """Counting it found nothing; what is found by then may be another's."""
    await lost(world, part(0, 30), "before")
    world.plans.age_seconds = OLD
    now_seconds = [1_000.0]

    class Slow(ClickHouse):
        async def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[tuple[object, ...]]:
            found = await super().query(sql, parameters)
            now_seconds[0] += sink_module.HELD_UP_SECONDS_MAX + 1
            return found

    sink = RememberingSink(
        Slow(world.url, world.database), world.plans, world.ranges, now_seconds=lambda: now_seconds[0]
    )
    with pytest.raises(StoreUnavailableError, match="held up"):
        await claim(sink, part(0, 30))
    await sink.close()

    assert 0 == (await counted(world))[0]
