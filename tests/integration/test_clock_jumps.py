"""A gateway's clock jumps, back and forth, over a window's boundary: no window overspent, no hold left, no call twice.

The gateway runs in this process, on a real Valkey and its sink, over the log in memory; the reaper has another clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from api.providers.memory import MemoryAnswer, MemoryUpstream
from api.providers.upstream import Call
from processors.reaper import Reaper
from schemas.events import BudgetEvent, BudgetKind, Event
from tests.support import gateway_world, live_budgets
from tests.support.gateway_answers import chat_answer
from tests.support.gateway_world import TENANT, Response, chat, control_state, limit
from tests.support.live_budgets import PARTITION, now_micros
from tests.valkey import Valkey

HOUR_MICROS = 3_600_000_000
#: Answered calls that the limit allows in an hour.
CALLS = 3


class Clock:
    """A gateway's clock: stands in the middle of an hour near the true one, until it jumps."""

    def __init__(self) -> None:
        """The middle of this hour."""
        now = now_micros()
        self._offset = HOUR_MICROS // 2 - now % HOUR_MICROS

    def __call__(self) -> int:
        """What it shows."""
        return now_micros() + self._offset

    def jump(self, hours: int) -> None:
        """By so many hours."""
        self._offset += hours * HOUR_MICROS

    @property
    def window_start(self) -> int:
        """Of the hour it stands in."""
        return self() // HOUR_MICROS * HOUR_MICROS


class PatientUpstream(MemoryUpstream):
    """A provider that answers slow calls when it is let."""

    def __init__(self) -> None:
        """Nothing is let yet."""
        super().__init__(lambda _: chat_answer())
        self.came, self.let = asyncio.Event(), asyncio.Event()

    async def send(self, call: Call) -> MemoryAnswer:
        """As the seam says."""
        if b"slow" in call.body:
            self.came.set()
            await self.let.wait()
        return await super().send(call)


class World:
    """A gateway with a clock of its own, live budgets, and what their log says."""

    def __init__(self, directory: Path, valkey: Valkey) -> None:
        """One limit: so many calls an hour."""
        hourly = msgspec.structs.replace(limit(CALLS), currency="REQ", window="hour")
        self.gateway = gateway_world.World(directory, state=control_state(limits=(hourly,)))
        log = live_budgets.Log(None, self.gateway.log)
        self.clock, self.upstream = Clock(), PatientUpstream()
        self.live = live_budgets.World(log, valkey, now_micros=self.clock)
        parts = self.gateway.parts
        parts.holds, parts.upstream, parts.now = self.live.store, self.upstream, self.clock

    async def call(self, text: str = "hello") -> Response:
        """One request."""
        return await self.gateway.call(body=chat(messages=[{"role": "user", "content": text}]))

    async def statuses(self, calls: int) -> list[int]:
        """Of so many requests, one after the other, each applied before the next."""
        found = []
        for _ in range(calls):
            found.append((await self.call()).status)
            await self.live.settled()
        return found

    async def begin_slow(self) -> asyncio.Task[Response]:
        """A request whose provider is at work."""
        task = asyncio.create_task(self.call("slow"))
        async with asyncio.timeout(live_budgets.DEADLINE_SECONDS):
            await self.upstream.came.wait()
        await self.live.settled()
        return task

    async def end_slow(self, task: asyncio.Task[Response]) -> int:
        """Let it end; its status."""
        self.upstream.let.set()
        status = (await task).status
        await self.live.settled()
        return status

    def movements(self) -> list[BudgetEvent]:
        """Budget events in their order."""
        return [event for event in self.gateway.events("budgets") if isinstance(event, BudgetEvent)]

    def reap(self) -> list[Event]:
        """What a reaper with the true clock makes of the log now."""
        reaper = Reaper()
        state = reaper.initial(PARTITION)
        for movement in self.movements():
            state = reaper.evolve(state, movement)
        return list(reaper.tick(state, now_micros(), caught_up=True))

    async def spent(self) -> dict[int, int]:
        """Calls counted, by the start of their window; holds must be gone and the live state be the fold of the log."""
        state = await self.live.reads.tenant_state(TENANT)
        assert ({}, []) == (state.holds, await self.live.differences())
        assert all(sums.held_nano == 0 for sums in state.sums.values())
        return {counter.window_start: sums.posted_nano for counter, sums in state.sums.items()}


@pytest.fixture
async def world(valkey: Valkey, tmp_path: Path) -> AsyncIterator[World]:
    """Everything, with the tenant open."""
    world = World(tmp_path, valkey)
    await world.live.start()
    try:
        await world.live.name_tenant(TENANT)
        async with world.gateway:
            yield world
    finally:
        await world.live.stop()


@pytest.mark.parametrize("hours", [1, -1], ids=["forth", "back"])
async def test_a_jump_over_a_boundary_spends_each_window_once(world: World, hours: int) -> None:
    """A call ends in the window it began in; each window has its own room, also when the clock comes back."""
    first = world.clock.window_start
    assert [200, 200] == await world.statuses(2)
    slow = await world.begin_slow()
    world.clock.jump(hours)
    second = world.clock.window_start
    assert [200, 200, 200, 429] == await world.statuses(4)
    assert 200 == await world.end_slow(slow)
    world.clock.jump(-hours)
    assert [429] == await world.statuses(1)

    assert {first: CALLS, second: CALLS} == await world.spent()


async def test_a_call_of_a_gateway_an_hour_behind_is_counted_once(world: World) -> None:
    """Its lease is over before it began: it expires under way, and the charge that comes late takes its place."""
    world.clock.jump(-1)
    slow = await world.begin_slow()
    await world.live.record(*world.reap())
    await world.live.settled()
    assert 200 == await world.end_slow(slow)

    assert [BudgetKind.PLACED, BudgetKind.EXPIRED, BudgetKind.COMMITTED] == [each.kind for each in world.movements()]
    assert {world.clock.window_start: 1} == await world.spent()


async def test_a_gateway_an_hour_ahead_keeps_its_holds_until_they_end(world: World) -> None:
    """Its lease is over an hour later: nothing expires before, and nothing is left when the call has ended."""
    world.clock.jump(1)
    slow = await world.begin_slow()
    assert [] == world.reap()
    assert 200 == await world.end_slow(slow)

    assert {world.clock.window_start: 1} == await world.spent()
