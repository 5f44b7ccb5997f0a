"""What every HoldStore must do with a hold that is to hold more, asked of the fake and of a real Valkey."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from processors.budgets import extended_event
from schemas.events import BudgetEvent
from sinks.redis.holds import (
    Closed,
    ClosedReason,
    Confirmation,
    Conflict,
    Extension,
    Gone,
    Placed,
    PlaceHold,
    Refused,
)
from tests.budget_world import NOW_MICROS, TENANT, Events, ask, hold_id, leg
from tests.support.hold_worlds import World

LIMIT = 100


async def standing(world: World, amount: int = 10, number: int = 1, *, applied: bool = True) -> BudgetEvent:
    """A hold that was placed and confirmed; its PLACED."""
    hold = world.hold(number)
    answer = await world.store.place(ask(hold, amount, LIMIT))
    assert isinstance(answer, Placed)
    placed = Events().placed(hold, leg(amount), generation=answer.generation)
    assert await world.store.confirm(TENANT, hold, answer.generation) is Confirmation.CONFIRMED
    if applied:
        await world.apply(placed)
    return placed


def extended(placed: BudgetEvent, amount: int, number: int = 500) -> BudgetEvent:
    """EXTENDED to so much in all."""
    return extended_event(
        placed,
        event_id=hold_id(number),
        occurred_at=NOW_MICROS,
        actor="gateway/test",
        amount_nano=amount,
        lease_until=NOW_MICROS,
    )


async def extend(world: World, placed: BudgetEvent, amount: int, limit_nano: int = LIMIT) -> Extension:
    """Ask for so much in all."""
    return await world.store.extend(ask(placed.hold_id, amount, limit_nano))


async def left(world: World) -> int:
    """What the limit has left."""
    # Another id each time: a refusal stays a refusal.
    answer = await world.store.place(ask(world.hold(secrets.randbits(64)), LIMIT + 1, LIMIT))
    assert isinstance(answer, Refused)
    return answer.remaining_nano


@pytest.mark.parametrize("applied", [True, False])
async def test_a_standing_hold_is_extended_where_there_is_room(world: World, applied: bool) -> None:
    """Before and after its PLACED is applied: what it holds more counts at once."""
    placed = await standing(world, 10, applied=applied)
    answer = await extend(world, placed, 70)
    assert isinstance(answer, Placed)
    assert await left(world) == 30


async def test_an_extension_is_confirmed_as_a_hold_is(world: World) -> None:
    """With the generation that it was granted under, after EXTENDED is acknowledged."""
    placed = await standing(world)
    answer = await extend(world, placed, 70)
    assert isinstance(answer, Placed)
    assert await world.store.confirm(TENANT, placed.hold_id, answer.generation) is Confirmation.CONFIRMED


async def test_the_same_extension_again_adds_nothing(world: World) -> None:
    """A lost reply may be asked for again."""
    placed = await standing(world)
    first = await extend(world, placed, 70)
    assert await extend(world, placed, 70) == first
    assert await left(world) == 30


async def test_a_hold_never_holds_less(world: World) -> None:
    """A lower amount is granted and changes nothing."""
    placed = await standing(world, 50)
    assert isinstance(await extend(world, placed, 20), Placed)
    assert await left(world) == 50


async def test_an_extension_that_does_not_fit_is_refused_with_what_is_left(world: World) -> None:
    """Nothing is added, and the hold stands as it stood."""
    placed = await standing(world, 10)
    await standing(world, 50, 2)
    assert await extend(world, placed, 51) == Refused("tenant_total", 40, LIMIT)
    assert await left(world) == 40
    assert isinstance(await extend(world, placed, 50), Placed)


async def test_a_refused_extension_may_find_room_later(world: World) -> None:
    """Unlike a hold's: nothing was decided about it."""
    placed, other = await standing(world, 10), await standing(world, 80, 2)
    assert isinstance(await extend(world, placed, 30), Refused)
    await world.apply(Events().released(other))
    assert isinstance(await extend(world, placed, 30), Placed)


