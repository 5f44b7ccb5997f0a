"""The Lua that applies events to a slot does exactly what `evolve` does, and so does the fold in place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.budgets import BudgetFold, BudgetState, evolve
from schemas.events import BudgetEvent
from sinks.redis.client import RedisClient
from sinks.redis.keys import slot_keys
from sinks.redis.reads import RedisReads, TenantState, compare
from sinks.redis.slot_event import slot_event
from sinks.redis.slots import Ownership, Slots
from tests.budget_world import TENANT, Events, fields_of, hold_id, leg
from tests.support.budget_histories import STEPS, events_of, is_unsound
from tests.valkey import Valkey, running

OWNER = Ownership(1, "run:1", "topic", is_open=True)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A real server over a Unix socket."""
    with running() as server:
        yield server


async def applied(url: str, batches: Sequence[Sequence[tuple[int, BudgetEvent]]]) -> TenantState:
    """What the slot holds after these batches, each sent twice."""
    client, reads = RedisClient(url), RedisReads(url)
    await client.open()
    await reads.open()
    slots, cursor = Slots(client), 0
    for batch in batches:
        moves = [slot_event(offset, fields_of(event)) for offset, event in batch]
        following = batch[-1][0] + 1
        for _ in range(2):
            found = [move for move in moves if move is not None]
            cursor = await slots.apply(TENANT, found, OWNER, cursor, following)
    state = await reads.tenant_state(TENANT)
    await client.close()
    await reads.close()
    return state


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, size=st.integers(1, 7))
def test_the_live_store_applies_what_the_fold_says(
    valkey: Valkey, steps: list[tuple[str, int, int, str]], size: int
) -> None:
    """Any history, in batches of any size, each batch delivered twice: equal sums and equal open holds."""
    valkey.command("FLUSHALL")
    fold = BudgetFold()
    history = list(enumerate(event for event in events_of(steps) if not is_unsound(event)))
    for _, event in history:
        fold.apply(event)
    batches = [history[first : first + size] for first in range(0, len(history), size)]
    state = asyncio.run(applied(valkey.url, batches))
    assert compare(fold.sums, fold.open_holds, state) == []


def test_what_was_posted_in_windows_long_over_is_swept(valkey: Valkey) -> None:
    """Once an hour, but for what is held still and what is of now or has no window."""
    valkey.command("FLUSHALL")
    make, now = Events(), time.time_ns() // 1_000
    over, held, current = (1, 2_000_000), (3, 4_000_000), (now, now + 3_600_000_000)
    windows = (over, held, current, (0, 0))
    placed = [make.placed(hold_id(number), leg(5, "limit", window)) for number, window in enumerate(windows)]
    still = make.placed(hold_id(9), leg(7, "limit", held))
    history = [*placed, *(make.committed(each, 5) for each in placed), still]
    asyncio.run(applied(valkey.url, [list(enumerate(history))]))
    valkey.command("HSET", slot_keys(TENANT).state, "swept", "1")
    last = make.placed(hold_id(10), leg(1, "other"))

    state = asyncio.run(applied(valkey.url, [[(len(history), last)]]))

    posted = {counter[2:]: sums.posted_nano for counter, sums in state.sums.items() if counter.limit_id == "limit"}
    assert posted == {held: 5, current: 5, (0, 0): 5}


def test_a_sweep_of_many_counters_is_taken_in_steps(valkey: Valkey) -> None:
    """Nobody is admitted while a batch is applied: each looks at some counters, and some batches later all are seen."""
    valkey.command("FLUSHALL")
    make, state = Events(), slot_keys(TENANT).state
    asyncio.run(applied(valkey.url, [[(0, make.placed(hold_id(0), leg(1, "other")))]]))
    for first in range(0, 9_000, 1_000):
        counters = [f"p:limit.{number}|USD|1|2" for number in range(first, first + 1_000)]
        valkey.command("HSET", state, *(word for name in counters for word in (name, "5")))
    valkey.command("HSET", state, "p:limit|USD|0|0", "5", "swept", "1")
    sizes = []

    for offset in range(1, 40):
        asyncio.run(apply_one(valkey.url, offset, make.placed(hold_id(offset), leg(1, "other"))))
        sizes.append(int(valkey.command("HLEN", state)[1:]))

    assert 6_000 < sizes[0] < 9_000
    assert sizes[-1] < 20
    assert [b":1\r\n", b":0\r\n"] == [
        valkey.command("HEXISTS", state, name) for name in ("p:limit|USD|0|0", "sweeping")
    ]


async def apply_one(url: str, offset: int, event: BudgetEvent) -> None:
    """Apply one event as one batch."""
    client = RedisClient(url)
    await client.open()
    move = slot_event(offset, fields_of(event))
    assert move is not None
    await Slots(client).apply(TENANT, [move], OWNER, offset, offset + 1)
    await client.close()


def test_a_fold_that_goes_on_forgets_windows_that_are_over() -> None:
    """Not those on which something is held."""
    make, fold = Events(), BudgetFold()
    over, held = (make.placed(hold_id(number), leg(5, f"limit_{number}", (1, 2))) for number in (1, 2))
    for event in (over, make.committed(over, 5), held):
        fold.apply(event)
    fold.forget_windows(3_600_000_000)
    assert [counter.limit_id for counter in fold.sums] == ["limit_2"]


@given(steps=STEPS)
def test_the_fold_in_place_is_evolve(steps: list[tuple[str, int, int, str]]) -> None:
    """One rule, two ways to run it."""
    fold, state = BudgetFold(), BudgetState()
    for event in events_of(steps):
        fold.apply(event)
        state = evolve(state, event)
    assert (fold.sums, fold.open_holds) == (state.sums, state.open_holds)


@given(steps=STEPS)
def test_every_event_twice_changes_nothing(steps: list[tuple[str, int, int, str]]) -> None:
    """A producer that repeats itself across restarts charges nobody twice."""
    once, twice = BudgetFold(), BudgetFold()
    for event in events_of(steps):
        once.apply(event)
        twice.apply(event)
        twice.apply(event)
    assert (twice.sums, twice.open_holds) == (once.sums, once.open_holds)


@given(steps=STEPS)
def test_what_is_held_is_what_open_holds_hold(steps: list[tuple[str, int, int, str]]) -> None:
    """No leak: the held sum of every counter is the sum over open holds."""
    fold = BudgetFold()
    for event in events_of(steps):
        fold.apply(event)
    held: dict[object, int] = {}
    for hold in fold.open_holds.values():
        for counter, amount in hold.held:
            held[counter] = held.get(counter, 0) + amount
    assert {counter: sums.held_nano for counter, sums in fold.sums.items() if sums.held_nano} == {
        counter: amount for counter, amount in held.items() if amount
    }
