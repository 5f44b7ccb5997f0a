"""A caller that hangs up on a plain call: nobody waits for the answer, and it is charged all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from schemas.events import BudgetEvent, BudgetKind, CostEvent, ProviderAttempt, RequestEvent, RequestKind, UsageSource
from tests.support.gateway_answers import USAGE, SlowAnswer, chat_body
from tests.support.gateway_world import Response, World, control_state, limit


async def hung_up(tmp_path: Path, usage: dict[str, Any] | None) -> tuple[World, Response]:
    """A call whose caller hangs up while the provider still writes its answer, and which then ends."""
    called, gone = asyncio.Event(), asyncio.Event()
    body = chat_body(usage=usage)
    answer = SlowAnswer(body[:9], body[9:])

    def answering(_: object) -> SlowAnswer:
        called.set()
        return answer

    async with World(tmp_path, answering, state=control_state(limits=(limit(10**12),))) as world:
        running = asyncio.create_task(world.call(hang_up=gone))
        await asyncio.wait_for(called.wait(), 5)
        gone.set()
        for _ in range(3):  # two pieces, and that there is no more
            answer.go.release()
        return world, await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    ("usage", "source", "amount_nano"),
    [(USAGE, UsageSource.PROVIDER, 360_000), (None, UsageSource.ESTIMATE, None)],
    ids=["reported", "estimated"],
)
async def test_a_plain_call_is_charged_though_its_caller_hung_up(
    tmp_path: Path, usage: dict[str, Any] | None, source: UsageSource, amount_nano: int | None
) -> None:
    """The provider's answer is read to its end: its usage is charged, or the estimate, marked as one."""
    world, response = await hung_up(tmp_path, usage)
    costs = [event for event in world.events("costs") if isinstance(event, CostEvent)]
    committed, tried = world.one(BudgetEvent, kind=BudgetKind.COMMITTED), world.one(ProviderAttempt)

    assert b"" == response.body
    charged = sum(cost.amount_nano for cost in costs)
    assert charged > 0
    assert (amount_nano or charged, charged) == (committed.amount_nano, committed.legs[0].amount_nano)
    estimated = source is UsageSource.ESTIMATE
    assert {estimated} == {committed.estimated, *(cost.estimated for cost in costs)}
    assert source is tried.usage_source


async def test_a_plain_call_whose_caller_hung_up_is_completed(tmp_path: Path) -> None:
    """Nobody looks whether the caller of a plain call is still there: its attempt succeeded, and the log says so."""
    world, _ = await hung_up(tmp_path, USAGE)
    completed = world.one(RequestEvent, kind=RequestKind.COMPLETED)

    assert (200, False) == (completed.status_code, completed.client_disconnected)
