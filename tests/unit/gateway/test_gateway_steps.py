"""Streams without a bound: held for a step at a time, and extended while they run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from api.providers.memory import MemoryAnswer
from schemas.events import AttemptOutcome, BudgetKind, ProviderAttempt
from sinks.redis.holds import Extension, PlaceHold
from sinks.redis.memory import MemoryHoldStore
from tests.support.gateway_answers import DONE, SlowAnswer, chunk, stream_answer, usage_chunk
from tests.support.gateway_world import World, control_state, limit
from tests.support.stepped_streams import (
    ALL,
    END,
    LONG,
    MARKS,
    OUTPUT_NANO,
    STEP,
    WORDS,
    amounts,
    ask,
    assert_settled,
    budget_events,
    fields_of,
    input_nano,
    state,
    stream,
    world_of,
)

# What is held.


async def test_a_short_stream_holds_one_step(tmp_path: Path) -> None:
    """Input and a step of output, and nothing is extended."""
    world, response = await stream(tmp_path, chunk("hi"), *END)

    size = len(world.upstream.calls[0].body) * 2_000
    assert amounts(world, BudgetKind.PLACED) == [size + STEP * OUTPUT_NANO]
    assert budget_events(world, BudgetKind.EXTENDED) == []
    assert response.body.endswith(DONE)


@pytest.mark.parametrize(
    ("fields", "price_fields"),
    [
        ({"max_tokens": 10_000}, {}),
        ({"max_completion_tokens": 10_000}, {}),
        ({"reasoning_effort": "low"}, {}),
        ({"prediction": {"type": "content", "content": "x"}}, {}),
        ({}, {"visible_output": False}),
        ({}, {"visible_output": None}),
    ],
    ids=["bounded", "bounded by the new name", "reasons", "predicted", "hidden", "not known"],
)
async def test_the_whole_is_held_where_it_is_bounded_or_out_of_sight(
    tmp_path: Path, fields: dict[str, Any], price_fields: dict[str, Any]
) -> None:
    """All that the model may write, at once."""
    world, _ = await stream(tmp_path, *LONG, *END, state_of=state(**price_fields), **fields)

    size = len(world.upstream.calls[0].body) * 2_000
    assert amounts(world, BudgetKind.PLACED) == [size + 10_000 * OUTPUT_NANO]
    assert budget_events(world, BudgetKind.EXTENDED) == []


@pytest.mark.parametrize("limits", [(), (limit(5, "lim_r"),)], ids=["no limit", "requests"])
async def test_the_whole_is_held_where_no_limit_counts_output(tmp_path: Path, limits: tuple[Any, ...]) -> None:
    """There is nothing to extend."""
    requests = tuple(type(one)(**{**fields_of(one), "currency": "REQ"}) for one in limits)
    prices = state().prices
    world, _ = await stream(tmp_path, *LONG, *END, state_of=control_state(limits=requests, prices=prices))

    assert budget_events(world, BudgetKind.PLACED)[0].amount_nano > 10_000 * OUTPUT_NANO
    assert budget_events(world, BudgetKind.EXTENDED) == []


async def test_every_choice_has_a_step(tmp_path: Path) -> None:
    """Their tokens add up."""
    world, _ = await stream(tmp_path, chunk("a"), chunk(finish="stop"), chunk("b", "stop", index=1), DONE, n=2)

    size = len(world.upstream.calls[0].body) * 2_000
    assert amounts(world, BudgetKind.PLACED) == [size + 2 * STEP * OUTPUT_NANO]


# Extending.


async def test_a_long_stream_is_extended_and_untouched(tmp_path: Path) -> None:
    """Four hundred bytes of text need five steps; the caller gets every byte as it came."""
    world, response = await stream(tmp_path, *LONG, *END)

    base = input_nano(world)
    assert amounts(world, BudgetKind.EXTENDED) == [base + tokens * OUTPUT_NANO for tokens in (200, 300, 400, 500)]
    assert response.body.startswith(ALL + chunk(finish="stop"))


async def test_no_text_is_forwarded_before_the_log_has_what_pays_for_it(tmp_path: Path) -> None:
    """At every piece: bytes of text sent until now are at most the tokens held in the log."""
    seen: list[tuple[int, int]] = []

    def look(piece: bytes) -> None:
        nonlocal sent
        sent += piece.count(WORDS.encode()) * len(WORDS)
        held = (amounts(world, BudgetKind.PLACED) + amounts(world, BudgetKind.EXTENDED))[-1]
        seen.append((sent, (held - input_nano(world)) // OUTPUT_NANO - MARKS))

    sent = 0
    async with world_of(tmp_path, *LONG, *END) as world:
        await world.call(body=ask(), on_piece=look)

    assert seen[-1][0] == 400
    assert all(forwarded <= covered for forwarded, covered in seen)


async def test_what_comes_at_once_is_covered_at_once(tmp_path: Path) -> None:
    """One read of many chunks asks for as many steps as it needs, in one extension."""
    world, response = await stream(tmp_path, ALL, *END)

    assert amounts(world, BudgetKind.EXTENDED) == [input_nano(world) + 500 * OUTPUT_NANO]
    assert response.body.startswith(ALL)


async def test_a_stream_that_came_whole_is_not_extended(tmp_path: Path) -> None:
    """Its end is known by then: what it used is told, nothing more may come."""
    world, response = await stream(tmp_path, ALL + b"".join(END))

    assert budget_events(world, BudgetKind.EXTENDED) == []
    assert response.body.startswith(ALL)


async def test_no_more_is_held_than_the_model_gives(tmp_path: Path) -> None:
    """The last step is shorter, and after it the stream needs no other."""
    world, response = await stream(tmp_path, *LONG, *END, state_of=state(max_output_tokens=250))

    assert amounts(world, BudgetKind.EXTENDED) == [input_nano(world) + tokens * OUTPUT_NANO for tokens in (200, 250)]
    assert response.body.startswith(ALL)


async def test_limits_on_tokens_grow_and_those_on_requests_do_not(tmp_path: Path) -> None:
    """Each leg in what it counts."""
    counted = [type(one)(**{**fields_of(one), "currency": name}) for one, name in _two_limits()]
    world, _ = await stream(tmp_path, *LONG, *END, state_of=state(limits=tuple(counted)))

    placed, last = budget_events(world, BudgetKind.PLACED)[0], budget_events(world, BudgetKind.EXTENDED)[-1]
    grown = {leg.currency: leg.amount_nano - old.amount_nano for leg, old in zip(last.legs, placed.legs, strict=True)}
    assert grown == {"USD": 400 * OUTPUT_NANO, "TOK": 400, "REQ": 0}


def _two_limits() -> list[tuple[Any, str]]:
    return [(limit(10**6, "lim_t", "key", "key_a"), "TOK"), (limit(10, "lim_r", "project", "web"), "REQ")]


async def test_an_extended_stream_is_charged_exactly(tmp_path: Path) -> None:
    """COMMITTED is what usage says, out of the last hold; nothing stays held, in the log as in the live store."""
    world, _ = await stream(tmp_path, *LONG, *END)

    committed = budget_events(world, BudgetKind.COMMITTED)[0]
    assert committed.amount_nano == 100 * 2_000 + 20 * OUTPUT_NANO
    assert committed.legs[0].held_nano == amounts(world, BudgetKind.EXTENDED)[-1]
    assert budget_events(world, BudgetKind.OVERAGE) == []
    assert_settled(world, committed.amount_nano)


async def test_usage_above_the_last_step_is_overage(tmp_path: Path) -> None:
    """A provider that counts what it does not show: all of it is posted, and said."""
    usage = usage_chunk({"prompt_tokens": 10, "completion_tokens": 5_000})
    world, _ = await stream(tmp_path, chunk("hi"), chunk(finish="stop"), usage, DONE)

    over = budget_events(world, BudgetKind.OVERAGE)[0]
    charged = 10 * 2_000 + 5_000 * OUTPUT_NANO
    assert over.legs[0].amount_nano == charged - amounts(world, BudgetKind.PLACED)[0]


# While a step is under way.


class SlowHolds(MemoryHoldStore):
    """Extensions wait for a sign."""

    go: asyncio.Event
    asked: asyncio.Event

    async def extend(self, ask: PlaceHold) -> Extension:
        """As the seam says."""
        self.asked.set()
        await self.go.wait()
        return await super().extend(ask)


def slow_holds(world: World) -> SlowHolds:
    """The world's store, made slow."""
    holds = world.holds
    holds.__class__ = SlowHolds
    assert isinstance(holds, SlowHolds)
    holds.go, holds.asked = asyncio.Event(), asyncio.Event()
    return holds


