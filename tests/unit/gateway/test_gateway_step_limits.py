"""Streams under way, and limits that hold them to something: at every step as they are by then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processors.control import ControlState, Increase, Threshold
from schemas.events import BudgetKind
from tests.support.gateway_answers import SlowAnswer
from tests.support.gateway_world import Response, World, control_state, limit
from tests.support.stepped_streams import (
    ALL,
    END,
    LONG,
    PLENTY_NANO,
    STEP,
    ask,
    budget_events,
    last_chunk,
    room_for,
    state,
    stream,
)

BLOCK = Threshold(percent=50, action="block")
OUTPUT_TOKENS = 250


def limited(amount_nano: int, *thresholds: Threshold, **fields: Any) -> ControlState:
    """One limit with these thresholds."""
    made = msgspec.structs.replace(limit(amount_nano), thresholds=thresholds, **fields)
    return control_state(limits=(made,), prices=state().prices)


async def changed(directory: Path, before: ControlState, after: ControlState) -> tuple[World, Response]:
    """A stream whose limits change once its first text was forwarded."""
    answer, seen = SlowAnswer(*LONG, *END), asyncio.Semaphore(0)
    async with World(directory, lambda _: answer, before, stream_step_tokens=STEP) as world:
        running = asyncio.create_task(world.call(body=ask(), on_piece=lambda _: seen.release()))
        answer.go.release()
        await asyncio.wait_for(seen.acquire(), 5)
        world.control.state = after
        for _ in LONG + END:
            answer.go.release()
        return world, await asyncio.wait_for(running, 5)


def reasons(world: World) -> list[str | None]:
    """Why steps were refused, as recorded."""
    return [event.reason for event in budget_events(world, BudgetKind.REFUSED)]


def test_a_step_is_refused_by_a_block_threshold(tmp_path: Path) -> None:
    """There is room for a step below it: the stream ends there, cleanly, and caller and log are told why."""
    room = room_for(tmp_path, OUTPUT_TOKENS)
    world, response = asyncio.run(stream(tmp_path, *LONG, *END, state_of=limited(2 * room, BLOCK)))

    assert 1 <= len(budget_events(world, BudgetKind.EXTENDED))
    assert ("budget_blocked", "length") == (
        last_chunk(response)["quaestor"]["stopped"],
        last_chunk(response)["choices"][0]["finish_reason"],
    )
    assert ["budget_blocked"] == reasons(world)


@pytest.mark.parametrize(
    ("share", "thresholds", "reason"),
    [(1, (), "budget_exceeded"), (2, (BLOCK,), "budget_blocked")],
    ids=["a lowered limit", "a threshold that blocks"],
)
def test_a_limit_that_changes_holds_streams_under_way(
    tmp_path: Path, share: int, thresholds: tuple[Threshold, ...], reason: str
) -> None:
    """From their next step on."""
    after = limited(share * room_for(tmp_path, OUTPUT_TOKENS), *thresholds)
    world, response = asyncio.run(changed(tmp_path, limited(PLENTY_NANO), after))

    assert (reason, [reason]) == (last_chunk(response)["quaestor"]["stopped"], reasons(world))


def test_an_increase_that_ended_is_no_room_for_a_step(tmp_path: Path) -> None:
    """It was room when the stream began."""
    increase = Increase(amount_nano=PLENTY_NANO, valid_from=0, valid_until=1 << 60, approval_code="FIN-1")
    room = room_for(tmp_path, OUTPUT_TOKENS)
    ended = msgspec.structs.replace(increase, valid_until=1)
    before, after = limited(room, increases=(increase,)), limited(room, increases=(ended,))
    world, _ = asyncio.run(changed(tmp_path, before, after))

    assert ["budget_exceeded"] == reasons(world)


@pytest.mark.parametrize("is_gone", [True, False], ids=["removed", "raised"])
def test_a_limit_that_gives_way_lets_streams_under_way_go_on(tmp_path: Path, *, is_gone: bool) -> None:
    """To their end, as calls that begin now."""
    before = limited(room_for(tmp_path, STEP))
    after = control_state(prices=state().prices) if is_gone else limited(PLENTY_NANO)
    world, response = asyncio.run(changed(tmp_path, before, after))

    assert [] == reasons(world)
    assert response.body.startswith(ALL)