async def test_no_leg_is_extended_when_one_does_not_fit(world: World) -> None:
    """All legs or none."""
    hold, limits = world.hold(1), (LIMIT, 20)
    legs = (leg(10, "key_total"), leg(10))
    answer = await world.store.place(PlaceHold(TENANT, hold, legs, limits))
    assert isinstance(answer, Placed)
    await world.store.confirm(TENANT, hold, answer.generation)
    more = PlaceHold(TENANT, hold, (leg(30, "key_total"), leg(21)), limits)
    assert await world.store.extend(more) == Refused("tenant_total", 10, 20)
    whole = PlaceHold(TENANT, world.hold(2), (leg(90, "key_total"),), (LIMIT,))
    assert isinstance(await world.store.place(whole), Placed)


async def test_a_leg_that_does_not_grow_is_not_asked_about(world: World) -> None:
    """Such as a limit on requests that is full: the call is counted already."""
    hold, limits = world.hold(1), (1, LIMIT)
    answer = await world.store.place(PlaceHold(TENANT, hold, (leg(1, "requests"), leg(10)), limits))
    assert isinstance(answer, Placed)
    await world.store.confirm(TENANT, hold, answer.generation)
    lowered = PlaceHold(TENANT, hold, (leg(1, "requests"), leg(30)), (0, LIMIT))
    assert isinstance(await world.store.extend(lowered), Placed)


@pytest.mark.parametrize("order", ["placed first", "extended before placed is applied"])
async def test_what_the_log_raises_a_hold_by_is_counted_once(world: World, order: str) -> None:
    """EXTENDED takes the overlay's place, whenever PLACED was applied."""
    placed = await standing(world, 10, applied=order == "placed first")
    await extend(world, placed, 70)
    if order != "placed first":
        await world.apply(placed)
    await world.apply(extended(placed, 70))
    assert await world.unconfirmed() == frozenset()
    assert await left(world) == 30


async def test_two_extensions_may_wait_for_the_log_at_once(world: World) -> None:
    """The first EXTENDED takes its own part away and leaves the second's."""
    placed = await standing(world, 10)
    await extend(world, placed, 40)
    await extend(world, placed, 70)
    await world.apply(extended(placed, 40))
    assert await world.unconfirmed() == {placed.hold_id}
    assert await left(world) == 30
    await world.apply(extended(placed, 70, 501))
    assert await world.unconfirmed() == frozenset()
    assert await left(world) == 30


async def test_an_extension_of_an_applied_one_asks_for_the_rest(world: World) -> None:
    """Amounts are in all, wherever the first steps stand by then."""
    placed = await standing(world, 10)
    await extend(world, placed, 40)
    await world.apply(extended(placed, 40))
    assert isinstance(await extend(world, placed, 100), Placed)
    assert await left(world) == 0


@pytest.mark.parametrize("how", ["committed", "released", "expired"])
async def test_the_end_of_a_hold_takes_its_extension_along(world: World, how: str) -> None:
    """Also one that never got into the log: its gateway died, or its stream ended first."""
    placed, events = await standing(world, 10), Events()
    await extend(world, placed, 70)
    ends = {"committed": events.committed(placed, 10), "released": events.released(placed)}
    await world.apply(ends.get(how) or events.expired(placed))
    assert await world.unconfirmed() == frozenset()
    assert await left(world) == (100 if how == "released" else 90)


async def test_an_extended_hold_frees_all_of_it(world: World) -> None:
    """What it does not charge, of what was added too."""
    placed = await standing(world, 10)
    await extend(world, placed, 70)
    longer = extended(placed, 70)
    await world.apply(longer)
    await world.apply(Events().committed(longer, 55))
    assert await left(world) == 45


async def test_time_does_not_end_an_extension(world: World) -> None:
    """Its hold has a lease; nothing shorter may give its room away while its gateway counts on it."""
    placed = await standing(world, 10)
    await extend(world, placed, 70)
    await world.pass_overlay_time()
    assert await left(world) == 30