async def test_text_flows_while_a_step_is_under_way(tmp_path: Path) -> None:
    """As long as the hold covers it; then it waits, and goes on."""
    answer, seen = SlowAnswer(*LONG, *END), asyncio.Semaphore(0)
    async with World(tmp_path, lambda _: answer, state(), stream_step_tokens=STEP) as world:
        holds = slow_holds(world)
        running = asyncio.create_task(world.call(body=ask(), on_piece=lambda _: seen.release()))
        for _ in range(2):
            answer.go.release()
            await asyncio.wait_for(seen.acquire(), 5)
        assert holds.asked.is_set()
        for _ in LONG + END:
            answer.go.release()
        for _ in range(100):
            await asyncio.sleep(0)
        assert seen.locked()
        holds.go.set()
        response = await asyncio.wait_for(running, 5)

    assert response.body.startswith(ALL)


async def test_a_stream_that_ends_does_not_wait_for_its_step(tmp_path: Path) -> None:
    """What was asked for leaves with the hold."""
    answer = SlowAnswer(chunk(WORDS), *END)
    async with World(tmp_path, lambda _: answer, state(), stream_step_tokens=STEP) as world:
        holds = slow_holds(world)
        running = asyncio.create_task(world.call(body=ask()))
        answer.go.release()
        await asyncio.wait_for(holds.asked.wait(), 5)
        for _ in END:
            answer.go.release()
        response = await asyncio.wait_for(running, 5)

    assert response.body.endswith(DONE)
    assert_settled(world, 100 * 2_000 + 20 * OUTPUT_NANO)


