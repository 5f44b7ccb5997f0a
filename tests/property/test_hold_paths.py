"""The hold store in memory and the one in Lua take the same path: any asks, in any order with what the log brings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from processors.budgets import BudgetFold, extended_event
from schemas.events import BudgetEvent, HoldLeg
from sinks.redis.holds import Placed, PlaceHold
from sinks.redis.reads import RedisReads, TenantState, compare
from tests.budget_world import NOW_MICROS, TENANT, Events, hold_id, leg
from tests.support.hold_worlds import MemoryWorld, RedisWorld, World
from tests.valkey import Valkey, running

LIMIT = 100
HOLDS = 3
OFTEN = ("extend", "EXTENDED") * 4 + ("PLACED",) * 3
ACTS = (*OFTEN, "place", "confirm", "COMMITTED", "RELEASED", "EXPIRED", "generation")
#: What happens, to which hold, and up to how much.
STEPS = st.tuples(st.sampled_from(ACTS), st.integers(0, HOLDS - 1), st.sampled_from((0, 10, 20, 30, 50, 80, 120)))
PATHS = st.lists(STEPS, min_size=3, max_size=30)
#: Most paths begin so.
BEGINNING = [(act, number, 10) for number in range(2) for act in ("place", "confirm")]
Path = Sequence[tuple[str, int, int]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A real server over a Unix socket."""
    with running() as server:
        yield server


def legs_of(number: int, amount: int) -> tuple[HoldLeg, ...]:
    """One hold stands on one limit, the others on two; the second counts one, as requests do."""
    return (leg(amount),) if number == 0 else (leg(amount), leg(1, "requests"))


class Walk:
    """One path on one world, and the fold of what its log brought."""

    def __init__(self, world: World, holds: Sequence[str]) -> None:
        """Nothing has happened."""
        self._world, self._holds, self._made = world, holds, Events()
        self._placed = [self._made.placed(hold, *legs_of(at, 10)) for at, hold in enumerate(holds)]
        self._generations = [""] * HOLDS
        self.fold = BudgetFold()
        self.answers: list[str] = []

    async def take(self, path: Path) -> None:
        """All of it."""
        for act, number, amount in path:
            if act == "generation":
                await self._world.new_generation(is_open=True)
            elif act in {"place", "extend"}:
                await self._ask(act, number, amount)
            elif act == "confirm":
                confirm = self._world.store.confirm
                self.answers.append(await confirm(TENANT, self._holds[number], self._generations[number] or "none"))
            else:
                event = self._event(act, number, amount)
                self.fold.apply(event)
                await self._world.apply(event)

    async def _ask(self, act: str, number: int, amount: int) -> None:
        store, legs = self._world.store, legs_of(number, amount if act == "extend" else 10)
        ask = PlaceHold(TENANT, self._holds[number], legs, (LIMIT, HOLDS - 1)[: len(legs)])
        answer = await (store.extend(ask) if act == "extend" else store.place(ask))
        if isinstance(answer, Placed):
            self._generations[number] = answer.generation
        self.answers.append("Placed" if isinstance(answer, Placed) else str(answer))

    def _event(self, kind: str, number: int, amount: int) -> BudgetEvent:
        placed = self._placed[number]
        if kind == "EXTENDED":
            return extended_event(
                placed,
                event_id=hold_id(9),
                occurred_at=NOW_MICROS,
                actor="t",
                amount_nano=amount,
                lease_until=NOW_MICROS,
            )
        if kind == "COMMITTED":
            return self._made.committed(placed, amount)
        return {"PLACED": placed, "RELEASED": self._made.released(placed), "EXPIRED": self._made.expired(placed)}[kind]


async def walked(world: World, holds: Sequence[str], path: Path) -> tuple[Walk, frozenset[str]]:
    """The walk, and which holds have something that the log has not confirmed."""
    walk = Walk(world, holds)
    await walk.take(path)
    return walk, await world.unconfirmed()


async def both(url: str, path: Path) -> tuple[list[tuple[Walk, frozenset[str]]], TenantState]:
    """The path in memory and in Lua, and what the slot holds then."""
    holds = [hold_id(number, time.time_ns() // 1_000) for number in range(HOLDS)]
    memory, reads = MemoryWorld(), RedisReads(url)
    await memory.open_tenant()
    async with RedisWorld(url) as redis:
        await reads.open()
        try:
            found = [await walked(memory, holds, path), await walked(redis, holds, path)]
            return found, await reads.tenant_state(TENANT)
        finally:
            await reads.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# A late commit does not change what the hold was placed with.
@example(path=[("PLACED", 0, 0), ("EXPIRED", 0, 0), ("COMMITTED", 0, 0), ("place", 0, 0)], begun=True)
# More is raised than waits: only what waits leaves the overlay.
@example(path=[("PLACED", 0, 0), ("extend", 0, 20), ("EXTENDED", 0, 50)], begun=True)
@given(path=PATHS, begun=st.sampled_from((True, True, True, False)))
def test_memory_and_lua_answer_alike_and_hold_what_the_fold_says(valkey: Valkey, path: Path, begun: bool) -> None:
    """Every answer, what waits for the log, and at the end the sums and open holds of the fold."""
    valkey.command("FLUSHALL")
    (memory, redis), state = asyncio.run(both(valkey.url, [*(BEGINNING if begun else ()), *path]))
    assert redis[0].answers == memory[0].answers
    assert redis[1] == memory[1]
    assert compare(redis[0].fold.sums, redis[0].fold.open_holds, state) == []
