"""What every HoldStore must do, asked of the one in memory and of the one on a real Valkey."""

from __future__ import annotations

import asyncio
import time

import pytest

from processors.budgets.tree import UNLIMITED_NANO
from sinks.redis.holds import (
    Closed,
    ClosedReason,
    Confirmation,
    Conflict,
    Placed,
    PlaceHold,
    Refused,
)
from tests.budget_world import TENANT, Events, ask, hold_id, leg
from tests.support.hold_worlds import World

LIMIT = 100


async def placed(world: World, hold: str, amount: int) -> str:
    """Place a hold that must fit; answers its generation."""
    answer = await world.store.place(ask(hold, amount, LIMIT))
    assert isinstance(answer, Placed)
    return answer.generation


async def test_a_hold_that_fits_is_placed_and_confirmed(world: World) -> None:
    """The way of every ordinary request."""
    hold = world.hold(1)
    generation = await placed(world, hold, LIMIT)
    await world.apply(Events().placed(hold, leg(LIMIT)))
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.CONFIRMED


async def test_confirm_pins_before_the_sink_has_applied(world: World) -> None:
    """PLACED is acked but not applied yet: confirmed, and no time to live ends it."""
    hold = world.hold(1)
    generation = await placed(world, hold, 60)
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.CONFIRMED
    await world.pass_overlay_time()
    assert await world.store.place(ask(world.hold(2), 41, LIMIT)) == Refused("tenant_total", 40, LIMIT)


async def test_a_hold_that_does_not_fit_is_refused_with_what_is_left(world: World) -> None:
    """The refusal names the limit and its rest."""
    await placed(world, world.hold(1), 70)
    assert await world.store.place(ask(world.hold(2), 31, LIMIT)) == Refused("tenant_total", 30, LIMIT)


async def test_no_leg_is_held_when_one_does_not_fit(world: World) -> None:
    """All legs or none."""
    legs = (leg(10, "key_month", (1, 2)), leg(10))
    assert await world.store.place(PlaceHold(TENANT, world.hold(1), legs, (LIMIT, 9))) == Refused("tenant_total", 9, 9)
    whole = PlaceHold(TENANT, world.hold(2), (leg(LIMIT, "key_month", (1, 2)),), (LIMIT,))
    assert isinstance(await world.store.place(whole), Placed)


async def test_a_hold_without_legs_needs_no_store(world: World) -> None:
    """No limit applies: placed and confirmed without a generation, for any tenant."""
    assert await world.store.place(PlaceHold("nobody", world.hold(1), (), ())) == Placed("")
    assert await world.store.confirm("nobody", world.hold(1), "") is Confirmation.CONFIRMED


async def test_the_same_ask_again_gets_the_same_answer_and_holds_once(world: World) -> None:
    """A lost reply may be asked for again."""
    hold = world.hold(1)
    first = await world.store.place(ask(hold, 60, LIMIT))
    assert await world.store.place(ask(hold, 60, LIMIT)) == first
    assert isinstance(await world.store.place(ask(world.hold(2), 40, LIMIT)), Placed)


async def test_a_refusal_stays_a_refusal(world: World) -> None:
    """Room that comes later does not turn the answer of an id around."""
    first, second = world.hold(1), world.hold(2)
    await placed(world, first, 70)
    refused = await world.store.place(ask(second, 31, LIMIT))
    events = Events()
    event = events.placed(first, leg(70))
    await world.apply(event)
    await world.apply(events.released(event))
    assert await world.store.place(ask(second, 31, LIMIT)) == refused


@pytest.mark.parametrize("stage", ["overlay", "applied", "resolved"])
async def test_the_same_id_with_another_body_is_a_conflict(world: World, stage: str) -> None:
    """Wherever the first one stands."""
    hold, events = world.hold(1), Events()
    await placed(world, hold, 60)
    event = events.placed(hold, leg(60))
    if stage != "overlay":
        await world.apply(event)
    if stage == "resolved":
        await world.apply(events.committed(event, 60))
    answer = await world.store.place(ask(hold, 61, LIMIT))
    assert answer == Conflict("legs" if stage == "resolved" else "amount_nano")


async def test_a_conflict_names_the_field(world: World) -> None:
    """The first that differs."""
    hold = world.hold(1)
    await placed(world, hold, 60)
    other_limit = PlaceHold(TENANT, hold, (leg(60, "key_total"),), (LIMIT,))
    other_window = PlaceHold(TENANT, hold, (leg(60, window=(0, 5)),), (LIMIT,))
    assert await world.store.place(other_limit) == Conflict("limit_id")
    assert await world.store.place(other_window) == Conflict("window_end")