async def test_a_caller_that_hangs_up_while_the_stream_waits_is_recorded(tmp_path: Path) -> None:
    """As one that hung up."""
    gone = asyncio.Event()
    async with world_of(tmp_path, ALL, *END) as world:
        holds = slow_holds(world)
        running = asyncio.create_task(world.call(body=ask(), hang_up=gone))
        await asyncio.wait_for(holds.asked.wait(), 5)
        gone.set()
        await asyncio.sleep(0)
        holds.go.set()
        await asyncio.wait_for(running, 5)

    assert world.one(ProviderAttempt).outcome is AttemptOutcome.CLIENT_DISCONNECTED


async def test_a_gateway_that_is_stopped_in_a_step_settles_the_hold(tmp_path: Path) -> None:
    """The spool gets the end of it, and the extension is nobody's any more."""
    async with world_of(tmp_path, ALL, *END) as world:
        holds = slow_holds(world)
        running = asyncio.create_task(world.call(body=ask()))
        await asyncio.wait_for(holds.asked.wait(), 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert budget_events(world, BudgetKind.COMMITTED)[0].estimated
    assert_settled(world, amounts(world, BudgetKind.COMMITTED)[0])


async def test_another_candidate_begins_with_a_step_of_its_own(tmp_path: Path) -> None:
    """A stream that broke before its first text, after whatever it was extended by."""
    answers = [MemoryAnswer(200, [], {}), stream_answer(*LONG, *END)]
    async with World(tmp_path, lambda _: answers.pop(0), state(), stream_step_tokens=STEP) as world:
        response = await world.call(body=ask())

    assert len(amounts(world, BudgetKind.PLACED)) == 2
    assert response.body.startswith(ALL)
