"""Rebalance storms, and scaling out: processes of one sink come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.faults.kills import Tick
from tests.faults.report import Row, measured
from tests.faults.verdict import judge
from tests.faults.world import ALONE, STORES, World

STORM_SECONDS = 60.0
PROCESSES_MAX = 3
PAUSE_SECONDS_MAX = 2.5


async def storms(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """Start, stop and kill consumers at random, for a minute each round and sink, under load; two sinks at a time."""
    rows = {store: Row(f"rebalance storm of {STORM_SECONDS:.0f} s: sink {store}") for store in stores}
    for _ in range(rounds):
        for pair in (stores[:2], stores[2:]):
            async with asyncio.TaskGroup() as group:
                for store in pair:
                    group.create_task(measured(rows[store], 1, _storm(world, store)))
            tick()
    for store, verdict in (await judge(world, stores)).items():
        rows[store].take(verdict)
    return list(rows.values())


def storm_rounds(rounds: int) -> int:
    """How many steps `storms` takes in all."""
    return 2 * rounds


async def _storm(world: World, store: str) -> None:
    until = time.monotonic() + STORM_SECONDS
    while time.monotonic() < until:
        running = world.running(store)
        start = len(running) < PROCESSES_MAX and (not running or world.random.random() < 0.5)
        if start:
            world.sink(store)
        else:
            victim = world.random.choice(running)
            await asyncio.to_thread(victim.kill if world.random.random() < 0.5 else victim.stop)
        await asyncio.sleep(world.random.uniform(0, PAUSE_SECONDS_MAX))
    for process in world.running(store)[1:]:
        await asyncio.to_thread(process.stop)
    if not world.running(store):
        world.sink(store)
    await world.reaches(store)


async def scale_out(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """Add a process to those that share a sink's partitions, then kill one: partitions move, nothing else."""
    sharing = [store for store in stores if store not in ALONE]
    rows = {store: Row(f"add one, kill one: sink {store}") for store in sharing}
    for store in stores:
        world.kill_sinks(store)
        world.sink(store)
    async with asyncio.TaskGroup() as group:
        for store in sharing:
            group.create_task(measured(rows[store], rounds, _add_and_kill(world, store, rounds, tick)))
    for store, verdict in (await judge(world, stores)).items():
        if store in rows:
            rows[store].take(verdict)
    return list(rows.values())


async def _add_and_kill(world: World, store: str, rounds: int, tick: Tick) -> None:
    for _ in range(rounds):
        world.sink(store)
        pair = world.running(store)
        await world.all_work(store, pair)
        await world.grows(store)
        world.random.choice(pair).kill()
        await world.reaches(store, await world.ends(store))
        tick()
