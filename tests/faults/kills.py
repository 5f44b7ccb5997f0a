"""kill -9 of sinks at random points, and zombies: processes that wake up after others took over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from tests.faults import fencing
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
#: How long a zombie has at most to say how it learned of its loss.
LEARN_SECONDS_MAX = 20.0
Tick = Callable[[], None]


async def kill_sinks(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """Every sink is killed again and again, all of them side by side, while load runs."""
    return await _side_by_side(world, "kill -9", _kills, rounds, tick, stores)


async def zombies(world: World, rounds: int, tick: Tick, stores: Sequence[str] = STORES) -> list[Row]:
    """One of two processes stops for longer than its session and wakes up after the other took over.

    Each round counts how the zombie learned of it (fencing.py). A round without fencing is no fault: one that had
    nothing in its hands when it froze has nothing that could be refused, and gives its partitions back when its group
    says so. A round in which nothing of that was seen is told as not shown.
    """
    fault = "SIGSTOP beyond the session, SIGCONT"
    return await _side_by_side(world, fault, _zombies, rounds, tick, stores, fencing.OUTCOMES)


async def _side_by_side(
    world: World,
    fault: str,
    hurt: Callable[..., Awaitable[None]],
    rounds: int,
    tick: Tick,
    stores: Sequence[str],
    counted: Sequence[str] = (),
) -> list[Row]:
    rows = {store: Row(f"{fault}: sink {store}") for store in stores}
    for row in rows.values():
        row.counts |= dict.fromkeys(counted, 0)
    for first in range(0, rounds, ROUNDS_BETWEEN_VERDICTS):
        some = min(ROUNDS_BETWEEN_VERDICTS, rounds - first)
        async with asyncio.TaskGroup() as group:
            for store in stores:
                group.create_task(measured(rows[store], some, hurt(world, rows[store], store, some, tick)))
        for store, verdict in (await judge(world, stores)).items():
            rows[store].take(verdict)
        if not all(row.ok for row in rows.values()):
            break
    return list(rows.values())


async def _kills(world: World, _row: Row, store: str, rounds: int, tick: Tick) -> None:
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


async def _zombies(world: World, row: Row, store: str, rounds: int, tick: Tick) -> None:
    """First the group's other member takes over, then a new process of the same instance name does."""
    world.kill_sinks(store)
    turns = rounds - rounds // 2
    pair = [world.sink(store) for _ in range(1 if store in ALONE else 2)]
    for _ in range(turns):
        alone = store in ALONE
        row.counts[await (_replaced(world, store, "") if alone else _taken_over(world, store, pair))] += 1
        tick()
    world.kill_sinks(store)
    world.keep(store)
    for _ in range(rounds - turns):
        row.counts[await _replaced(world, store, "one")] += 1
        tick()
    await world.grows(store)


async def _taken_over(world: World, store: str, pair: list[SinkProcess]) -> str:
    """Two members share the partitions; the frozen one's move to the other when its session ends, and come back.

    Answers how it learned of that.
    """
    await world.all_work(store, pair)
    await asyncio.sleep(world.random.uniform(0, BUSY_SECONDS))
    zombie = world.random.choice(pair)
    await _freeze(world, store, zombie)
    written = fencing.length(zombie.log)
    zombie.thaw()
    await world.grows(store)
    return await _learned(world, zombie, written)


async def _learned(world: World, zombie: SinkProcess, written: int) -> str:
    """Wait until the zombie has said how it learned that others took over; NOT_SHOWN when it never does."""

    async def said() -> bool:
        return fencing.learned(zombie.log, written) != fencing.NOT_SHOWN

    with contextlib.suppress(StuckError):
        await world.until(said, f"sink {zombie.store} learns that others took over", LEARN_SECONDS_MAX)
    return fencing.learned(zombie.log, written)


async def _freeze(world: World, store: str, zombie: SinkProcess) -> None:
    """Stop it beyond its session, until others have applied what was in the log by then."""
    zombie.freeze()
    ends = await world.ends(store)
    await asyncio.sleep(FROZEN_SESSIONS * SESSION_SECONDS)
    await world.reaches(store, ends)


async def _replaced(world: World, store: str, instance: str) -> str:
    """Another process starts while it is frozen, by its name where it has one; when it wakes up, one of the two ends.

    Which one is the broker's to say: a zombie that finds its session over joins once more, as the newest of its name,
    and the store's to say: who claims last owns. Each may say its own, and both end: one is started again then. Answers
    how the zombie learned of it.
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
    written = fencing.length(zombie.log)
    zombie.thaw()
    await world.reaches(store, ends)
    survivor = await world.one_ends(zombie, successor)
    outcome = fencing.outcome_of(zombie.log, written, alive=zombie.alive, successor_alive=successor.alive)
    world.tend(survivor, instance)
    await world.grows(store)
    return outcome
