"""Postgres goes back, in a failover or to a backup, and ClickHouse has rows that no plan and no cursor know of."""

from __future__ import annotations

from copy import deepcopy

import pytest

from schemas.errors import GapError, StoreUnavailableError
from sinks.clickhouse import sink as sink_module
from tests.contract.test_sink_contract import claim
from tests.integration.test_clickhouse_repair import delete
from tests.integration.test_clickhouse_sink import CrashError, World, world  # noqa: F401 - fixtures of that module
from tests.integration.test_clickhouse_traps import PRICES, counted, part, whole, write

pytestmark = pytest.mark.stack


async def written_and_forgotten(world: World) -> None:  # noqa: F811 - the fixture's value
    """Offsets 0 to 30 are there in three plans; Postgres remembers the first one."""
    world.ranges.remember(part(0, len(PRICES)))
    await write(world, part(0, 10))
    backup = deepcopy(world.plans._projections)
    for first, after in ((10, 18), (18, 30)):
        await write(world, part(first, after))
    world.plans._projections = backup


async def test_the_next_owner_inserts_only_what_is_missing(world: World) -> None:  # noqa: F811
    """It reads from where Postgres stands, in other cuts, and every event is there once, in its rollup too."""
    await written_and_forgotten(world)
    for first, after in ((10, 13), (13, 30), (30, 40)):
        await write(world, part(first, after))

    assert whole(40) == await counted(world)


async def test_a_batch_that_is_there_in_part_gets_the_rest(world: World) -> None:  # noqa: F811
    """By offset, and no sooner than an insert under way would be seen."""
    await written_and_forgotten(world)
    sink, successor = world.sink(), world.sink()
    await claim(sink, part(10, 40))
    with pytest.raises(StoreUnavailableError, match="10 rows"):
        await sink.write(part(10, 40))
    world.plans.age_seconds = sink_module.DROPPED_AGE_SECONDS
    await claim(successor, part(10, 40))
    await sink.close()
    await successor.close()

    assert whole(40) == await counted(world)


async def test_a_process_that_lives_through_it_doubles_nothing(world: World) -> None:  # noqa: F811
    """Nobody claims anew: it is told of a gap, reads again, and knows what it sent."""
    sink = world.sink()
    await claim(sink, part(0, 10))
    await sink.write(part(0, 10))
    backup = deepcopy(world.plans._projections)
    await sink.write(part(10, 30))
    world.plans._projections = backup
    with pytest.raises(GapError):
        await sink.write(part(30, 40))
    for first, after in ((10, 14), (14, 30), (30, 40)):
        await sink.write(part(first, after))
    await sink.close()

    assert whole(40) == await counted(world)


async def test_a_process_that_has_sent_nothing_yet_doubles_nothing(world: World) -> None:  # noqa: F811
    """What stands below the cursor it claimed is there too."""
    await write(world, part(0, 10))
    backup = deepcopy(world.plans._projections)
    await write(world, part(10, 30))
    sink = world.sink()
    await claim(sink, part(30, 40))
    world.plans._projections = deepcopy(backup)
    for cursor in world.plans._projections[sink.projection].cursors.values():
        cursor.epoch = next(iter(sink._epochs.values()))
    for first, after in ((10, 14), (14, 30), (30, 40)):
        await sink.write(part(first, after))
    await sink.close()

    assert whole(40) == await counted(world)


async def test_a_plan_that_was_sent_and_lost_is_not_inserted_in_another_cut(world: World) -> None:  # noqa: F811
    """The cursor stands where it stood; the plan behind it went with the server that had it."""
    sink = world.sink()
    await claim(sink, part(0, 30))
    backup = deepcopy(world.plans._projections)
    world.plans.crash_before_settle = True
    with pytest.raises(CrashError):
        await sink.write(part(0, 30))
    world.plans.crash_before_settle = False
    world.plans._projections = backup
    for first, after in ((0, 20), (20, 30), (30, 40)):
        await sink.write(part(first, after))
    await sink.close()

    assert whole(40) == await counted(world)


async def test_rows_that_went_too_come_again(world: World) -> None:  # noqa: F811
    """What ClickHouse lost of the range that Postgres forgot is missing, and is inserted."""
    await written_and_forgotten(world)
    await delete(world, "costs", "_off >= 15 AND _off < 20")
    world.plans.age_seconds = sink_module.DROPPED_AGE_SECONDS
    sink, successor = world.sink(), world.sink()
    await claim(sink, part(10, 30))
    with pytest.raises(StoreUnavailableError, match="5 rows"):
        await sink.write(part(10, 30))
    await claim(successor, part(10, 30))
    await sink.close()
    await successor.close()

    assert whole(30) == await counted(world)
