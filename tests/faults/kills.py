"""kill -9 of sinks at random points, and zombies: processes that wake up after others took over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from tests.faults.report import Row, measured
from tests.faults.verdict import judge
from tests.faults.world import ALONE, SESSION_SECONDS, STORES, SinkProcess, StuckError, World

#: Rounds after which everything is verified, and at the end.
ROUNDS_BETWEEN_VERDICTS = 50
#: Part of the kills that hit a process while it starts, claims and recovers, rather than while it writes.
EARLY = 0.3
START_SECONDS = 2.0
BUSY_SECONDS = 0.6
#: How long a frozen process stays so, in sessions.
FROZEN_SESSIONS = 1.6
#: How long at most, seconds.
FROZEN_SECONDS_MAX = 30.0
Tick = Callable[[], None]


async def kill_sinks(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """Every sink is killed again and again, all of them side by side, while load runs."""
    return await _side_by_side(world, "kill -9", _kills, rounds, tick, stores)


async def zombies(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """One of two processes stops for longer than its session and wakes up after the other took over."""
    return await _side_by_side(world, "SIGSTOP beyond the session, SIGCONT", _zombies, rounds, tick, stores)


async def _side_by_side(
    world: World, fault: str, hurt: Callable[..., Awaitable[None]], rounds: int, tick: Tick, stores: Sequence[str]
) -> list[Row]:
    rows = {store: Row(f"{fault}: sink {store}") for store in stores}
    for first in range(0, rounds, ROUNDS_BETWEEN_VERDICTS):
        some = min(ROUNDS_BETWEEN_VERDICTS, rounds - first)
        async with asyncio.TaskGroup() as group:
            for store in stores:
                group.create_task(measured(rows[store], some, hurt(world, store, some, tick)))
        for store, verdict in (await judge(world, stores)).items():
            rows[store].take(verdict)
        if not all(row.ok for row in rows.values()):
            break
    return list(rows.values())


async def _kills(world: World, store: str, rounds: int, tick: Tick) -> None:
    """Kill and start at once, as a supervisor does; the last one stays."""
    world.kill_sinks(store)
    process = world.sink(store, instance="one")
    for _ in range(rounds):
        if world.random.random() < EARLY:
            await asyncio.sleep(world.random.uniform(0, START_SECONDS))
        else:
            await world.grows(store)
            await asyncio.sleep(world.random.uniform(0, BUSY_SECONDS))
        process.kill()
        process = world.sink(store, instance="one")
        tick()
    await world.grows(store)


async def _zombies(world: World, store: str, rounds: int, tick: Tick) -> None:
    """First the group's other member takes over, then a new process of the same instance name does."""
    world.kill_sinks(store)
    turns = rounds - rounds // 2
    pair = [world.sink(store) for _ in range(1 if store in ALONE else 2)]
    for _ in range(turns):
        if store in ALONE:
            await _replaced(world, store, "")
        else:
            await _taken_over(world, store, pair)
        tick()
    world.kill_sinks(store)
    world.keep(store)
    for _ in range(rounds - turns):
        await _replaced(world, store, "one")
        tick()
    await world.grows(store)


async def _taken_over(world: World, store: str, pair: list[SinkProcess]) -> None:
    """Two members share the partitions; the frozen one's move to the other when its session ends, and come back."""
    await world.all_work(store, pair)
    await asyncio.sleep(world.random.uniform(0, BUSY_SECONDS))
    zombie = world.random.choice(pair)
    await _freeze(world, store, zombie)
    zombie.thaw()
    await world.grows(store)


async def _freeze(world: World, store: str, zombie: SinkProcess) -> None:
    """Stop it beyond its session, until others have applied what was in the log by then."""
    zombie.freeze()
    ends = await world.ends(store)
    await asyncio.sleep(FROZEN_SESSIONS * SESSION_SECONDS)
    await world.reaches(store, ends)


async def _replaced(world: World, store: str, instance: str) -> None:
    """Another process starts while it is frozen, by its name where it has one; when it wakes up, one of the two ends.

    Which one is the broker's to say: a zombie that finds its session over joins once more, as the newest of its name,
    and the store's to say: who claims last owns. Each may say its own, and both end: one is started again then.
    """
    await world.grows(store)
    await asyncio.sleep(world.random.uniform(0, BUSY_SECONDS))
    zombie = world.running(store)[-1]
    zombie.again = None
    zombie.freeze()
    successor = world.sink(store, instance)
    ends = await world.ends(store)
    with contextlib.suppress(StuckError):
        # One that froze with the lock file of the audit log in its hand keeps it until it wakes up.
        await world.reaches(store, ends, FROZEN_SECONDS_MAX)
    zombie.thaw()
    await world.reaches(store, ends)
    survivor = await world.one_ends(zombie, successor)
    world.tend(survivor, instance)
    await world.grows(store)