async def test_an_id_older_than_the_memory_of_holds_is_refused(world: World) -> None:
    """It might have been decided and forgotten."""
    old = hold_id(1, (time.time_ns() // 1_000) - 2 * 24 * 3_600 * 1_000_000)
    assert await world.store.place(ask(old, 1, LIMIT)) == Closed(ClosedReason.TOO_OLD)


async def test_an_unknown_tenant_is_closed(world: World) -> None:
    """Only the sink opens slots: one that is empty may have been lost."""
    answer = await world.store.place(ask(world.hold(1), 1, LIMIT, "acmf"))
    assert isinstance(answer, Closed)


async def test_an_unpinned_hold_falls_away_and_gives_its_room_back(world: World) -> None:
    """A gateway that died before its PLACED holds nothing for long."""
    await placed(world, world.hold(1), LIMIT)
    await world.pass_overlay_time()
    assert isinstance(await world.store.place(ask(world.hold(2), LIMIT, LIMIT)), Placed)


async def test_a_clock_that_was_stepped_back_keeps_no_hold(world: World) -> None:
    """What a dead gateway placed by the clock of before does not refuse others until that time comes again."""
    await placed(world, world.hold(1), LIMIT)
    await world.step_clock_back()
    assert isinstance(await world.store.place(ask(world.hold(2), LIMIT, LIMIT)), Placed)


@pytest.mark.parametrize("applied", [False, True])
async def test_a_hold_that_fell_away_is_never_confirmed(world: World, applied: bool) -> None:
    """Its room may have been given away, also when its PLACED has been applied since (the tombstone)."""
    hold = world.hold(1)
    generation = await placed(world, hold, LIMIT)
    await world.pass_overlay_time()
    await placed(world, world.hold(2), LIMIT)
    if applied:
        await world.apply(Events().placed(hold, leg(LIMIT)))
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.DROPPED


async def test_a_hold_of_another_generation_is_never_confirmed(world: World) -> None:
    """Its room may have been given away in a state that has forgotten it."""
    hold = world.hold(1)
    generation = await placed(world, hold, LIMIT)
    await world.new_generation(is_open=True)
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.GENERATION


async def test_nothing_is_admitted_while_rebuilding(world: World) -> None:
    """Closed until the sink has caught up with the barrier."""
    hold = world.hold(1)
    generation = await placed(world, hold, LIMIT)
    await world.new_generation(is_open=False)
    assert await world.store.place(ask(world.hold(2), 1, LIMIT)) == Closed(ClosedReason.REBUILDING)
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.GENERATION


async def test_a_new_generation_keeps_what_was_applied(world: World) -> None:
    """Only the overlay goes."""
    events = Events()
    hold = world.hold(1)
    await placed(world, hold, 60)
    await world.apply(events.placed(hold, leg(60)))
    await placed(world, world.hold(2), 40)
    await world.new_generation(is_open=True)
    assert await world.store.place(ask(world.hold(3), 41, LIMIT)) == Refused("tenant_total", 40, LIMIT)


async def test_a_resolved_hold_is_never_confirmed(world: World) -> None:
    """The reaper was faster than a gateway that slept."""
    hold, events = world.hold(1), Events()
    generation = await placed(world, hold, 60)
    event = events.placed(hold, leg(60))
    await world.apply(event)
    await world.apply(events.expired(event))
    assert await world.store.confirm(TENANT, hold, generation) is Confirmation.RESOLVED


async def test_a_hold_nobody_knows_is_not_confirmed(world: World) -> None:
    """Such as one placed on a server that forgot it."""
    generation = await placed(world, world.hold(1), 1)
    assert await world.store.confirm(TENANT, world.hold(2), generation) is Confirmation.UNKNOWN


@pytest.mark.parametrize(("how", "left"), [("committed", 45), ("released", 100), ("expired", 40)])
async def test_a_resolution_frees_what_it_does_not_charge(world: World, how: str, left: int) -> None:
    """COMMITTED charges 55 of 60, RELEASED nothing, EXPIRED all."""
    hold, events = world.hold(1), Events()
    await placed(world, hold, 60)
    event = events.placed(hold, leg(60))
    await world.apply(event)
    resolutions = {
        "committed": events.committed(event, 55),
        "released": events.released(event),
        "expired": events.expired(event),
    }
    await world.apply(resolutions[how])
    assert await world.store.place(ask(world.hold(2), 101, LIMIT)) == Refused("tenant_total", left, LIMIT)


async def test_concurrent_asks_never_take_more_than_there_is(world: World) -> None:
    """200 at once against room for 20: exactly 20 are admitted."""
    asks = [ask(world.hold(number), 5, LIMIT) for number in range(200)]
    answers = await asyncio.gather(*(world.store.place(each) for each in asks))
    assert sum(isinstance(answer, Placed) for answer in answers) == 20
    assert sum(isinstance(answer, Refused) for answer in answers) == 180


async def test_sums_near_the_bound_compare_exactly(world: World) -> None:
    """Nine million units less one nano-unit leave room for exactly one."""
    bound = 9_000_000 * 1_000_000_000
    await world.store.place(ask(world.hold(1), bound - 1, bound))
    assert await world.store.place(ask(world.hold(2), 2, bound)) == Refused("tenant_total", 1, bound)
    assert isinstance(await world.store.place(ask(world.hold(3), 1, bound)), Placed)


async def test_a_limit_that_only_watches_has_room_above_every_other(world: World) -> None:
    """More is posted than any limit may be and a double can tell apart: the next is placed, and counted exactly."""
    most, events = 9_000_000 * 1_000_000_000, Events()
    for number in range(1, 4):
        hold = world.hold(number)
        assert isinstance(await world.store.place(ask(hold, most, UNLIMITED_NANO)), Placed)
        event = events.placed(hold, leg(most))
        await world.apply(event)
        await world.apply(events.committed(event, most))

    assert isinstance(await world.store.place(ask(world.hold(4), 1, UNLIMITED_NANO)), Placed)
    refused = await world.store.place(ask(world.hold(5), 1, most))

    assert refused == Refused("tenant_total", 0, most)