@pytest.mark.parametrize("applied", [True, False])
async def test_room_of_holds_that_fell_away_is_given_to_extensions(world: World, applied: bool) -> None:
    """As it is to holds: what a dead gateway left behind is swept when room is missing."""
    placed = await standing(world, 10, applied=applied)
    await world.store.place(ask(world.hold(2), 90, LIMIT))
    await world.pass_overlay_time()
    assert isinstance(await extend(world, placed, 100), Placed)


async def test_a_hold_that_was_never_confirmed_is_not_extended(world: World) -> None:
    """Nobody may count on it."""
    hold = world.hold(1)
    await world.store.place(ask(hold, 10, LIMIT))
    assert await world.store.extend(ask(hold, 20, LIMIT)) == Gone()
    await world.pass_overlay_time()
    await world.store.place(ask(world.hold(2), LIMIT, LIMIT))
    await world.apply(Events().placed(hold, leg(10)))
    assert await world.store.extend(ask(hold, 20, LIMIT)) == Gone()


@pytest.mark.parametrize("how", ["unknown", "committed", "expired"])
async def test_a_hold_that_does_not_stand_is_not_extended(world: World, how: str) -> None:
    """The reaper was faster than a gateway that slept, say."""
    placed, events = await standing(world), Events()
    if how == "unknown":
        assert await world.store.extend(ask(world.hold(2), 20, LIMIT)) == Gone()
        return
    await world.apply(events.committed(placed, 10) if how == "committed" else events.expired(placed))
    assert await extend(world, placed, 20) == Gone()
    assert await left(world) == 90


async def test_an_extension_of_other_legs_is_a_conflict(world: World) -> None:
    """A hold stands on the limits it was placed on."""
    placed = await standing(world)
    other = PlaceHold(TENANT, placed.hold_id, (leg(20, "key_total"),), (LIMIT,))
    fewer = PlaceHold(TENANT, placed.hold_id, (leg(20), leg(20, "key_total")), (LIMIT, LIMIT))
    assert await world.store.extend(other) == Conflict("legs")
    assert await world.store.extend(fewer) == Conflict("legs")


async def test_an_extension_of_no_legs_needs_no_store(world: World) -> None:
    """No limit applies, to any tenant."""
    assert await world.store.extend(PlaceHold("nobody", world.hold(1), (), ())) == Placed("")


async def test_nothing_is_extended_while_rebuilding(world: World) -> None:
    """Closed, and what was granted before is never confirmed."""
    placed = await standing(world)
    answer = await extend(world, placed, 70)
    assert isinstance(answer, Placed)
    await world.new_generation(is_open=False)
    assert await extend(world, placed, 70) == Closed(ClosedReason.REBUILDING)
    assert await world.store.confirm(TENANT, placed.hold_id, answer.generation) is Confirmation.GENERATION


async def test_an_extension_of_another_generation_is_asked_again(world: World) -> None:
    """It is forgotten with the overlay, never confirmed, and granted under the new one."""
    placed = await standing(world)
    answer = await extend(world, placed, 70)
    assert isinstance(answer, Placed)
    await world.new_generation(is_open=True)
    assert await world.store.confirm(TENANT, placed.hold_id, answer.generation) is Confirmation.GENERATION
    assert await left(world) == 90
    again = await extend(world, placed, 70)
    assert isinstance(again, Placed)
    assert again.generation != answer.generation
    assert await left(world) == 30


async def test_an_extension_of_a_resolved_hold_is_not_confirmed(world: World) -> None:
    """EXPIRED came before EXTENDED was acknowledged."""
    placed = await standing(world)
    answer = await extend(world, placed, 70)
    assert isinstance(answer, Placed)
    await world.apply(Events().expired(placed))
    assert await world.store.confirm(TENANT, placed.hold_id, answer.generation) is Confirmation.RESOLVED


async def test_concurrent_extensions_never_take_more_than_there_is(world: World) -> None:
    """Twenty holds of one, each wants ten: exactly eight get it."""
    holds = [await standing(world, 1, number) for number in range(1, 21)]
    answers = await asyncio.gather(*(extend(world, placed, 11) for placed in holds))
    assert sum(isinstance(answer, Placed) for answer in answers) == 8
    assert await left(world) == 0
