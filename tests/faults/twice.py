"""Events produced twice: what was lately produced is in the log once more, as by a spool that is drained twice."""

from __future__ import annotations

import asyncio

from tests.faults.kills import BUSY_SECONDS, Tick
from tests.faults.report import Row, measured
from tests.faults.verdict import judge
from tests.faults.world import STORES, World

#: Records that are new between two repetitions.
RECORDS_BETWEEN = 1_000


async def twice(world: World, rounds: int, tick: Tick) -> list[Row]:
    """Publish the last stories whole once more, and kill a sink while it meets them; every event must count once."""
    row = Row("events produced twice: a spool drained again")
    for store in STORES:
        world.keep(store)
    for _ in range(rounds):
        await measured(row, 1, _again(world))
        tick()
        if not row.ok:
            break
    for verdict in (await judge(world)).values():
        row.take(verdict)
    return [row]


async def _again(world: World) -> None:
    await world.grows("audit", RECORDS_BETWEEN)
    repeated = world.load.repeat()
    store = world.random.choice(STORES)
    await world.grows(store, repeated // len(STORES))
    await asyncio.sleep(world.random.uniform(0, BUSY_SECONDS))
    world.keep(store)
    await asyncio.gather(*(world.grows(each, repeated) for each in STORES if each != "redis"))
