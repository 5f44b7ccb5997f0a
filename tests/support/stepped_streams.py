"""Streams without a bound in a gateway on fakes, a step of a hundred tokens at a time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from processors.budgets import BudgetFold
from processors.control import ControlState
from schemas.events import BudgetEvent, BudgetKind
from tests.support.gateway_answers import DONE, chunk, stream_answer, usage_chunk
from tests.support.gateway_world import TENANT, Response, World, control_state, limit, price

STEP = 100
MARKS = 16
OUTPUT_NANO = 8_000
PLENTY_NANO = 10**12
WORDS = "x" * 40
LONG = (chunk(WORDS),) * 10
END = (chunk(finish="stop"), usage_chunk(), DONE)
ALL = b"".join(LONG)


def state(limit_nano: int = PLENTY_NANO, limits: tuple[Any, ...] = (), **fields: Any) -> ControlState:
    """A limit in dollars (and others), and models whose streams show all that they write."""
    given = {"visible_output": True, "max_output_tokens": 10_000, "context_tokens": 100_000} | fields
    prices = {(name, f"{name}-big"): price(name, f"{name}-big", **given) for name in ("one", "two")}
    return control_state(limits=(limit(limit_nano), *limits), prices=prices)


def ask(**fields: Any) -> dict[str, Any]:
    """A stream without a bound."""
    return {"model": "default", "messages": [{"role": "user", "content": "hello"}], "stream": True, **fields}


def world_of(directory: Path, *pieces: bytes, state_of: ControlState | None = None, **options: Any) -> World:
    """A world whose provider streams these pieces."""
    answer = stream_answer(*pieces)
    return World(directory, lambda _: answer, state_of or state(), **{"stream_step_tokens": STEP} | options)


async def stream(directory: Path, *pieces: bytes, state_of: ControlState | None = None, **fields: Any) -> Any:
    """Run one stream; the world and what its caller got."""
    async with world_of(directory, *pieces, state_of=state_of) as world:
        return world, await world.call(body=ask(**fields))


def budget_events(world: World, kind: BudgetKind) -> list[BudgetEvent]:
    """Those of a kind, in order."""
    return [event for event in world.events("budgets") if isinstance(event, BudgetEvent) and event.kind is kind]


def amounts(world: World, kind: BudgetKind) -> list[int]:
    """What events of this kind hold on the first limit."""
    return [event.legs[0].amount_nano for event in budget_events(world, kind)]


def input_nano(world: World) -> int:
    """What the request's input was held for."""
    return amounts(world, BudgetKind.PLACED)[0] - STEP * OUTPUT_NANO


def room_for(directory: Path, output_tokens: int) -> int:
    """A limit with room for the input of `ask` and so much output."""

    async def placed() -> int:
        return input_nano((await stream(directory / "sizing", *END))[0])

    return asyncio.run(placed()) + output_tokens * OUTPUT_NANO


def last_chunk(response: Response) -> Any:
    """The last chunk with choices."""
    texts = [piece.removeprefix(b"data: ") for piece in response.body.split(b"\n\n") if piece.startswith(b"data: {")]
    return next(found for text in reversed(texts) if (found := json.loads(text))["choices"])


def counts(world: World) -> dict[str, float]:
    """The metric of extensions, by outcome."""
    samples = [one for metric in world.parts.meters.metrics.registry.collect() for one in metric.samples]
    return {one.labels["outcome"]: one.value for one in samples if one.name == "quaestor_extensions_total"}


def assert_settled(world: World, posted_nano: int) -> None:
    """The live store, once the sink has applied the log, and the fold of the log agree on this."""
    fold = BudgetFold()
    for event in world.events("budgets"):
        assert isinstance(event, BudgetEvent)
        fold.apply(event)
        world.holds.apply(TENANT, event)
    assert world.holds.unconfirmed(TENANT) == frozenset()
    assert world.holds.sums(TENANT) == fold.sums
    assert [(sums.posted_nano, sums.held_nano) for sums in fold.sums.values()] == [(posted_nano, 0)]


def fields_of(one: Any) -> dict[str, Any]:
    """The fields of a record."""
    return {name: getattr(one, name) for name in one.__struct_fields__}
