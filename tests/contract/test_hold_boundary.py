"""Callers on both sides of a window's boundary: each window admits what fits in it, whatever the order they come in."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from sinks.redis.holds import Placed, PlaceHold, Refused
from tests.budget_world import TENANT, leg
from tests.support.hold_worlds import World

CALLS, ROOM = 1_000, 100
BOUNDARY = 3_600_000_000
WINDOWS = ((0, BOUNDARY), (BOUNDARY, 2 * BOUNDARY))
SEED = 20261121


async def test_a_thousand_callers_across_a_boundary(world: World) -> None:
    """A hundred in each of two windows, at once and mixed; the tightest of the levels is another in each."""
    rng = random.Random(SEED)
    limits = {WINDOWS[0]: (ROOM, 10 * ROOM), WINDOWS[1]: (10 * ROOM, ROOM)}

    async def call(number: int) -> tuple[int, type]:
        window = rng.choice(WINDOWS)
        legs = (leg(1, "team", window), leg(1, "tenant", window))
        answer = await world.store.place(PlaceHold(TENANT, world.hold(number), legs, limits[window]))
        return window[0], type(answer)

    answers = Counter(await asyncio.gather(*(call(number) for number in range(CALLS))))

    assert {start: answers[start, Placed] for start, _ in WINDOWS} == dict.fromkeys((0, BOUNDARY), ROOM), f"seed {SEED}"
    assert answers.total() == CALLS
    assert {kind for _, kind in answers} == {Placed, Refused}
